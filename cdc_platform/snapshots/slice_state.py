"""All shards of a slice at one moment: what is on record, observed and reported of each. Reads nothing itself."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from cdc_platform.clients.kafka.notifications import INITIAL, Notification
from cdc_platform.connectors.tables import container, uncaptured
from cdc_platform.model.observed import ObservedConnector
from cdc_platform.model.topology import EMPTY, BootstrapMode, Dataset, Shard
from cdc_platform.snapshots.progress_events import RunProgress
from cdc_platform.snapshots.request import Load
from cdc_platform.snapshots.run_records import Phase, Records, RowCount, Run, ShardState, hold_key
from cdc_platform.snapshots.shard_progress import Sample, ShardProgress, eta, fold, rows_per_second
from cdc_platform.snapshots.shard_steps import ShardView, Timeouts, signal_id, stream_offset

# Rows and shards a second are measured over this many seconds.
_WINDOW = 120.0
_CHUNK = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedShard:
    """A shard's connector as Connect showed it last, replaced as a whole.

    `cluster` runs the connector, or would; None: not known. `offset` is the committed one: None when it was not
    read, empty when there is none. `uncaptured` are tables that the connector's configuration does not name.
    `chunk_rows` are the rows of a chunk, as the connector has it or was just given it.
    """

    connector: ObservedConnector | None = None
    cluster: str | None = None
    offset: Mapping[str, Any] | None = None
    uncaptured: tuple[str, ...] = ()
    chunk_rows: int = _CHUNK


@dataclass(slots=True, kw_only=True)
class SliceShard:
    """One shard of a slice: `state` is on record, `observed` in Connect, `progress` reported by the connector.

    `names` are the tables by Debezium's name.
    `admitted_at` is when the slice took it up; `nudges` how often its snapshot was begun again since it last
    reported anything; `steered` the last pause or resume (True: a pause), and when by the steady clock;
    `ended` that its snapshot was stopped by hand.
    """

    spec: Shard
    names: Mapping[str, str]
    state: ShardState | None = None
    observed: ObservedShard = field(default_factory=ObservedShard)
    progress: ShardProgress = field(default_factory=ShardProgress)
    admitted_at: datetime | None = None
    nudges: int = 0
    steered: tuple[bool, float] | None = None
    ended: bool = False

    @property
    def id(self) -> str:
        """The shard's id."""
        return self.spec.id

    @property
    def name(self) -> str:
        """`<dataset>.<shard>`, the name of its connector."""
        return self.spec.name

    @property
    def tables(self) -> tuple[str, ...]:
        """Debezium's names of the tables to read."""
        return tuple(name for name, table in self.names.items() if table not in self.unread)

    @property
    def unread(self) -> Mapping[str, str]:
        """Tables of the run that are not read here, with why."""
        left_out = {
            table: f"it is not captured: {self.spec.left_out[table]}"
            for table in self.names.values()
            if table in self.spec.left_out
        }
        return {**left_out, **(self.state.unread if self.state is not None else EMPTY)}

    @property
    def over(self) -> bool:
        """True when the snapshot run does nothing more for it."""
        return self.state is not None and self.state.phase.over

    @property
    def active(self) -> bool:
        """True while the slice works on it."""
        return self.admitted_at is not None and not self.over

    @property
    def reading(self) -> bool:
        """True while an incremental snapshot of ours may be under way."""
        return (
            self.state is not None
            and self.state.phase is Phase.READING
            and self.state.attempt > 0
            and not self.progress.complete(self.tables)
        )

    @property
    def unbegun(self) -> bool:
        """True when it streams and is to be read in chunks, and no snapshot of ours was asked for."""
        return self.state is not None and self.state.phase is Phase.READING and self.state.attempt == 0

    def observe(self, connector: ObservedConnector | None, cluster: str | None = None) -> None:
        """Replace what was observed by its connector as it is now; the offset was read before and is dropped."""
        rows = (
            connector.config.get("incremental.snapshot.chunk.size", _CHUNK) if connector else self.observed.chunk_rows
        )
        self.observed = ObservedShard(connector=connector, cluster=cluster, chunk_rows=int(rows))

    def changed(self, state: ShardState, *, chunk_rows: int | None = None) -> None:
        """Its connector was changed and its new state is on record: what was observed before no longer counts."""
        self.state = state
        # Chunks may be reported before the configuration is seen again.
        rows = chunk_rows or self.observed.chunk_rows
        self.observed = replace(self.observed, connector=None, offset=None, chunk_rows=rows)

    @property
    def stoppable(self) -> bool:
        """True when a run that is stopped may give it up now: it reads no more, and no reset of it is under way.

        A reset that was begun is brought to its end, else the shard stays down.
        """
        resetting = self.state is not None and self.state.phase is Phase.RESETTING
        return not self.over and (not self.reading or self.ended) and not resetting

    def needs_offset(self, now: datetime, timeouts: Timeouts) -> bool:
        """True when the next step depends on the committed offset."""
        if self.observed.cluster is None:
            return False
        state, progress = self.state, self.progress
        if state is None or state.phase is Phase.STARTING or state.attempt == 0:
            return True
        if progress.complete(self.tables) or progress.ended is not None:
            return True
        return now - max(state.since, progress.last or state.since) > timeouts.until_lost(state)

    def turn(self) -> tuple[int, datetime]:
        """Which shards read first when only some may: those that read, those paused longest, those not begun."""
        since = self.progress.paused or self.admitted_at or datetime.max.replace(tzinfo=UTC)
        return 2 if self.unbegun else 1 if self.progress.paused else 0, since

    def fraction(self) -> float:
        """How much of it is done, 0 to 1."""
        if self.over:
            return 1.0
        return self.progress.fraction(self.tables) if self.state is not None else 0.0


class SliceState:
    """The shards of one slice."""

    def __init__(self, run: Run, dataset: Dataset, shards: Sequence[Shard]) -> None:
        self.run = run
        self.dataset = dataset
        chosen = [table for table in dataset.tables if table.name in run.tables]
        self.shards = {
            shard.id: SliceShard(
                spec=shard, names={f"{container(dataset, shard, table)}.{table.name}": table.name for table in chosen}
            )
            for shard in shards
        }
        self._samples: deque[Sample] = deque()

    def __iter__(self) -> Iterator[SliceShard]:
        return iter(self.shards.values())

    def load_states(self, states: Mapping[str, ShardState]) -> None:
        """Take over what is on record."""
        for id_, state in states.items():
            shard = self.shards.get(id_)
            if shard is not None:
                shard.state = state
                if shard.admitted_at is None and not state.phase.over:
                    shard.admitted_at = state.began

    def interrupted(self, records: Records) -> set[str]:
        """The shards that were left half way through a wave: their hold is ours.

        A reset brings its own to its end, or leaves a shard that it gave up as it is.
        """
        found = set()
        for shard in self:
            held, state = records.get(hold_key(shard.name)), shard.state
            own_reset = state is not None and state.reset and state.phase in (Phase.RESETTING, Phase.FAILED)
            if held is not None and held["run"] == self.run.id and not own_reset:
                found.add(shard.id)
        return found

    def admissible(self, load: Load, throttled: Container[str]) -> list[SliceShard]:
        """The shards that may begin beside those that are active, within the load of all and of each host."""
        hosts = Counter(str(shard.spec.leader) for shard in self if shard.active)
        found = []
        for shard in self:
            host = str(shard.spec.leader)
            if hosts.total() >= load.max_parallel_shards:
                break
            full = hosts[host] >= load.max_parallel_per_host
            if shard.admitted_at is None and not shard.over and not full and shard.name not in throttled:
                hosts[host] += 1
                found.append(shard)
        return found

    def observe(self, connectors: Mapping[str, tuple[str, ObservedConnector]], homes: Mapping[str, str]) -> None:
        """Take over connectors by name, each with its cluster; `homes` are clusters of shards that have none."""
        for shard in self:
            cluster, connector = connectors.get(shard.name, (homes.get(shard.name), None))
            shard.observe(connector, cluster)
            config = connector.config if connector is not None else None
            missing = uncaptured(self.dataset, shard.spec, self.run.tables, config)
            shard.observed = replace(shard.observed, uncaptured=missing)

    def add_notifications(self, notifications: Sequence[Notification]) -> None:
        """Fold notifications into the shards' progress."""
        # Those of an initial snapshot have keys of their own, and so come in any order.
        for one in sorted(notifications, key=lambda one: one.at):
            dataset, _, id_ = one.shard.partition(".")
            shard = self.shards.get(id_) if dataset == self.dataset.name else None
            if shard is not None and self._concerns(shard, one):
                shard.progress = fold(shard.progress, one, chunk_rows=shard.observed.chunk_rows)
                shard.nudges = 0

    def _concerns(self, shard: SliceShard, notification: Notification) -> bool:
        """True for a step of a snapshot that this snapshot run asked for, in any process, or adopts."""
        if notification.snapshot != INITIAL:
            return notification.id.startswith(signal_id(self.run.id, notification.shard, 0)[:-1])
        if self.run.mode is not BootstrapMode.SNAPSHOT:
            return False
        # Before a reset: the snapshot of a stream that is no more.
        return shard.state is None or not shard.state.reset or notification.at >= shard.state.began

    def view(self, shard: SliceShard, throttled: str | None) -> ShardView:
        """The shard as the steps take it."""
        return ShardView(
            run=self.run.id,
            shard=shard.name,
            engine=self.dataset.engine,
            kind=self.run.kind,
            mode=self.run.mode,
            state=shard.state,
            tables=shard.tables,
            connector=shard.observed.connector,
            offset=shard.observed.offset,
            progress=shard.progress,
            again=self.run.request.again,
            throttled=throttled,
            nudges=shard.nudges,
            uncaptured=shard.observed.uncaptured,
        )

    def adopted(self, shard: SliceShard, now: datetime) -> ShardState:
        """The state of a shard that streams: READING, or DONE when nothing was asked for but its stream."""
        offset = stream_offset(shard.observed.offset or {})
        state = _state(shard, now).to(Phase.READING, now, start=offset, error=None)
        return state if self.run.reads_rows else state.to(Phase.DONE, now, end=offset)

    def finished(self, shard: SliceShard, counts: Mapping[str, RowCount], now: datetime) -> ShardState:
        """The state of a shard that was read: FAILED when rows are missing, or could not be counted."""
        state = _state(shard, now)
        missing = [f"{table}: {count.sentence()}" for table, count in sorted(counts.items()) if not count.whole]
        problems = [*missing, *(f"{table} was not read: {why}" for table, why in sorted(shard.unread.items()))]
        rows = self.rows_of(shard) | {table: count.read for table, count in counts.items()}
        end = stream_offset(shard.observed.offset or {})
        phase, error = (Phase.FAILED, "; ".join(problems)) if problems else (Phase.DONE, None)
        return state.to(phase, now, end=end, rows=rows, counts=counts, error=error)

    def failed(self, shard: SliceShard, reason: str, now: datetime) -> ShardState:
        """The state of a shard that is given up."""
        return _state(shard, now).to(Phase.FAILED, now, error=reason, rows=self.rows_of(shard))

    def rows_of(self, shard: SliceShard) -> dict[str, int]:
        """Rows read by table name."""
        read = shard.progress.tables
        return {table: read[name].rows for name, table in shard.names.items() if name in read}

    def rows(self) -> int:
        """Rows that were read of all shards."""
        return sum(shard.progress.rows or sum(shard.state.rows.values() if shard.state else ()) for shard in self)

    def progress(self, throttled: Mapping[str, str], now: float) -> RunProgress:
        """How far the slice is.

        Args:
            throttled: shard (`<dataset>.<shard>`) to the reason why it does not read now.
            now: seconds of a steady clock.
        """
        rows = self.rows()
        fraction = sum(shard.fraction() for shard in self) / max(1, len(self.shards))
        self._samples.append(Sample(now, fraction, rows))
        while self._samples[0].at < now - _WINDOW and len(self._samples) > 2:
            self._samples.popleft()
        phases = Counter(shard.state.phase for shard in self if shard.state)
        active = Counter(_doing(shard) for shard in self if not shard.over)
        return RunProgress(
            shards=len(self.shards),
            done=phases[Phase.DONE],
            failed=phases[Phase.FAILED],
            active=active,
            throttled=Counter(throttled[shard.name] for shard in self if shard.active and shard.name in throttled),
            rows=rows,
            chunks=sum(shard.progress.chunks for shard in self),
            rows_per_s=rows_per_second(self._samples),
            fraction=fraction,
            eta=eta(self._samples),
        )


def _doing(shard: SliceShard) -> str:
    if shard.state is None:
        return "starting" if shard.admitted_at else "waiting"
    read = shard.state.phase is Phase.READING and shard.progress.complete(shard.tables)
    return "counted" if read else str(shard.state.phase)


def _state(shard: SliceShard, now: datetime) -> ShardState:
    return shard.state or ShardState(phase=Phase.STARTING, since=now, began=shard.admitted_at or now)
