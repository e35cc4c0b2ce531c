"""All shards of a slice at one moment: what is recorded, sent, said and seen of each."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cdc_platform.clients.kafka.notifications import INITIAL, Notification
from cdc_platform.connectors.tables import container
from cdc_platform.model.observed import ObservedConnector
from cdc_platform.model.topology import BootstrapMode, Dataset, Shard
from cdc_platform.snapshots.progress_events import RunProgress
from cdc_platform.snapshots.request import RunKind
from cdc_platform.snapshots.run_records import Phase, Run, ShardState
from cdc_platform.snapshots.shard_progress import Sample, ShardProgress, eta, fold, rows_per_second
from cdc_platform.snapshots.shard_steps import ShardView, signal_id, unread

# Pace is measured over this many seconds.
_WINDOW = 120.0
_CHUNK = 1024


@dataclass(slots=True, kw_only=True)
class SliceShard:
    """One shard of the slice."""

    shard: Shard
    tables: tuple[str, ...]
    state: ShardState | None = None
    connector: ObservedConnector | None = None
    cluster: str | None = None
    offset: Mapping[str, Any] | None = None
    progress: ShardProgress = field(default_factory=ShardProgress)
    # When it was told last to pause or to go on, and which.
    steered: tuple[float, str] | None = None
    admitted: bool = False
    admitted_at: datetime | None = None
    # How often its snapshot was begun again since it spoke last.
    nudges: int = 0
    # Its snapshot was ended by hand.
    ended: bool = False
    # Tables that its connector's configuration does not name.
    uncaptured: tuple[str, ...] = ()
    # Rows a chunk, as its connector has it or was just given it.
    chunk_rows: int = _CHUNK

    def see(self, connector: ObservedConnector | None) -> None:
        """Take note of the connector as it is now."""
        self.connector = connector
        if connector is not None:
            self.chunk_rows = int(connector.config.get("incremental.snapshot.chunk.size", _CHUNK))

    @property
    def over(self) -> bool:
        """True when the run does nothing more for it."""
        return self.state is not None and self.state.phase.over

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

    def turn(self) -> tuple[int, datetime]:
        """Who may read first when only some may: who reads, then who was paused longest, then who has not begun."""
        since = self.progress.paused or self.admitted_at or datetime.max.replace(tzinfo=UTC)
        return 2 if self.unbegun else 1 if self.progress.paused else 0, since

    def fraction(self) -> float:
        """How much of it is done, 0 to 1."""
        if self.over:
            return 1.0
        return self.progress.fraction(self.tables) if self.state is not None else 0.0


class Board:
    """The shards of one slice. Plain bookkeeping: asks nobody."""

    def __init__(self, run: Run, dataset: Dataset, shards: Sequence[Shard]) -> None:
        self.run = run
        self.dataset = dataset
        chosen = [table for table in dataset.tables if table.name in run.tables]
        self.places = {
            shard.id: SliceShard(
                shard=shard, tables=tuple(f"{container(dataset, shard, table)}.{table.name}" for table in chosen)
            )
            for shard in shards
        }
        self._table_of = {
            (shard.id, name): table.name
            for shard in shards
            for name, table in zip(self.places[shard.id].tables, chosen, strict=True)
        }
        self._samples: deque[Sample] = deque()

    def __iter__(self) -> Iterator[SliceShard]:
        return iter(self.places.values())

    def load_states(self, states: Mapping[str, ShardState]) -> None:
        """Take over what is on record."""
        for shard, state in states.items():
            if shard in self.places:
                self.places[shard].state = state
                self.places[shard].admitted = not state.phase.over

    def hear(self, said: Sequence[Notification]) -> None:
        """Fold notifications into the shards' progress."""
        # Those of an initial snapshot have keys of their own, and so come in any order.
        for one in sorted(said, key=lambda one: one.at):
            dataset, _, shard_id = one.shard.partition(".")
            place = self.places.get(shard_id) if dataset == self.dataset.name else None
            if place is not None and self._concerns(place, one):
                place.progress = fold(place.progress, one, chunk_rows=place.chunk_rows)
                place.nudges = 0

    def _concerns(self, place: SliceShard, said: Notification) -> bool:
        """True for a step of a snapshot that this run asked for or adopts, whoever worked on it then."""
        if said.snapshot != INITIAL:
            return said.id.startswith(signal_id(self.run.id, said.shard, 0)[:-1])
        if self.run.mode is not BootstrapMode.SNAPSHOT:
            return False
        # Before a start anew: the snapshot of a stream that is no more.
        return place.state is None or not place.state.reset or said.at >= place.state.began

    def view(self, place: SliceShard, braked: str | None) -> ShardView:
        """The shard as the steps see it."""
        return ShardView(
            run=self.run.id,
            shard=place.shard.name,
            engine=self.dataset.engine,
            kind=self.run.kind,
            mode=self.run.mode,
            state=place.state,
            tables=place.tables,
            connector=place.connector,
            offset=place.offset,
            progress=place.progress,
            again=self.run.request.again,
            braked=braked,
            nudges=place.nudges,
            uncaptured=place.uncaptured,
        )

    def rows_of(self, place: SliceShard) -> dict[str, int]:
        """Rows read by table name."""
        return {
            self._table_of[place.shard.id, name]: table.rows
            for name, table in place.progress.tables.items()
            if (place.shard.id, name) in self._table_of
        }

    def rows(self) -> int:
        """Rows that were read of all shards."""
        return sum(place.progress.rows or sum(place.state.rows.values() if place.state else ()) for place in self)

    def told(self, braked: Mapping[str, str], now: float) -> RunProgress:
        """How far the slice is. `now` is seconds of a steady clock."""
        rows = self.rows()
        fraction = sum(place.fraction() for place in self) / max(1, len(self.places))
        self._samples.append(Sample(now, fraction, rows))
        while self._samples[0].at < now - _WINDOW and len(self._samples) > 2:
            self._samples.popleft()
        active: dict[str, int] = {}
        held: dict[str, int] = {}
        for place in self:
            if place.over:
                continue
            word = str(place.state.phase) if place.state else "starting" if place.admitted else "waiting"
            active[word] = active.get(word, 0) + 1
            reason = braked.get(place.shard.name)
            if reason is not None and place.admitted:
                held[reason] = held.get(reason, 0) + 1
        return RunProgress(
            shards=len(self.places),
            done=sum(place.state is not None and place.state.phase is Phase.DONE for place in self),
            failed=sum(place.state is not None and place.state.phase is Phase.FAILED for place in self),
            active=active,
            braked=held,
            rows=rows,
            chunks=sum(place.progress.chunks for place in self),
            rows_per_s=rows_per_second(self._samples),
            fraction=fraction,
            eta=eta(self._samples),
        )

    def reads(self, place: SliceShard) -> bool:
        """True when a shard that streams still has rows to come in chunks.

        After a snapshot only those of tables that it is not known to have read: one that was added to the
        dataset since, or one that a connector read so long ago that nothing tells of it any more.
        """
        if self.run.kind is RunKind.BACKFILL or self.run.mode is BootstrapMode.INCREMENTAL:
            return True
        return self.run.mode is BootstrapMode.SNAPSHOT and bool(unread(place.progress, place.tables))
