"""How far the snapshot of one shard is: notifications folded into a value. Pure.

A table is complete only when its scan ended with SUCCEEDED or EMPTY. Debezium's
COMPLETED says no more than that the queue is empty: it is sent after `stop-snapshot` and
after a table that was skipped for an SQL error, too (tried, 3.5.0 and 3.7.0).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from cdc_platform.clients.kafka.notifications import INCREMENTAL, INITIAL, Notification

COMPLETE = frozenset({"SUCCEEDED", "EMPTY"})
# A new signal does not help against these.
UNREADABLE = frozenset({"NO_PRIMARY_KEY", "UNKNOWN_SCHEMA"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TableProgress:
    """One table of one shard.

    `rows` counts what was read so far: exactly once the scan has ended in one task run,
    else about that many. `scanned` is what the task that ended the scan has read itself, never more than there was.
    `fraction` is None where it is not known. `status` is Debezium's word for the scan's end.
    """

    rows: int = 0
    scanned: int | None = None
    chunks: int = 0
    fraction: float | None = None
    status: str | None = None
    began: datetime | None = None
    ended: datetime | None = None

    @property
    def complete(self) -> bool:
        """True when all rows asked for were read."""
        return self.status in COMPLETE


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardProgress:
    """What the notifications of one shard say of the signals that we know.

    `tables` is by Debezium's table name. `attempt` is the id of the snapshot that spoke last, `ended` its
    COMPLETED or ABORTED; `paused` since when a pause holds; `last` the newest notification of all.
    """

    tables: Mapping[str, TableProgress] = field(default_factory=dict)
    attempt: str | None = None
    started: datetime | None = None
    ended: datetime | None = None
    aborted: bool = False
    paused: datetime | None = None
    last: datetime | None = None

    @property
    def rows(self) -> int:
        """Rows read of all tables."""
        return sum(table.rows for table in self.tables.values())

    @property
    def chunks(self) -> int:
        """Chunks read of all tables."""
        return sum(table.chunks for table in self.tables.values())

    def complete(self, tables: Iterable[str]) -> bool:
        """True when all of these tables were read to their end."""
        return all(table in self.tables and self.tables[table].complete for table in tables)

    def fraction(self, tables: Iterable[str]) -> float:
        """How much of these tables is read, 0 to 1; what nothing is known of counts as 0."""
        names = list(tables)
        if not names:
            return 1.0
        return sum(_fraction(self.tables.get(name)) for name in names) / len(names)


def _fraction(table: TableProgress | None) -> float:
    if table is None:
        return 0.0
    return 1.0 if table.complete else table.fraction or 0.0


def fold(progress: ShardProgress, notification: Notification, *, chunk_rows: int) -> ShardProgress:
    """The progress after one more notification.

    Args:
        progress: before it.
        notification: of this shard, and of a signal of ours or of an initial snapshot.
        chunk_rows: the connector's `incremental.snapshot.chunk.size`.
    """
    last = notification.at if progress.last is None else max(progress.last, notification.at)
    progress = replace(progress, last=last, started=progress.started or notification.at)
    # A new attempt reads again what was not complete. (Notifications of an initial snapshot have an id each:
    # there STARTED marks it. One that began through the offset has no STARTED.)
    if notification.type == "STARTED" or (notification.snapshot == INCREMENTAL and notification.id != progress.attempt):
        # An initial snapshot that begins reads everything: what an older one has read is before its position.
        # What this one has read may be reported before its beginning.
        since = notification.at if notification.snapshot == INITIAL else None
        kept = {name: table for name, table in progress.tables.items() if table.complete and _after(table.ended, since)}
        ended = progress.ended if since is not None and _after(progress.ended, since) else None
        progress = replace(progress, tables=kept, attempt=notification.id, ended=ended, aborted=False, paused=None)
    match notification.type:
        case "PAUSED":
            return replace(progress, paused=notification.at)
        case "RESUMED":
            return replace(progress, paused=None)
        case "IN_PROGRESS" if notification.table is not None:
            before = progress.tables.get(notification.table, TableProgress())
            # A paused snapshot reads no chunk: the task was restarted and has forgotten the pause.
            return _with(replace(progress, paused=None), notification.table, _read_on(before, notification, chunk_rows))
        case "TABLE_SCAN_COMPLETED" if notification.table is not None:
            before = progress.tables.get(notification.table, TableProgress())
            return _with(progress, notification.table, _ended(before, notification))
        case "COMPLETED":
            return replace(progress, ended=notification.at, paused=None)
        case "ABORTED":
            return replace(progress, ended=notification.at, aborted=True, paused=None)
    return progress


def _after(ended: datetime | None, since: datetime | None) -> bool:
    return since is None or (ended is not None and ended >= since)


def _with(progress: ShardProgress, name: str, table: TableProgress) -> ShardProgress:
    return replace(progress, tables={**progress.tables, name: table})


def _read_on(table: TableProgress, notification: Notification, chunk_rows: int) -> TableProgress:
    began = table.began or notification.at
    if notification.snapshot == INITIAL:
        return replace(table, began=began, rows=max(table.rows, notification.rows or 0))
    chunks = table.chunks + 1
    fraction = _part(notification)
    # The notification of a chunk comes when it was read, before its rows are sent: it counts with the next one.
    rows = max(table.rows, (chunks - 1) * chunk_rows)
    if notification.total_rows is not None:
        rows = min(rows, notification.total_rows)
    return replace(
        table,
        began=began,
        chunks=chunks,
        rows=rows,
        fraction=fraction if fraction is not None else table.fraction,
        status=None,
        ended=None,
    )


def _ended(table: TableProgress, notification: Notification) -> TableProgress:
    status = notification.status or "SUCCEEDED"
    return replace(
        table,
        began=table.began or notification.at,
        ended=notification.at,
        status=status,
        # The count is the task's own: after a restart it begins at 0, and ours is greater.
        rows=max(table.rows, notification.rows or 0),
        scanned=notification.rows,
        fraction=1.0 if status in COMPLETE else table.fraction,
    )


def _part(notification: Notification) -> float | None:
    if notification.chunk is not None and notification.chunks:
        return min(1.0, (notification.chunk - 1) / notification.chunks)
    try:
        last = float((notification.last_key or "").split(",")[0])
        most = float((notification.max_key or "").split(",")[0])
    except ValueError:
        return None
    return max(0.0, min(1.0, last / most)) if most > 0 else None


@dataclass(frozen=True, slots=True)
class Sample:
    """How far a run was at one moment: `at` in seconds of any clock, `fraction` 0 to 1, `rows` read."""

    at: float
    fraction: float
    rows: int


def eta(samples: Iterable[Sample]) -> float | None:
    """Seconds left by the pace of these samples, oldest first; None while there is no pace."""
    points = list(samples)
    if len(points) < 2 or points[-1].fraction <= points[0].fraction:
        return None
    pace = (points[-1].fraction - points[0].fraction) / (points[-1].at - points[0].at)
    return (1.0 - points[-1].fraction) / pace


def rows_per_second(samples: Iterable[Sample]) -> float:
    """Rows a second over these samples, oldest first."""
    points = list(samples)
    if len(points) < 2 or points[-1].at <= points[0].at:
        return 0.0
    return max(0.0, (points[-1].rows - points[0].rows) / (points[-1].at - points[0].at))
