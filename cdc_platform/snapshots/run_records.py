"""What snapshot runs (bootstraps and backfills) leave in the state topic: values and their documents. Pure.

| key | document |
|---|---|
| `backfill/<run>` | the run: request, shards, created, finished |
| `backfill/<run>/<shard>` | one shard of it: phase, offsets, rows, error |
| `watermark/<dataset>/<table>/<shard>` | what is known of a (shard, table) |
| `hold/<dataset>.<shard>` | run and reason: a pass leaves the shard alone |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from cdc_platform.model.topology import EMPTY, BootstrapMode
from cdc_platform.planning.holds import WATERMARK
from cdc_platform.snapshots.request import Request, RunKind

RUN = "backfill/"
# What follows it is no shard's: no shard id holds an exclamation mark.
ASIDE = "!"
HOLD = "hold/"
# `backfill/<run>/!worker/<slice>`: when a process last worked on that slice; written so often, seconds.
WORKER = f"{ASIDE}worker/"
SIGN_SECONDS = 30.0

Records = Mapping[str, Mapping[str, Any]]
Offset = Mapping[str, Any]


def last_worked_on(records: Records, run_id: str) -> datetime | None:
    """When a process last worked on the snapshot run; None when none has begun."""
    found = [document["at"] for key, document in records.items() if key.startswith(f"{RUN}{run_id}/{WORKER}")]
    return max(map(datetime.fromisoformat, found), default=None)


class Phase(StrEnum):
    """Where a shard is in its run. WAITING has no record."""

    WAITING = "waiting"
    RESETTING = "resetting"
    STARTING = "starting"
    READING = "reading"
    DONE = "done"
    FAILED = "failed"

    @property
    def over(self) -> bool:
        """True when the run does nothing more for the shard."""
        return self in (Phase.DONE, Phase.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One bootstrap or backfill. `shards` are ids. `slices` cuts them for processes that work side by side."""

    id: str
    request: Request
    mode: BootstrapMode | None
    tables: tuple[str, ...]
    shards: tuple[str, ...]
    created: datetime
    finished: datetime | None = None
    failed: int = 0

    @property
    def dataset(self) -> str:
        """The dataset's name."""
        return self.request.dataset

    @property
    def kind(self) -> RunKind:
        """Bootstrap or backfill."""
        return self.request.kind

    @property
    def reads_rows(self) -> bool:
        """True when rows that are there already are asked for, not only a stream."""
        return self.mode in (None, BootstrapMode.SNAPSHOT, BootstrapMode.INCREMENTAL)

    @property
    def key(self) -> str:
        """Its key in the state topic."""
        return f"{RUN}{self.id}"

    def shard_key(self, shard: str) -> str:
        """The key of one of its shards, by id."""
        return f"{RUN}{self.id}/{shard}"

    def document(self) -> dict[str, Any]:
        """As the state topic holds it."""
        return _document(self, "id")


@dataclass(frozen=True, slots=True, kw_only=True)
class RowCount:
    """What arrived of one (shard, table), held against its source.

    `read` keys are in the topic; the source had from `low` to `high` rows just before and after they were counted.
    `low` and `high` are None where the source gave no count; `uncounted` says why.
    """

    read: int
    low: int | None = None
    high: int | None = None
    uncounted: str | None = None

    @property
    def whole(self) -> bool:
        """True when no row is missing."""
        return self.low is not None and self.read >= self.low

    def sentence(self) -> str:
        """Both numbers, or why there is only one."""
        if self.low is None or self.high is None:
            return f"{self.read:,} rows read, not counted: {(self.uncounted or 'the source did not say').rstrip('.')}"
        source = f"{self.low:,}" if self.low == self.high else f"{self.low:,}..{self.high:,}"
        return f"read {self.read:,} of {source} rows"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardState:
    """One shard of a run, as recorded.

    `before` is the offset that was committed before a reset, `start` the first one after it (or the one
    found when nothing was reset), `end` that at the end. `attempt` counts the incremental snapshots that
    were asked for, the last `tries` of them for the tables `asked` (Debezium's names). By table name: `rows`,
    `unread` why a table is not read, `counts` of those that were.
    """

    phase: Phase
    since: datetime
    began: datetime
    reset: bool = False
    attempt: int = 0
    asked: tuple[str, ...] = ()
    tries: int = 0
    before: Offset | None = None
    start: Offset | None = None
    end: Offset | None = None
    rows: Mapping[str, int] = EMPTY
    unread: Mapping[str, str] = EMPTY
    counts: Mapping[str, RowCount] = EMPTY
    error: str | None = None

    def to(self, phase: Phase, now: datetime, **more: Any) -> ShardState:
        """The state in its next phase."""
        return replace(self, phase=phase, since=now, **more)

    def document(self) -> dict[str, Any]:
        """As the state topic holds it."""
        return _document(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hole:
    """Changes that no stream has seen: from where the shard stood to where it was reset.

    Rows inserted or updated in between are in the topic again once the table is complete; rows
    deleted in between stay in it until a repair.
    """

    since: str | None
    until: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Watermark:
    """What is known of one (shard, table).

    Every change after `position` is in the topic or on its way; `position` is the text of a GTID set
    or an LSN, None while the connector has committed none. Rows that are older are there too once
    `complete` is set: since then the topic holds the whole table. For modes latest and position it
    stays None, and rows before `position` are out of scope. `backfilled` is the last backfill's run.
    `count` is that of the last snapshot of all rows: None of one that an earlier release made, and never counted.
    """

    dataset: str
    table: str
    shard: str
    mode: BootstrapMode
    run: str
    position: str | None
    offset: Offset
    since: datetime
    complete: datetime | None = None
    rows: int | None = None
    hole: Hole | None = None
    backfilled: str | None = None
    count: RowCount | None = None

    @property
    def key(self) -> str:
        """Its key in the state topic."""
        return watermark_key(self.dataset, self.table, self.shard)

    def document(self) -> dict[str, Any]:
        """As the state topic holds it."""
        return _document(self, "dataset", "table", "shard")


def watermark_key(dataset: str, table: str, shard: str) -> str:
    """Where the watermark of a (shard, table) is."""
    return f"{WATERMARK}{dataset}/{table}/{shard}"


def watermark(records: Records, dataset: str, table: str, shard: str) -> Watermark | None:
    """What is known of one (shard, table); None: it was never bootstrapped."""
    document = records.get(watermark_key(dataset, table, shard))
    return None if document is None else _watermark(dataset, table, shard, document)


def watermarks(records: Records, dataset: str) -> dict[tuple[str, str], Watermark]:
    """All watermarks of a dataset by (table, shard id)."""
    found = {}
    prefix = f"{WATERMARK}{dataset}/"
    for key, document in records.items():
        if key.startswith(prefix):
            table, _, shard = key.removeprefix(prefix).partition("/")
            found[table, shard] = _watermark(dataset, table, shard, document)
    return found


def runs(records: Records) -> dict[str, Run]:
    """All runs that are on record, by id."""
    return {
        key.removeprefix(RUN): msgspec.convert({**document, "id": key.removeprefix(RUN)}, Run)
        for key, document in records.items()
        if key.startswith(RUN) and "/" not in key.removeprefix(RUN)
    }


def shard_states(records: Records, run: str) -> dict[str, ShardState]:
    """The shards of a run that are on record, by id."""
    prefix = f"{RUN}{run}/"
    return {
        key.removeprefix(prefix): msgspec.convert(document, ShardState)
        for key, document in records.items()
        if key.startswith(prefix) and not key.startswith(f"{prefix}{ASIDE}")
    }


def hold_key(shard: str) -> str:
    """Where the hold of a shard (`<dataset>.<shard>`) is."""
    return f"{HOLD}{shard}"


def _watermark(dataset: str, table: str, shard: str, document: Mapping[str, Any]) -> Watermark:
    return msgspec.convert({**document, "dataset": dataset, "table": table, "shard": shard}, Watermark)


def _document(record: Run | ShardState | Watermark, *in_key: str) -> dict[str, Any]:
    """The fields of a record as JSON holds them, without those that its key names."""
    fields = msgspec.to_builtins(record, builtin_types=(datetime,), enc_hook=dict)
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in fields.items()
        if name not in in_key
    }
