"""What a slice does to connectors: waves under the lock, pauses by signal, byte rates."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from cdc_platform.canonical.chunk_keys import unfit_key
from cdc_platform.clients.kafka.signals import PAUSE, Signal
from cdc_platform.clients.protocols import ControlLock, StateStore
from cdc_platform.connectors.identity import identity, signal_topic
from cdc_platform.errors import CdcError, LockHeld, NotFound, SourceRejected, SourceUnavailable, Unavailable
from cdc_platform.model.topology import Cluster, Topology
from cdc_platform.planning.inputs import ConfigRenderer
from cdc_platform.snapshots.connector_reset import reset_connectors, restore_configs
from cdc_platform.snapshots.connector_waves import WaveItem, each, is_permanent
from cdc_platform.snapshots.incremental_offsets import begin_snapshots, chunk_rows_of, end_snapshots
from cdc_platform.snapshots.ports import SnapshotPorts
from cdc_platform.snapshots.progress_events import Listener
from cdc_platform.snapshots.request import Load
from cdc_platform.snapshots.run_records import Phase, Run, ShardState, Watermark, hold_key
from cdc_platform.snapshots.shard_steps import Begin, Timeouts, Withdraw
from cdc_platform.snapshots.slice_state import SliceShard, SliceState

_PARALLEL = 16
# Under a row rate chunks are so small that this many a second keep it: one shard alone may read twice
# as many (460 of 4 rows, MariaDB on the local stack) until a pause reaches it, some seconds later.
_CHUNKS_PER_S = 200
_CHUNK_ROWS = range(2, 2049)

# Shards that are given up, and why.
Failed = list[tuple[SliceShard, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervals:
    """Seconds between ticks, between reads of the connectors, between reports, before a pause is sent again.

    `lock` is how long a wave waits for the lock, `wave` how many shards it changes at once.
    """

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
    unread: Mapping[str, str]


@dataclass(kw_only=True)
class Executor:
    """Changes the connectors of one slice. Every change may be repeated."""

    ports: SnapshotPorts
    run: Run
    slice: SliceState
    topology: Topology
    config_of: ConfigRenderer
    store: StateStore
    watermarks: Mapping[tuple[str, str], Watermark]
    load: Load
    intervals: Intervals
    listener: Listener
    timeouts: Timeouts
    _not_before: float = 0.0
    _said: dict[str, str] = field(default_factory=dict)

    def reset(self, shards: Sequence[SliceShard]) -> Failed:
        """Start shards from scratch; those that cannot be are returned."""
        wave = self._wave(shards)
        if not wave:
            return []
        with self._locked() as lock:
            if lock is None:
                return []
            results = reset_connectors(self.ports, lock, self.store, self.run, self._items(wave, lock))
        self._say("Started from scratch", [id_ for id_, result in results.items() if isinstance(result, ShardState)])
        failed: Failed = []
        for id_, result in results.items():
            if isinstance(result, ShardState):
                self.slice.shards[id_].changed(result)
            else:
                failed += self._failure(self.slice.shards[id_], result, "could not be started from scratch")
        return failed

    def begin(self, asked: Sequence[tuple[SliceShard, Begin]]) -> Failed:
        """Ask for incremental snapshots; shards that can have none are returned."""
        steps = {shard.id: step for shard, step in asked}
        wave = self._wave([shard for shard, _ in asked])
        if not wave:
            return []
        with ThreadPoolExecutor(max_workers=_PARALLEL, thread_name_prefix="sources") as pool:
            answers = list(zip(wave, pool.map(self._prepare_source, wave), strict=True))
        failed: Failed = []
        sources: dict[str, _Source] = {}
        for shard, answer in answers:
            if isinstance(answer, CdcError):
                failed += self._failure(shard, answer, "its snapshot could not begin")
                continue
            assert shard.state is not None
            shard.state = replace(shard.state, unread={**answer.unread, **shard.state.unread})
            if shard.tables:
                sources[shard.id] = answer
            else:
                failed.append((shard, "; ".join(f"{table} was not read: {why}" for table, why in shard.unread.items())))
        wave = [shard for shard in wave if shard.id in sources]
        if not wave:
            return failed
        with self._locked() as lock:
            if lock is None:
                return failed
            items = [
                self._begin_item(item, steps[item.shard.id], sources[item.shard.id]) for item in self._items(wave, lock)
            ]
            free_text = self.ports.platform.settings.permit_sql_conditions
            results = begin_snapshots(lock, self.store, self.run, items, free_text=free_text)
        return failed + self._begun(items, steps, results)

    def _begin_item(self, item: WaveItem, step: Begin, source: _Source) -> WaveItem:
        return replace(
            item,
            attempt=step.attempt,
            tables=tuple(name for name in step.tables if name in item.tables),
            chunk_rows=source.chunk_rows,
            settled=source.settled,
            nudged=item.state is not None and item.state.attempt == step.attempt,
        )

    def _begun(
        self, items: Sequence[WaveItem], steps: Mapping[str, Begin], results: Mapping[str, object | CdcError]
    ) -> Failed:
        """Put on record which snapshots were begun; shards that can have none are returned."""
        failed: Failed = []
        begun: list[SliceShard] = []
        now = datetime.now(UTC)
        for item in items:
            shard, result = self.slice.shards[item.shard.id], results[item.shard.id]
            if isinstance(result, CdcError):
                failed += self._failure(shard, result, "its snapshot could not begin")
                continue
            assert shard.state is not None
            attempt = steps[shard.id].attempt
            nudged = shard.state.attempt == attempt
            shard.nudges += nudged
            tries = shard.state.tries + (not nudged) if item.tables == shard.state.asked else 1
            state = replace(shard.state, since=now, attempt=attempt, asked=item.tables, tries=tries, error=None)
            shard.changed(state, chunk_rows=int(chunk_rows_of(item) or 0) or None)
            begun.append(shard)
        self._write(begun)
        self._say("Reading began", [shard.id for shard in begun if not shard.nudges])
        self._say("Restarted stalled snapshots", [shard.id for shard in begun if shard.nudges])
        return failed

    def _prepare_source(self, shard: SliceShard) -> _Source | CdcError:
        """See that all that is read is published, and ask what a snapshot needs to know of the source."""
        dataset, spec, sources = self.slice.dataset, shard.spec, self.ports.sources
        tables = [table for table in spec.captured(dataset) if table.name in self.run.tables]
        try:
            keys = sources.key_columns(dataset, spec, tables)
            sources.publish(dataset, spec, identity(self.ports.platform.settings, dataset, spec))
            width = sources.row_bytes(dataset, spec, tables)
            settled = sources.settled_transaction(dataset, spec)
        except (SourceUnavailable, SourceRejected) as error:
            return error
        rows = chunk_rows(self.load, width=width, room=dataset.limits.queue_bytes)
        cure = f"`cdc-platform bootstrap {dataset.name} {spec.id} --mode snapshot --again` reads the shard another way"
        unfit = {table: unfit_key(dataset.engine, key) for table, key in keys.items()}
        unread = {
            table: f"it cannot be read in chunks, for {why} ({cure})" for table, why in unfit.items() if why is not None
        }
        return _Source(chunk_rows=rows, settled=settled, unread=unread)

    def end(self, shards: Sequence[SliceShard]) -> None:
        """End the snapshots of these shards for good; the stream goes on."""
        for shard in self._take_out(shards):
            shard.ended = True

    def withdraw(self, asked: Sequence[tuple[SliceShard, Withdraw]]) -> None:
        """End the snapshots of these shards for now, and note why."""
        reasons = {shard.id: step.reason for shard, step in asked}
        withdrawn = self._take_out([shard for shard, _ in asked])
        for shard in withdrawn:
            assert shard.state is not None
            reason = reasons[shard.id]
            self.listener.message(f"{shard.name} streams on without its snapshot for now: {reason}")
            shard.changed(replace(shard.state, since=datetime.now(UTC), error=reason))
        self._write(withdrawn)

    def _take_out(self, shards: Sequence[SliceShard]) -> list[SliceShard]:
        """Those of the shards whose snapshot is no longer in the offset."""
        wave = self._wave(shards)
        if not wave:
            return []
        with self._locked() as lock:
            if lock is None:
                return []
            results = end_snapshots(lock, self.store, self.run, self._items(wave, lock))
        for id_, result in results.items():
            if isinstance(result, Unavailable):
                self.listener.message(f"{self.run.dataset}.{id_}: its snapshot could not be ended yet: {result}")
        return [self.slice.shards[id_] for id_, result in results.items() if not isinstance(result, Unavailable)]

    def restore_configs(self, ids: Sequence[str]) -> frozenset[str]:
        """Give connectors that began with `recovery` their usual configuration; returns those that have it."""
        wave = self._wave([self.slice.shards[id_] for id_ in ids])
        if not wave:
            return frozenset()
        with self._locked() as lock:
            if lock is None:
                return frozenset()
            failed = restore_configs(self._items(wave, lock))
        for id_, error in failed.items():
            self.listener.message(f"{self.run.dataset}.{id_} keeps snapshot.mode=recovery for now: {error}")
        return frozenset(shard.id for shard in wave) - failed.keys()

    def resume_interrupted(self, ids: Sequence[str]) -> frozenset[str]:
        """Resume connectors that a process left stopped half way through a wave; returns those that are released.

        Their offsets are whole, before or after the change: what was to be done is decided again.
        """
        wave = self._wave([self.slice.shards[id_] for id_ in ids])
        if not wave:
            return frozenset()
        with self._locked() as lock:
            if lock is None:
                return frozenset()
            results = each(self._items(wave, lock), lambda item: item.connect.resume(item.shard.name))
            # One without a connector has nothing that is held.
            done = {id_ for id_, result in results.items() if result is None or isinstance(result, NotFound)}
            lock.check()
            self.store.write({hold_key(f"{self.run.dataset}.{id_}"): None for id_ in done})
        self._say("Resumed what was interrupted", sorted(done))
        return frozenset(done)

    def steer(self, throttled: Mapping[str, str]) -> None:
        """Pause what is throttled, resume what is not: by what connectors report, so a lost pause is sent again."""
        signals: list[Signal] = []
        now = time.monotonic()
        for shard in self.slice:
            if not shard.reading or shard.progress.last is None or shard.progress.ended is not None:
                continue
            pause = shard.name in throttled
            if pause == (shard.progress.paused is not None):
                shard.steered = None
                continue
            if shard.steered is not None:
                sent, at = shard.steered
                if sent == pause and now - at < self.intervals.steer:
                    continue
            shard.steered = (pause, now)
            if pause:
                signals.append(self._pause(shard))
            else:
                self._resume(shard)
        self.ports.signals.send(signals)

    def set_rates(self, shards: Sequence[SliceShard], *, limited: bool) -> None:
        """The run's byte rate, shared by the shards that may run at once; or the dataset's own again."""
        if self.load.max_bytes_per_s is None or not shards:
            return
        usual = self.slice.dataset.limits.bytes_per_second
        share = max(1, self.load.max_bytes_per_s // self.load.max_parallel_shards)
        rate = min(share, usual or share) if limited else usual
        self.ports.rates.set_rates({producer_client_id(shard.name): rate for shard in shards})

    def cluster(self, shard: SliceShard) -> Cluster:
        """The Connect cluster that runs the shard."""
        assert shard.observed.cluster is not None
        return self.topology.clusters[shard.observed.cluster]

    def _pause(self, shard: SliceShard) -> Signal:
        return Signal(
            topic=signal_topic(self.ports.platform.settings, shard.spec),
            shard=shard.name,
            id=f"{self.run.id}/{shard.name}!pause-{time.time_ns()}",
            type=PAUSE,
            data={"type": "incremental"},
        )

    def _resume(self, shard: SliceShard) -> None:
        """Restart the task to lift the pause: a task does not keep it, and goes on with its next chunk."""
        try:
            self.ports.platform.connect(self.cluster(shard)).restart_task(shard.name, 0)
        except (Unavailable, NotFound) as error:
            self.listener.message(f"{shard.name} could not be resumed yet: {error}")
            shard.steered = None

    def _wave(self, shards: Sequence[SliceShard]) -> list[SliceShard]:
        if time.monotonic() < self._not_before:
            return []
        return [shard for shard in shards if shard.observed.cluster is not None][: self.intervals.wave]

    def _items(self, wave: Sequence[SliceShard], lock: ControlLock) -> list[WaveItem]:
        items = []
        for shard in wave:
            cluster = self.cluster(shard)
            before = [self.watermarks.get((table, shard.id)) for table in self.run.tables]
            items.append(
                WaveItem(
                    dataset=self.slice.dataset,
                    shard=shard.spec,
                    connect=self.ports.platform.connect(cluster).fenced(lock.check),
                    config=self.config_of(self.slice.dataset, shard.spec, cluster),
                    state=shard.state,
                    position=self.run.request.positions.get(shard.id),
                    base=next((mark.position for mark in before if mark is not None), None),
                    tables=shard.tables,
                )
            )
        return items

    @contextmanager
    def _locked(self) -> Iterator[ControlLock | None]:
        """The lock; None when another owner keeps it for long. Passes then get as much time as the wave took."""
        owner = f"{self.run.kind} {self.run.id}"
        try:
            with self.ports.platform.topology.lock(owner=owner, timeout=self.intervals.lock) as lock:
                began = time.monotonic()
                yield lock
                self._not_before = time.monotonic() + (time.monotonic() - began)
        except LockHeld as error:
            self.listener.message(f"Waiting for the lock: {error.message}")
            yield None

    def _failure(self, shard: SliceShard, error: CdcError, what: str) -> Failed:
        """Report an error; the shard and the reason when it is given up for it."""
        now = datetime.now(UTC)
        text = f"{shard.name}: {what}: {error}"
        if self._said.get(shard.id) != text:  # it is tried again every few seconds
            self.listener.message(text)
            self._said[shard.id] = text
        if shard.state is None:
            shard.state = ShardState(phase=Phase.RESETTING, since=now, began=now, reset=True, error=str(error))
            self._write([shard])
        waited = now - max(shard.state.began, shard.admitted_at or shard.state.began)
        if is_permanent(error) or waited > self.timeouts.silent:
            return [(shard, " ".join(part for part in (error.message, error.cure) if part))]
        return []

    def _write(self, shards: Sequence[SliceShard]) -> None:
        states = {self.run.shard_key(shard.id): shard.state.document() for shard in shards if shard.state}
        if states:
            self.store.write(states)

    def _say(self, what: str, ids: Sequence[str]) -> None:
        if ids:
            names = [f"{self.run.dataset}.{id_}" for id_ in sorted(ids)]
            shown = ", ".join(names) if len(names) <= 3 else f"{len(names)} shards, {names[0]} to {names[-1]}"
            self.listener.message(f"{what}: {shown}.")


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
