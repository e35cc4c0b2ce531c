"""How far each table of each shard of a snapshot run is, from the connectors' notifications."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cdc_platform.errors import Unavailable
from cdc_platform.planning.health.failures import first_line
from cdc_platform.snapshots.ports import SnapshotPorts
from cdc_platform.snapshots.progress_events import duration
from cdc_platform.snapshots.run_records import Phase, Run, shard_states
from cdc_platform.snapshots.shard_progress import TableProgress
from cdc_platform.snapshots.slice_state import SliceShard, SliceState

# Clocks of this machine and of the brokers may differ by so much.
CLOCK_SLACK = timedelta(minutes=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableLine:
    """One table of one shard. `fraction` is 0 to 1, `eta` seconds; None where it is not known.

    `phase` is the shard's, or `ended`: of a run that is finished only its failed shards are on record.
    `problem` says why the table is not read, or what its shard waits or failed for.
    """

    shard: str
    table: str
    phase: str
    rows: int
    chunks: int
    fraction: float | None
    rows_per_s: float
    eta: float | None
    problem: str | None = None

    def sentence(self) -> str:
        """The table in one line."""
        parts = [f"{self.shard} {self.table}: {self.phase}, {self.rows:,} rows in {self.chunks:,} chunks"]
        if self.fraction is not None:
            parts.append(f"{self.fraction:.0%}")
        if self.rows_per_s:
            parts.append(f"{self.rows_per_s:,.0f} rows/s")
        if self.eta is not None:
            parts.append(f"{duration(self.eta)} left")
        text = ", ".join(parts)
        return f"{text}: {self.problem}" if self.problem else text


def progress_of(ports: SnapshotPorts, run: Run) -> list[TableLine]:
    """All shards and tables of the run, in order. Those that are no longer in the topology are left out.

    Raises:
        KafkaUnavailable: the notifications cannot be read.
        TopologyError: its dataset is gone.
    """
    platform = ports.platform
    topology = platform.topology.load()
    dataset = topology.dataset(run.dataset)
    shards = [shard for shard in topology.shards.get(dataset.name, ()) if shard.id in run.shards]
    state = SliceState(run, dataset, shards)
    state.load_states(shard_states(platform.state.read(), run.id))
    for name in dataset.clusters:
        try:
            found = platform.connect(topology.clusters[name]).connectors()
        except Unavailable:
            continue  # then chunks are taken to have the usual size
        for shard in state:
            if shard.name in found:
                shard.observe(found[shard.name])
    notes = ports.notifications(run.created - CLOCK_SLACK)
    try:
        state.add_notifications(notes.read())
    finally:
        notes.close()
    return list(lines(state))


def lines(state: SliceState) -> Iterable[TableLine]:
    """How far each table is. Pure."""
    for shard in state:
        for name in shard.names:
            table = shard.progress.tables.get(name, TableProgress())
            pace, eta = _pace(table, shard.progress.last)
            yield TableLine(
                shard=shard.id,
                table=name.rpartition(".")[2],
                phase=_phase(state.run, shard, table),
                rows=table.rows,
                chunks=table.chunks,
                fraction=1.0 if table.complete else table.fraction,
                rows_per_s=pace,
                eta=eta,
                problem=_problem(shard, shard.names[name], table),
            )


def _problem(shard: SliceShard, table: str, progress: TableProgress) -> str | None:
    if shard.state is not None and (why := shard.state.unread.get(table) or shard.state.error):
        return why
    failed = progress.status is not None and not progress.complete
    return f"its reading ended with {progress.status}" if failed else _trace(shard)


def _trace(shard: SliceShard) -> str | None:
    connector = shard.observed.connector
    traces = [task.trace for task in connector.tasks if task.trace] if connector is not None and not shard.over else []
    return first_line(traces[0]) if traces else None


def _phase(run: Run, shard: SliceShard, table: TableProgress) -> str:
    if table.complete:
        return "read"
    if shard.state is not None:
        return str(shard.state.phase)
    return str(Phase.WAITING) if run.finished is None else "ended"


def _pace(table: TableProgress, last: datetime | None) -> tuple[float, float | None]:
    """Rows a second since its beginning, and seconds left by it."""
    until = table.ended or last
    seconds = (until - table.began).total_seconds() if until and table.began else 0.0
    if seconds <= 0:
        return 0.0, None
    left = None if table.complete or not table.fraction else seconds * (1 - table.fraction) / table.fraction
    return table.rows / seconds, left
