"""What a runner does to connectors: waves under the lock, pauses by signal, byte rates."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from cdc_platform.clients.kafka.signals import PAUSE, Signal
from cdc_platform.clients.protocols import ControlLock, StateStore
from cdc_platform.connectors.identity import identity, signal_topic
from cdc_platform.errors import CdcError, LockHeld, NotFound, SourceRejected, SourceUnavailable, Unavailable
from cdc_platform.model.topology import Cluster, Topology
from cdc_platform.planning.inputs import ConfigRenderer
from cdc_platform.snapshots import shard_steps as steps
from cdc_platform.snapshots.connector_reset import renew, restore
from cdc_platform.snapshots.connector_waves import WaveItem, hopeless
from cdc_platform.snapshots.incremental_offsets import begin, end, wanted_chunk
from cdc_platform.snapshots.ports import SnapshotPorts
from cdc_platform.snapshots.progress_events import Listener
from cdc_platform.snapshots.request import Load
from cdc_platform.snapshots.run_records import Phase, Run, ShardState, Watermark
from cdc_platform.snapshots.slice_state import Board, SliceShard

_PARALLEL = 16
# Under a row rate chunks are so small that this many a second keep it: one shard alone may read twice
# as many (460 of 4 rows, MariaDB on the local stack) until a pause reaches it, some seconds later.
_CHUNKS_PER_S = 200
_CHUNK_ROWS = range(2, 2049)

Failed = list[tuple[SliceShard, steps.Fail]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Seconds between looks, between reports, before a pause is sent again; shards changed at once."""

    tick: float = 1.0
    connectors: float = 2.0
    report: float = 10.0
    steer: float = 30.0
    lock: float = 30.0
    wave: int = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """What a source said just before a snapshot begins; as in `WaveItem`."""

    chunk_rows: int | None
    settled: int | None


class Acts:
    """The acts of one runner. Each may be repeated."""

    def __init__(
        self,
        outside: SnapshotPorts,
        run: Run,
        board: Board,
        topology: Topology,
        config_of: ConfigRenderer,
        *,
        state: StateStore,
        marks: Mapping[tuple[str, str], Watermark],
        load: Load,
        pace: Pace,
        listener: Listener,
        patience: steps.Timeouts,
    ) -> None:
        self.outside = outside
        self.run = run
        self.board = board
        self.topology = topology
        self.config_of = config_of
        self.state = state
        self.marks = marks
        self.load = load
        self.pace = pace
        self.listener = listener
        self.patience = patience
        self._not_before = 0.0

    def renew(self, places: Sequence[SliceShard]) -> Failed:
        """Start shards anew; those that cannot be are returned."""
        wave = self._wave(places)
        if not wave:
            return []
        with self._locked() as lock:
            if lock is None:
                return []
            results = renew(self.outside, lock, self.state, self.run, self._items(wave, lock))
        self._say("Started anew", [shard for shard, result in results.items() if isinstance(result, ShardState)])
        failed: Failed = []
        for shard, result in results.items():
            place = self.board.places[shard]
            if isinstance(result, ShardState):
                place.state, place.offset, place.connector = result, None, None
            else:
                failed += self._trouble(place, result, "could not be started anew")
        return failed

    def begin(self, asked: Sequence[tuple[SliceShard, steps.Begin]]) -> Failed:
        """Ask for incremental snapshots; shards that can have none are returned."""
        orders = {place.shard.id: step for place, step in asked}
        wave = self._wave([place for place, _ in asked])
        if not wave:
            return []
        with ThreadPoolExecutor(max_workers=_PARALLEL, thread_name_prefix="sources") as pool:
            looked = dict(zip((place.shard.id for place in wave), pool.map(self._at_the_source, wave), strict=True))
        found = {shard: answer for shard, answer in looked.items() if not isinstance(answer, CdcError)}
        failed: Failed = []
        for shard, answer in looked.items():
            if isinstance(answer, CdcError):
                failed += self._trouble(self.board.places[shard], answer, "its snapshot could not begin")
        wave = [place for place in wave if place.shard.id in found]
        if not wave:
            return failed
        with self._locked() as lock:
            if lock is None:
                return []
            items = [
                replace(
                    item,
                    attempt=orders[item.shard.id].attempt,
                    tables=orders[item.shard.id].tables,
                    chunk_rows=found[item.shard.id].chunk_rows,
                    settled=found[item.shard.id].settled,
                    nudged=item.state is not None and item.state.attempt == orders[item.shard.id].attempt,
                )
                for item in self._items(wave, lock)
            ]
            results = begin(lock, self.state, self.run, items)
        sizes = {item.shard.id: wanted_chunk(item) for item in items}
        now = datetime.now(UTC)
        records: dict[str, Mapping[str, object] | None] = {}
        for shard, result in results.items():
            place = self.board.places[shard]
            if isinstance(result, CdcError):
                failed += self._trouble(place, result, "its snapshot could not begin")
                continue
            assert place.state is not None
            if place.state.attempt == orders[shard].attempt:
                place.nudges += 1
            place.state = replace(place.state, since=now, attempt=orders[shard].attempt, error=None)
            place.offset, place.connector = None, None
            # Chunks may be heard of before its configuration is seen again.
            place.chunk_rows = int(sizes[shard] or place.chunk_rows)
            records[self.run.shard_key(shard)] = place.state.document()
        self.state.write(records)
        begun = [key.rpartition("/")[2] for key in records]
        self._say("Reading began", [shard for shard in begun if not self.board.places[shard].nudges])
        self._say("Reading began again where it stood still", [s for s in begun if self.board.places[s].nudges])
        return failed

    def _at_the_source(self, place: SliceShard) -> _Source | CdcError:
        """Sees that all that is read is published, and what a snapshot needs to know of the source."""
        dataset, shard = self.board.dataset, place.shard
        tables = [dataset.table(name) for name in self.run.tables]
        try:
            self.outside.sources.publish(dataset, shard, identity(self.outside.platform.settings, dataset, shard))
            width = self.outside.sources.row_bytes(dataset, shard, tables)
            settled = self.outside.sources.settled_transaction(dataset, shard)
        except (SourceUnavailable, SourceRejected) as error:
            return error
        rows = chunk_rows(self.load, width=width, room=dataset.limits.queue_bytes)
        return _Source(chunk_rows=rows, settled=settled)

    def end(self, places: Sequence[SliceShard]) -> None:
        """End the snapshots of these shards for good; the stream goes on."""
        for place in self._take_out(places):
            place.ended = True

    def withdraw(self, asked: Sequence[tuple[SliceShard, steps.Withdraw]]) -> None:
        """End the snapshots of these shards for now, and note why."""
        why = {place.shard.id: step.reason for place, step in asked}
        records: dict[str, Mapping[str, object] | None] = {}
        for place in self._take_out([place for place, _ in asked]):
            assert place.state is not None
            reason = why[place.shard.id]
            self.listener.say(f"{place.shard.name} streams on without its snapshot for now: {reason}")
            place.state = replace(place.state, since=datetime.now(UTC), error=reason)
            place.offset, place.connector = None, None
            records[self.run.shard_key(place.shard.id)] = place.state.document()
        if records:
            self.state.write(records)

    def _take_out(self, places: Sequence[SliceShard]) -> list[SliceShard]:
        """Those of the places whose snapshot is no longer in the offset."""
        wave = self._wave(places)
        if not wave:
            return []
        with self._locked() as lock:
            if lock is None:
                return []
            results = end(lock, self.state, self.run, self._items(wave, lock))
        for shard, result in results.items():
            if isinstance(result, Unavailable):
                self.listener.say(f"{self.run.dataset}.{shard}: its snapshot could not be ended yet: {result}")
        return [self.board.places[shard] for shard, result in results.items() if not isinstance(result, Unavailable)]

    def restore(self, shards: Sequence[str]) -> frozenset[str]:
        """Give connectors that began with `recovery` their usual configuration; returns those that have it."""
        wave = self._wave([self.board.places[shard] for shard in shards])
        if not wave:
            return frozenset()
        with self._locked() as lock:
            if lock is None:
                return frozenset()
            failed = restore(self._items(wave, lock))
        for shard, error in failed.items():
            self.listener.say(f"{self.run.dataset}.{shard} keeps snapshot.mode=recovery for now: {error}")
        return frozenset(place.shard.id for place in wave) - failed.keys()

    def steer(self, braked: Mapping[str, str]) -> None:
        """Pause what is held back, let go on what is not: by what the connectors say, so a lost pause is sent again."""
        signals: list[Signal] = []
        now = time.monotonic()
        for place in self.board:
            if not place.reading or place.progress.last is None or place.progress.ended is not None:
                continue
            held = place.shard.name in braked
            if held == (place.progress.paused is not None):
                place.steered = None
                continue
            kind = PAUSE if held else "go on"
            if place.steered is not None and place.steered[1] == kind and now - place.steered[0] < self.pace.steer:
                continue
            place.steered = (now, kind)
            if held:
                signals.append(self._pause(place))
            else:
                self._go_on(place)
        self.outside.signals.send(signals)

    def set_rates(self, places: Sequence[SliceShard], *, limited: bool) -> None:
        """The run's byte rate, shared by the shards that may run at once; or the dataset's own again."""
        if self.load.max_bytes_per_s is None or not places:
            return
        usual = self.board.dataset.limits.bytes_per_second
        share = max(1, self.load.max_bytes_per_s // self.load.max_parallel_shards)
        rate = min(share, usual or share) if limited else usual
        self.outside.rates.set_rates({producer_client_id(place.shard.name): rate for place in places})

    def cluster(self, place: SliceShard) -> Cluster:
        """The Connect cluster that runs the shard."""
        assert place.cluster is not None
        return self.topology.clusters[place.cluster]

    def _pause(self, place: SliceShard) -> Signal:
        return Signal(
            topic=signal_topic(self.outside.platform.settings, place.shard),
            shard=place.shard.name,
            id=f"{self.run.id}/{place.shard.name}!pause-{time.time_ns()}",
            type=PAUSE,
            data={"type": "incremental"},
        )

    def _go_on(self, place: SliceShard) -> None:
        """A restarted task has forgotten the pause, and reads its next chunk before it streams."""
        try:
            self.outside.platform.connect(self.cluster(place)).restart_task(place.shard.name, 0)
        except (Unavailable, NotFound) as error:
            self.listener.say(f"{place.shard.name} could not go on yet: {error}")
            place.steered = None

    def _wave(self, places: Sequence[SliceShard]) -> list[SliceShard]:
        if time.monotonic() < self._not_before:
            return []
        return [place for place in places if place.cluster is not None][: self.pace.wave]

    def _items(self, wave: Sequence[SliceShard], lock: ControlLock) -> list[WaveItem]:
        items = []
        for place in wave:
            cluster = self.cluster(place)
            marks = [self.marks.get((table, place.shard.id)) for table in self.run.tables]
            items.append(
                WaveItem(
                    dataset=self.board.dataset,
                    shard=place.shard,
                    connect=self.outside.platform.connect(cluster).fenced(lock.check),
                    config=self.config_of(self.board.dataset, place.shard, cluster),
                    state=place.state,
                    position=self.run.request.positions.get(place.shard.id),
                    base=next((mark.position for mark in marks if mark is not None), None),
                    tables=place.tables,
                )
            )
        return items

    @contextmanager
    def _locked(self) -> Iterator[ControlLock | None]:
        """The lock; None when another holds it for long. Passes then get as much time as the wave took."""
        owner = f"{self.run.kind} {self.run.id}"
        try:
            held = self.outside.platform.topology.lock(owner=owner, timeout=self.pace.lock)
            with held as lock:
                began = time.monotonic()
                yield lock
                self._not_before = time.monotonic() + (time.monotonic() - began)
        except LockHeld as error:
            self.listener.say(f"Waiting for the lock: {error.message}")
            yield None

    def _trouble(self, place: SliceShard, error: CdcError, what: str) -> Failed:
        now = datetime.now(UTC)
        self.listener.say(f"{place.shard.name}: {what}: {error}")
        if place.state is None:
            place.state = ShardState(phase=Phase.RESETTING, since=now, began=now, reset=True, error=str(error))
            self.state.write({self.run.shard_key(place.shard.id): place.state.document()})
        waited = now - max(place.state.began, place.admitted_at or place.state.began)
        if hopeless(error) or waited > self.patience.silent:
            return [(place, steps.Fail(" ".join(part for part in (error.message, error.cure) if part)))]
        return []

    def _say(self, what: str, shards: Sequence[str]) -> None:
        if shards:
            names = [f"{self.run.dataset}.{shard}" for shard in sorted(shards)]
            few = ", ".join(names) if len(names) <= 3 else f"{len(names)} shards, {names[0]} to {names[-1]}"
            self.listener.say(f"{what}: {few}.")


def chunk_rows(load: Load, *, width: int | None = None, room: int) -> int | None:
    """Rows a chunk; None: as many as the connector's usual configuration has.

    A task holds a chunk in memory until its window closes: so it is to fit into `room` bytes, by `width`, the
    bytes of an average row. And one shard alone is to stay near the run's rows a second: the throttle lets
    more of them read where that is too slow.
    """
    bounds = []
    if load.max_rows_per_s is not None:
        bounds.append(load.max_rows_per_s // _CHUNKS_PER_S)
    if width is not None and width * _CHUNK_ROWS.stop > room:
        bounds.append(room // width)
    return min(max(min(bounds), _CHUNK_ROWS.start), _CHUNK_ROWS.stop - 1) if bounds else None


def producer_client_id(connector: str) -> str:
    """The `client.id` of the one task's producer, as Connect makes it up."""
    return f"connector-producer-{connector}-0"
