"""The ledger of one table on disk: a cache, extended from check to check.

`state.json` says how far the transactions' topic was read and what is known of each shard; beside
it lie the ENDs and events that do not balance yet, which normally are few. What was read is
appended to files and balanced part by part, so memory is bounded however much is new. State is
replaced as a whole; a kill costs what was read since, and events are dropped from where they
come from only after that.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from cdc_platform.errors import CdcError
from cdc_platform.verification.continuity.handovers import END, SEEN, Balance, Rows, ShardSent, balance, bucket_of
from cdc_platform.verification.proof.change_events import Words
from cdc_platform.verification.storage import sorted_files as runs
from cdc_platform.verification.storage.cache import cache_path

_VERSION = 1

# Rows balanced at once, some 40 bytes each and four times that for a moment.
BATCH_ROWS = 1_000_000
_PIECE = 250_000

# Transactions that were whole, remembered so that a replay of one opens nothing: 8 bytes each.
REMEMBERED = 500_000

_WAIT_SECONDS = 600.0


@dataclass(slots=True)
class ShardLedger:
    """What is known of one shard. `runs` are the task runs that were judged."""

    sent: ShardSent = field(default_factory=ShardSent)
    checked: int = 0
    resumed: int = 0
    unknown: int = 0
    runs: list[str] = field(default_factory=list)


@dataclass(slots=True)
class LedgerState:
    """What is known. `next` is by partition of the transactions' topic, `taken` by partition of the table's
    what was taken in of its tallies; `shards` and `runs` number what ENDs and events name.
    """

    topic_id: str = ""
    next: dict[int, int] = field(default_factory=dict)
    taken: dict[int, list[str]] = field(default_factory=dict)
    shards: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    books: dict[str, ShardLedger] = field(default_factory=dict)
    newest: int = 0
    file: str = ""
    serial: int = 0
    version: int = _VERSION

    def book(self, shard: str) -> ShardLedger:
        """The shard's own."""
        return self.books.setdefault(shard, ShardLedger())


class LedgerStore:
    """One table's ledger. Used by one process at a time, under `lock`."""

    def __init__(self, home: Path, platform: str, topic: str, topic_id: str) -> None:
        self._dir = cache_path(home, "ledger", platform, topic, topic_id)
        self._dir.mkdir(parents=True, exist_ok=True)
        self.state = LedgerState()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the ledger; `state` is what is there now. Raises CdcError when another process does not let go."""
        end = time.monotonic() + _WAIT_SECONDS
        with (self._dir / "lock").open("w") as handle:
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        raise CdcError(
                            f"another process has held the ledger for {_WAIT_SECONDS:.0f} s.",
                            where=str(self._dir),
                            cure="See whether it hangs; its lock goes with it.",
                        ) from None
                    time.sleep(0.1)
            self.state = self._loaded()
            yield

    def open_rows(self) -> tuple[Rows, Rows]:
        """ENDs and events that do not balance yet."""
        if not self.state.file:
            return np.zeros(0, dtype=END), np.zeros(0, dtype=SEEN)
        ends = np.array(runs.read(self._dir / f"{self.state.file}.ends", END))
        return ends, np.array(runs.read(self._dir / f"{self.state.file}.seen", SEEN))

    def _closed(self) -> Words:
        if not self.state.file:
            return np.zeros(0, dtype=np.uint64)
        return np.fromfile(self._dir / f"{self.state.file}.closed", dtype=np.uint64)

    def write_down(self, kind: str, rows: Rows) -> None:
        """Add rows (`ends` or `seen`) to what the next `balanced` looks at."""
        with (self._dir / f"new.{kind}").open("ab") as stream:
            rows.tofile(stream)

    def begin(self) -> None:
        """Forget what was written down and not balanced: its process died."""
        ends, seen = self.open_rows()
        for kind, rows in (("ends", ends), ("seen", seen)):
            (self._dir / f"new.{kind}").write_bytes(b"")
            self.write_down(kind, rows)

    def balanced(self, batch_rows: int = BATCH_ROWS) -> Balance:
        """Balance all that was written down, part by part."""
        parts = {"ends": self._new("ends", END), "seen": self._new("seen", SEEN)}
        buckets = 1 + sum(map(len, parts.values())) // batch_rows
        checked: Counter[int] = Counter()
        ends, seen = [np.zeros(0, dtype=END)], [np.zeros(0, dtype=SEEN)]
        known = self._closed()
        closed = [known]
        for bucket in range(buckets):
            ended, sent = (_bucket(rows, bucket, buckets) for rows in parts.values())
            found = balance(ended, sent, known)
            checked.update(found.checked)
            ends.append(found.ends)
            seen.append(found.seen)
            closed.append(found.closed)
        return Balance(checked, np.concatenate(ends), np.concatenate(seen), np.concatenate(closed))

    def save(self, ends: Rows, seen: Rows, closed: Words) -> None:
        """Make these the open rows and the last transactions that were whole, and the state the state."""
        self.state.serial += 1
        name = f"open-{self.state.serial}"
        runs.write(self._dir / f"{name}.ends", ends)
        runs.write(self._dir / f"{name}.seen", seen)
        closed[-REMEMBERED:].tofile(self._dir / f"{name}.closed")
        self.state.file = name
        fresh = self._dir / "state.json.new"
        with fresh.open("wb") as stream:
            stream.write(msgspec.json.encode(self.state))
            stream.flush()
            os.fsync(stream.fileno())
        fresh.replace(self._dir / "state.json")
        for path in self._dir.iterdir():
            if path.name not in ("lock", "state.json") and not path.name.startswith(name):
                path.unlink(missing_ok=True)

    def _loaded(self) -> LedgerState:
        try:
            found = msgspec.json.decode((self._dir / "state.json").read_bytes(), type=LedgerState)
        except (FileNotFoundError, msgspec.DecodeError):
            return LedgerState()
        return found if found.version == _VERSION else LedgerState()

    def _new(self, kind: str, dtype: np.dtype[Any]) -> Rows:
        return runs.read(self._dir / f"new.{kind}", dtype)


def _bucket(rows: Rows, bucket: int, buckets: int) -> Rows:
    if buckets == 1:
        return np.array(rows)
    parts: Sequence[Rows] = [
        piece[bucket_of(piece, buckets) == bucket]
        for piece in (np.array(rows[at : at + _PIECE]) for at in range(0, len(rows), _PIECE))
    ]
    return np.concatenate([np.zeros(0, dtype=rows.dtype), *parts])


def numbered(names: list[str], known: dict[str, int], name: str) -> int:
    """The number of a name; a new one gets the next."""
    code = known.get(name)
    if code is None:
        code = known[name] = len(names)
        names.append(name)
    return code


def codes(names: Sequence[str]) -> Mapping[str, int]:
    """Name to number."""
    return {name: code for code, name in enumerate(names)}
