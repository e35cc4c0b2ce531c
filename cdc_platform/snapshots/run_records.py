"""What bootstraps and backfills leave in the state topic: values and their documents. Pure.

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

from cdc_platform.model.topology import EMPTY, BootstrapMode
from cdc_platform.planning.holds import WATERMARK
from cdc_platform.snapshots.request import Request, RunKind

RUN = "backfill/"
# What follows it is no shard's: no shard id holds an exclamation mark.
ASIDE = "!"
HOLD = "hold/"

Records = Mapping[str, Mapping[str, Any]]
Offset = Mapping[str, Any]


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
    def key(self) -> str:
        """Its key in the state topic."""
        return f"{RUN}{self.id}"

    def shard_key(self, shard: str) -> str:
        """The key of one of its shards, by id."""
        return f"{RUN}{self.id}/{shard}"

    def document(self) -> dict[str, Any]:
        """As the state topic holds it."""
        return {
            "request": self.request.document(),
            "mode": str(self.mode) if self.mode else None,
            "tables": list(self.tables),
            "shards": list(self.shards),
            "created": self.created.isoformat(),
            "finished": _iso(self.finished),
            "failed": self.failed,
        }

    @classmethod
    def from_document(cls, run: str, document: Mapping[str, Any]) -> Run:
        """Read what `document` wrote."""
        return cls(
            id=run,
            request=Request.from_document(document["request"]),
            mode=BootstrapMode(document["mode"]) if document["mode"] else None,
            tables=tuple(document["tables"]),
            shards=tuple(document["shards"]),
            created=datetime.fromisoformat(document["created"]),
            finished=_time(document["finished"]),
            failed=int(document["failed"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardState:
    """One shard of a run, as recorded.

    `before` is the offset that was committed before a reset, `start` the first one after it (or the one
    found when nothing was reset), `end` that at the end. `attempt` counts the incremental snapshots that
    were asked for. `rows` is by table name.
    """

    phase: Phase
    since: datetime
    began: datetime
    reset: bool = False
    attempt: int = 0
    before: Offset | None = None
    start: Offset | None = None
    end: Offset | None = None
    rows: Mapping[str, int] = EMPTY
    error: str | None = None

    def to(self, phase: Phase, now: datetime, **more: Any) -> ShardState:
        """The state in its next phase."""
        return replace(self, phase=phase, since=now, **more)

    def document(self) -> dict[str, Any]:
        """As the state topic holds it."""
        return {
            "phase": str(self.phase),
            "since": self.since.isoformat(),
            "began": self.began.isoformat(),
            "reset": self.reset,
            "attempt": self.attempt,
            "before": _plain(self.before),
            "start": _plain(self.start),
            "end": _plain(self.end),
            "rows": dict(self.rows),
            "error": self.error,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> ShardState:
        """Read what `document` wrote."""
        return cls(
            phase=Phase(document["phase"]),
            since=datetime.fromisoformat(document["since"]),
            began=datetime.fromisoformat(document["began"]),
            reset=document["reset"],
            attempt=int(document["attempt"]),
            before=document["before"],
            start=document["start"],
            end=document["end"],
            rows=dict(document["rows"]) or EMPTY,
            error=document["error"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Hole:
    """Changes that no stream has seen: from where the shard stood to where it was started anew.

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

    @property
    def key(self) -> str:
        """Its key in the state topic."""
        return watermark_key(self.dataset, self.table, self.shard)

    def document(self) -> dict[str, Any]:
        """As the state topic holds it."""
        return {
            "mode": str(self.mode),
            "run": self.run,
            "position": self.position,
            "offset": _plain(self.offset),
            "since": self.since.isoformat(),
            "complete": _iso(self.complete),
            "rows": self.rows,
            "hole": {"since": self.hole.since, "until": self.hole.until} if self.hole else None,
            "backfilled": self.backfilled,
        }


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
        key.removeprefix(RUN): Run.from_document(key.removeprefix(RUN), document)
        for key, document in records.items()
        if key.startswith(RUN) and "/" not in key.removeprefix(RUN)
    }


def shard_states(records: Records, run: str) -> dict[str, ShardState]:
    """The shards of a run that are on record, by id."""
    prefix = f"{RUN}{run}/"
    return {
        key.removeprefix(prefix): ShardState.from_document(document)
        for key, document in records.items()
        if key.startswith(prefix) and not key.startswith(f"{prefix}{ASIDE}")
    }


def hold_key(shard: str) -> str:
    """Where the hold of a shard (`<dataset>.<shard>`) is."""
    return f"{HOLD}{shard}"


def _watermark(dataset: str, table: str, shard: str, document: Mapping[str, Any]) -> Watermark:
    hole = document["hole"]
    return Watermark(
        dataset=dataset,
        table=table,
        shard=shard,
        mode=BootstrapMode(document["mode"]),
        run=document["run"],
        position=document["position"],
        offset=document["offset"],
        since=datetime.fromisoformat(document["since"]),
        complete=_time(document["complete"]),
        rows=document["rows"],
        hole=Hole(since=hole["since"], until=hole["until"]) if hole else None,
        backfilled=document["backfilled"],
    )


def _plain(offset: Offset | None) -> dict[str, Any] | None:
    return None if offset is None else dict(offset)


def _iso(at: datetime | None) -> str | None:
    return at.isoformat() if at else None


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
