"""Works on one slice of a snapshot run until all its shards are over: observe, decide, act, again and again.

Killed at any moment and started elsewhere it goes on: what was recorded, what the committed offsets
hold and what the connectors reported is read back first. A second worker of the same slice fences the first.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, assert_never

from cdc_platform.connectors.topics import WEEK_MS, desired_topics
from cdc_platform.errors import LockLost, NotFound, Unavailable
from cdc_platform.model.naming import some_of
from cdc_platform.model.topology import BootstrapMode, Dataset, Shard
from cdc_platform.reconciler.desired_state import desired_state
from cdc_platform.snapshots import shard_steps as steps
from cdc_platform.snapshots.executor import Executor, Intervals
from cdc_platform.snapshots.observed_connectors import connector_homes, observe_connectors, own_connectors
from cdc_platform.snapshots.pacing.brakes import BrakePolicy, Brakes
from cdc_platform.snapshots.pacing.throttle import Throttle
from cdc_platform.snapshots.ports import NotificationReader, SnapshotPorts
from cdc_platform.snapshots.progress_events import Listener
from cdc_platform.snapshots.request import Load
from cdc_platform.snapshots.row_counts import Patience, RowCounter
from cdc_platform.snapshots.run_lifecycle import RequestedState, requested_state, slices
from cdc_platform.snapshots.run_records import (
    SIGN_SECONDS,
    WORKER,
    Phase,
    Records,
    Run,
    ShardState,
    shard_states,
    watermarks,
)
from cdc_platform.snapshots.slice_state import SliceShard, SliceState
from cdc_platform.snapshots.table_progress import CLOCK_SLACK
from cdc_platform.snapshots.unfit_tables import without_unfit_tables
from cdc_platform.snapshots.watermarks import shard_done, watermark_records

log = logging.getLogger(__name__)

_PARALLEL = 16


@dataclass(kw_only=True)
class SliceRunner:
    """One slice of a snapshot run. `name` is the slice's, the same in every process that works on it."""

    ports: SnapshotPorts
    run: Run
    ids: frozenset[str]
    name: str
    listener: Listener
    load: Load
    timeouts: steps.Timeouts = field(default_factory=steps.Timeouts)
    brakes: BrakePolicy = field(default_factory=BrakePolicy)
    intervals: Intervals = field(default_factory=Intervals)
    patience: Patience = field(default_factory=Patience)

    def __post_init__(self) -> None:
        self.platform = self.ports.platform
        self._brakes = Brakes(self.ports.sources, self.platform.metrics, self.brakes, report=self.listener.message)
        self._throttle = Throttle(self.load.max_rows_per_s)
        self.throttled: Mapping[str, str] = {}
        self.waits: Mapping[str, str] = {}
        self.requested = RequestedState.RUNNING
        self.to_restore: set[str] = set()
        self.interrupted: set[str] = set()
        self._states_known = True
        self._next: dict[str, float] = {}

    def work(self) -> None:
        """Until all shards are over.

        Raises:
            Fenced: another worker has taken this slice over.
            KafkaRejected: the brokers forbid quotas or topics.
        """
        self.store = self.ports.writer(self.name)
        # The first write fences an older worker of this slice.
        self._give_sign()
        if self.run.dataset not in self.platform.topology.load().datasets:
            self._give_up(self.ids, "its dataset is no longer in the topology")
            return
        self._prepare()
        notes = self._notifications()
        try:
            while not all(shard.over for shard in self.slice) or self.to_restore or self.interrupted:
                began = time.monotonic()
                try:
                    if self._tables_changed():
                        notes.close()
                        self.counter.close()
                        self._prepare()
                        notes = self._notifications()
                    self._tick(notes)
                except (Unavailable, LockLost) as error:
                    log.warning("%s: %s", self.name, error)
                    self.listener.message(f"Waiting: {error}")
                    self._states_known = False  # perhaps more is on record than we know
                time.sleep(max(0.0, self.intervals.tick - (time.monotonic() - began)))
            self._report(force=True)
        finally:
            notes.close()
            self.counter.close()
            self.executor.set_rates(list(self.slice), limited=False)

    def _give_sign(self) -> None:
        self.store.write({self.run.shard_key(f"{WORKER}{self.name}"): {"at": datetime.now(UTC).isoformat()}})

    def _notifications(self) -> NotificationReader:
        # Those of the initial snapshot of a connector that is adopted may be as old as the topic keeps them.
        adopts = self.run.mode is BootstrapMode.SNAPSHOT
        return self.ports.notifications(self.run.created - (timedelta(milliseconds=WEEK_MS) if adopts else CLOCK_SLACK))

    def _prepare(self) -> None:
        """Read the topology and the records: what this slice is about."""
        settings = self.platform.settings
        records = self.platform.state.read()
        self.topology = without_unfit_tables(self.platform, records, self.run.dataset, self.ids)
        desired = desired_state(self.topology, settings)
        dataset = self.topology.dataset(self.run.dataset)
        self._leave_out_tables(dataset)
        shards = [shard for shard in self.topology.shards.get(dataset.name, ()) if shard.id in self.ids]
        self.slice = SliceState(self.run, dataset, shards)
        self._homes: Mapping[str, str] = {}
        # Connectors are observed before notifications are read: a chunk counts by its connector's size.
        for what in ("connectors", "homes"):
            self._next.pop(what, None)
        self._load(records)
        self.watermarks = watermarks(records, dataset.name)
        self.executor = Executor(
            ports=self.ports,
            run=self.run,
            slice=self.slice,
            topology=self.topology,
            config_of=desired.config_of,
            store=self.store,
            watermarks=self.watermarks,
            load=self.load,
            intervals=self.intervals,
            listener=self.listener,
            timeouts=self.timeouts,
        )
        self.counter = RowCounter(
            run=self.run,
            dataset=dataset,
            sources=self.ports.sources,
            live_keys=self.ports.live_keys,
            seconds=self.load.count_seconds,
            free_text=settings.permit_sql_conditions,
            patience=self.patience,
        )
        self._leave_out(shards)
        only = replace(self.topology, datasets={dataset.name: dataset}, shards={dataset.name: tuple(shards)})
        for error in self.platform.kafka.create_topics(desired_topics(only, settings)).values():
            raise error

    def _leave_out_tables(self, dataset: Dataset) -> None:
        names = {table.name for table in dataset.tables}
        gone = [table for table in self.run.tables if table not in names]
        if gone:
            self.listener.message(f"No longer in the topology, and left out: {', '.join(gone)}.")
            self.run = replace(self.run, tables=tuple(table for table in self.run.tables if table in names))

    def _tables_changed(self) -> bool:
        """True when a connector lacks one of our tables because the topology has lost it meanwhile."""
        lacking = any(shard.observed.uncaptured for shard in self.slice)
        if not lacking or not self._due("topology", self.intervals.report):
            return False
        return not self._known_tables().issuperset(self.run.tables)

    def _known_tables(self) -> frozenset[str]:
        """The dataset's tables as the topology has them now."""
        dataset = self.platform.topology.load().datasets.get(self.run.dataset)
        return frozenset(table.name for table in dataset.tables) if dataset is not None else frozenset()

    def _leave_out(self, shards: Sequence[Shard]) -> None:
        gone = self.ids - {shard.id for shard in shards}
        if gone:
            self._give_up(gone, "it is no longer in the topology")

    def _give_up(self, shards: Iterable[str], why: str) -> None:
        names = sorted(shards)
        self.listener.message(f"Left out, {why}: {some_of(names, 10)}.")
        now = datetime.now(UTC)
        lost = ShardState(phase=Phase.FAILED, since=now, began=now, error=why)
        self.store.write({self.run.shard_key(shard): lost.document() for shard in names})

    def _load(self, records: Records) -> None:
        """What is on record of the shards, and which of them were left half way through a wave."""
        self.slice.load_states(shard_states(records, self.run.id))
        self.interrupted = self.slice.interrupted(records)

    def _tick(self, notes: NotificationReader) -> None:
        if self._due("sign", SIGN_SECONDS):
            self._give_sign()
        records = self.platform.state.read()
        self.requested = requested_state(records, self.run)
        if not self._states_known:
            self._load(records)
            self._states_known = True
        if self._due("connectors", self.intervals.connectors):
            self._observe_connectors()
        self.interrupted -= self.executor.resume_interrupted(sorted(self.interrupted))
        self.slice.add_notifications(notes.read())
        self._admit()
        self._choose_readers()
        if self.requested is RequestedState.STOPPED:
            self._stop()
        todo = self._next_steps()
        self.waits = {
            shard.name: step.reason for shard, step in todo if isinstance(step, steps.Wait) and step.reason != "reading"
        }
        self._carry_out(todo)
        self.to_restore -= self.executor.restore_configs(sorted(self.to_restore))
        self.executor.steer(self.throttled)
        self._report()

    # Observe

    def _observe_connectors(self) -> None:
        names = frozenset(shard.name for shard in self.slice)
        found = own_connectors(self.platform, self.topology, {*self.slice.dataset.clusters, *self._homes.values()})
        if names - found.keys() - self._homes.keys() and self._due("homes", self.intervals.report):
            # Not in the clusters of its dataset: it is in another one yet, or has no connector.
            observed = observe_connectors(self.platform, self.topology)
            homes = connector_homes(observed, self.platform.settings.platform)
            self._homes = {name: homes[name] for name in names & homes.keys()}
            found = own_connectors(self.platform, self.topology, self._homes.values())
        self.slice.observe(found, self._homes)

    def _next_steps(self) -> list[tuple[SliceShard, steps.Step]]:
        active = [shard for shard in self.slice if shard.active]
        now = datetime.now(UTC)
        with ThreadPoolExecutor(max_workers=_PARALLEL, thread_name_prefix="offsets") as pool:
            offsets = pool.map(lambda shard: self._read_offset(shard, now), active)
            for shard, offset in zip(active, offsets, strict=True):
                shard.observed = replace(shard.observed, offset=offset)
        return [
            (shard, steps.next_step(self.slice.view(shard, self.throttled.get(shard.name)), now, self.timeouts))
            for shard in active
        ]

    def _read_offset(self, shard: SliceShard, now: datetime) -> Mapping[str, Any] | None:
        """The committed offset, empty where there is none; None when it is not needed or not known."""
        if not shard.needs_offset(now, self.timeouts):
            return None
        try:
            found = list(self.platform.connect(self.executor.cluster(shard)).offsets(shard.name))
        except (Unavailable, NotFound):
            return None  # asked for again
        return found[0]["offset"] if found else {}

    # Admit and throttle

    def _admit(self) -> None:
        if self.requested is not RequestedState.RUNNING:
            return
        admitted = self.slice.admissible(self.load, self.throttled)
        for shard in admitted:
            shard.admitted_at = datetime.now(UTC)
        self.executor.set_rates(admitted, limited=True)

    def _choose_readers(self) -> None:
        """Decide which shards do not read now, and why."""
        clusters = sorted(
            {shard.observed.cluster for shard in self.slice if shard.observed.cluster and shard.admitted_at}
        )
        left = [shard for shard in self.slice if not shard.over]
        connectors = {shard.name: shard.observed.connector for shard in self.slice if shard.observed.connector}
        throttled = dict(
            self._brakes.update(
                self.slice.dataset,
                [shard.spec for shard in left],
                connectors,
                [self.topology.clusters[name] for name in clusters],
            )
        )
        self._throttle.update(self.slice.rows(), time.monotonic())
        free = [shard for shard in self.slice if (shard.reading or shard.unbegun) and shard.name not in throttled]
        free.sort(key=SliceShard.turn)
        for shard in free[self._throttle.allowed(len(free)) :]:
            throttled[shard.name] = "rows a second"
        if self.requested is RequestedState.PAUSED:
            throttled |= {shard.name: "paused by hand" for shard in left}
        self.throttled = throttled

    def _stop(self) -> None:
        """The run was stopped: its snapshots end, nothing new begins."""
        self.executor.end([shard for shard in self.slice if shard.reading and not shard.over and not shard.ended])
        self._carry_out([(shard, steps.Fail("stopped by hand")) for shard in self.slice if shard.stoppable])

    # Act and record

    def _carry_out(self, todo: Iterable[tuple[SliceShard, steps.Step]]) -> None:
        now = datetime.now(UTC)
        resets: list[SliceShard] = []
        begins: list[tuple[SliceShard, steps.Begin]] = []
        withdrawals: list[tuple[SliceShard, steps.Withdraw]] = []
        changed: list[tuple[SliceShard, ShardState]] = []
        failed: list[tuple[SliceShard, str]] = []
        for shard, step in todo:
            match step:
                case steps.Wait():
                    pass
                case steps.Reset():
                    resets.append(shard)
                case steps.Begin():
                    begins.append((shard, step))
                case steps.Withdraw():
                    withdrawals.append((shard, step))
                case steps.Adopt():
                    changed.append((shard, self.slice.adopted(shard, now)))
                case steps.GiveUp(tables):
                    changed.append((shard, self._without(shard, tables)))
                case steps.Finish():
                    counts = self.counter.counts(shard)
                    if counts is not None:
                        changed.append((shard, self.slice.finished(shard, counts, now)))
                case steps.Fail(reason):
                    failed.append((shard, reason))
                case _:
                    assert_never(step)
        failed += [*self.executor.reset(resets), *self.executor.begin(begins)]
        self.executor.withdraw(withdrawals)
        now = datetime.now(UTC)
        self._record([*changed, *((shard, self.slice.failed(shard, reason, now)) for shard, reason in failed)])

    def _without(self, shard: SliceShard, tables: Mapping[str, str]) -> ShardState:
        assert shard.state is not None
        unread = {shard.names[name]: why for name, why in tables.items()}
        for table, why in unread.items():
            self.listener.message(f"{shard.name}: {table} is given up, the others go on: {why}.")
        return replace(shard.state, unread={**shard.state.unread, **unread})

    def _record(self, changed: Sequence[tuple[SliceShard, ShardState]]) -> None:
        """Record new states; shards that are over are reported first."""
        if not changed:
            return
        records: dict[str, Mapping[str, Any] | None] = {}
        marked = any(state.phase is not Phase.FAILED or state.counts for _, state in changed)
        known = self._known_tables() if marked else frozenset()
        # A table that has just left has lost its watermark in a pass, and must not get one back.
        run = replace(self.run, tables=tuple(table for table in self.run.tables if table in known))
        for shard, state in changed:
            records[self.run.shard_key(shard.id)] = state.document()
            records |= watermark_records(run, self.slice.dataset, shard.spec, state, self.watermarks)
        done = [(shard, state) for shard, state in changed if state.phase.over]
        if done:
            self.listener.over(
                tuple(shard_done(self.run, self.slice.dataset, shard.spec, state) for shard, state in done)
            )
        self.store.write(records)
        for shard, state in changed:
            shard.state = state
            if state.phase is Phase.DONE and self.run.mode is BootstrapMode.POSITION:
                self.to_restore.add(shard.id)
        self.executor.set_rates([shard for shard, _ in done], limited=False)

    def _report(self, *, force: bool = False) -> None:
        if force or self._due("report", self.intervals.report):
            progress = self.slice.progress(self.throttled, time.monotonic())
            self.listener.progress(replace(progress, waits=self.waits))

    def _due(self, what: str, every: float) -> bool:
        now = time.monotonic()
        if now < self._next.get(what, 0.0):
            return False
        self._next[what] = now + every
        return True


def work_slice(ports: SnapshotPorts, run: Run, number: int, listener: Listener, **more: Any) -> None:
    """Work on one of `run_lifecycle.slices(run)`, with its share of the run's load, until its shards are over.

    Raises:
        Fenced: another worker has taken it over. Else as `SliceRunner.work`.
    """
    parts = slices(run)
    SliceRunner(
        ports=ports,
        run=run,
        ids=frozenset(parts[number]),
        name=f"snapshots-{run.id}-{number}",
        listener=listener,
        load=run.request.load.share(len(parts)),
        **more,
    ).work()
