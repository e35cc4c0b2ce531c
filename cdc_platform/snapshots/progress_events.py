"""What a snapshot run reports while it works: values for logs, progress bars and events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cdc_platform.model.naming import some_of
from cdc_platform.model.topology import EMPTY, BootstrapMode
from cdc_platform.snapshots.run_records import Hole


@dataclass(frozen=True, slots=True, kw_only=True)
class RunProgress:
    """How far a snapshot run, or a slice of it, is.

    `active` and `throttled` map a reason to how many shards, `waits` a shard to what it waits for. `eta` is in seconds.
    """

    shards: int
    done: int
    failed: int
    active: Mapping[str, int]
    throttled: Mapping[str, int]
    rows: int
    chunks: int
    rows_per_s: float
    fraction: float
    eta: float | None
    waits: Mapping[str, str] = EMPTY

    def sentence(self) -> str:
        """The progress in one sentence."""
        parts = [f"{self.done} of {self.shards} shards done"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        parts += [f"{count} {reason}" for reason, count in sorted(self.active.items())]
        parts += [f"{count} throttled: {reason}" for reason, count in sorted(self.throttled.items())]
        parts.append(f"{self.rows:,} rows in {self.chunks:,} chunks, {self.rows_per_s:,.0f} rows/s")
        if self.eta is not None:
            parts.append(f"{duration(self.eta)} left")
        return f"{self.fraction:.0%}: {', '.join(parts)}.{self.waiting()}"

    def waiting(self) -> str:
        """Which shards wait, and for what; empty when none does."""
        by_reason: dict[str, list[str]] = {}
        for shard, reason in sorted(self.waits.items()):
            by_reason.setdefault(reason, []).append(shard)
        return "".join(f" Waits: {some_of(names, 3)}: {reason}." for reason, names in by_reason.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardDone:
    """A shard that is over: `rows` by table, positions as text, `error` when it failed."""

    dataset: str
    shard: str
    mode: BootstrapMode | None
    seconds: float
    rows: Mapping[str, int] = EMPTY
    start: str | None = None
    end: str | None = None
    hole: Hole | None = None
    error: str | None = None

    def sentence(self) -> str:
        """What became of the shard, in one sentence."""
        name = f"{self.dataset}.{self.shard}"
        if self.error is not None:
            return f"{name} failed after {duration(self.seconds)}: {self.error.rstrip('.')}."
        text = f"{name}: {sum(self.rows.values()):,} rows in {duration(self.seconds)}, streams from {self.start}"
        if self.hole is not None:
            text += (
                f"; no stream has seen what changed between {self.hole.since} and {self.hole.until}: "
                "rows deleted there stay in the topic until a repair"
            )
        return text + "."


class Listener:
    """Receives progress events, in the thread that works. This one does nothing with them."""

    def message(self, text: str) -> None:
        """Something happened, in one sentence."""

    def progress(self, progress: RunProgress) -> None:
        """How far it is; every few seconds."""

    def over(self, shards: tuple[ShardDone, ...]) -> None:
        """These shards are over: called before that is recorded, so at least once for each."""


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
