"""Works on one slice of a run until all its shards are over: look, decide, act, again and again.

Killed at any moment and started elsewhere it goes on: what was recorded, what the committed offsets
hold and what the connectors said is read back first. A second worker of the same slice fences the first.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cdc_platform.connectors.tables import uncaptured
from cdc_platform.connectors.topics import WEEK_MS, desired_topics
from cdc_platform.errors import LockLost, NotFound, Unavailable
from cdc_platform.model.naming import some_of
from cdc_platform.model.topology import BootstrapMode, Dataset, Shard, Topology
from cdc_platform.reconciler.desired_state import desired_state
from cdc_platform.reconciler.run_pass import plan_pass
from cdc_platform.snapshots import shard_steps as steps
from cdc_platform.snapshots.executor import Acts, Pace
from cdc_platform.snapshots.pacing.brakes import BrakePolicy, Brakes
from cdc_platform.snapshots.pacing.throttle import Throttle
from cdc_platform.snapshots.ports import NotificationReader, SnapshotPorts
from cdc_platform.snapshots.progress_events import Listener
from cdc_platform.snapshots.request import Load
from cdc_platform.snapshots.run_lifecycle import RequestedRun, slices, wanted_of
from cdc_platform.snapshots.run_records import ASIDE, Phase, Run, ShardState, shard_states, watermarks
from cdc_platform.snapshots.shard_steps import Timeouts, next_step, stream_offset
from cdc_platform.snapshots.slice_state import Board, SliceShard
from cdc_platform.snapshots.table_progress import CLOCK_SLACK
from cdc_platform.snapshots.watermarks import over_records, shard_done

log = logging.getLogger(__name__)

_PARALLEL = 16
Todo = Sequence[tuple[SliceShard, steps.Step]]


class Runner:
    """One slice of a run. `name` is the slice's, the same whoever works on it."""

    def __init__(
        self,
        outside: SnapshotPorts,
        run: Run,
        shards: Sequence[str],
        *,
        name: str,
        listener: Listener,
        load: Load | None = None,
        patience: Timeouts | None = None,
        brakes: BrakePolicy | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.outside = outside
        self.platform = outside.platform
        self.run = run
        self.ids = frozenset(shards)
        self.name = name
        self.listener = listener
        self.load = load or run.request.load
        self.patience = patience or Timeouts()
        self.pace = pace or Pace()
        self.brakes = Brakes(outside.sources, outside.platform.metrics, brakes or BrakePolicy(), say=listener.say)
        self.throttle = Throttle(self.load.max_rows_per_s)
        self.braked: Mapping[str, str] = {}
        self.wanted = RequestedRun.RUNNING
        self.restores: set[str] = set()
        self._states_known = True
        self._next: dict[str, float] = {}

    def work(self) -> None:
        """Until all shards are over.

        Raises:
            Fenced: another worker has taken this slice over.
            KafkaRejected: the brokers forbid quotas or topics.
        """
        self.state = self.outside.writer(self.name)
        # The first write fences an older worker of this slice.
        self.state.write({self.run.shard_key(f"{ASIDE}worker/{self.name}"): {"at": datetime.now(UTC).isoformat()}})
        if self.run.dataset not in self.platform.topology.load().datasets:
            self._give_up(self.ids, "its dataset is no longer in the topology")
            return
        self._prepare()
        notes = self._notes()
        try:
            while not all(place.over for place in self.board) or self.restores:
                began = time.monotonic()
                try:
                    if self._tables_changed():
                        notes.close()
                        self._prepare()
                        notes = self._notes()
                    self._tick(notes)
                except (Unavailable, LockLost) as error:
                    log.warning("%s: %s", self.name, error)
                    self.listener.say(f"Waiting: {error}")
                    self._states_known = False  # perhaps more is on record than we know
                time.sleep(max(0.0, self.pace.tick - (time.monotonic() - began)))
            self._report(force=True)
        finally:
            notes.close()
            self.acts.set_rates(list(self.board), limited=False)

    def _notes(self) -> NotificationReader:
        # What tells of the initial snapshot of a connector that is adopted may be as old as the topic keeps it.
        adopts = self.run.mode is BootstrapMode.SNAPSHOT
        return self.outside.notifications(
            self.run.created - (timedelta(milliseconds=WEEK_MS) if adopts else CLOCK_SLACK)
        )

    def _prepare(self) -> None:
        picture, planned = plan_pass(self.platform)
        self.topology: Topology = picture.topology
        self.homes = planned.homes
        dataset = self.topology.dataset(self.run.dataset)
        self._leave_out_tables(dataset)
        shards = [shard for shard in self.topology.shards.get(dataset.name, ()) if shard.id in self.ids]
        self.board = Board(self.run, dataset, shards)
        self._next.pop("connectors", None)  # seen before they are heard: a chunk counts by its connector's size
        records = self.platform.state.read()
        self.board.load_states(shard_states(records, self.run.id))
        self.marks = watermarks(records, dataset.name)
        self.acts = Acts(
            self.outside,
            self.run,
            self.board,
            self.topology,
            desired_state(self.topology, self.platform.settings).config_of,
            state=self.state,
            marks=self.marks,
            load=self.load,
            pace=self.pace,
            listener=self.listener,
            patience=self.patience,
        )
        self._leave_out(shards)
        only = replace(self.topology, datasets={dataset.name: dataset}, shards={dataset.name: tuple(shards)})
        self.platform.kafka.create_topics(desired_topics(only, self.platform.settings))

    def _leave_out_tables(self, dataset: Dataset) -> None:
        names = {table.name for table in dataset.tables}
        gone = [table for table in self.run.tables if table not in names]
        if gone:
            self.listener.say(f"No longer in the topology, and left out: {', '.join(gone)}.")
            self.run = replace(self.run, tables=tuple(table for table in self.run.tables if table in names))

    def _tables_changed(self) -> bool:
        """True when a connector lacks one of our tables because the topology has lost it meanwhile."""
        if not any(place.uncaptured for place in self.board) or not self._due("topology", self.pace.report):
            return False
        return not self._known_tables().issuperset(self.run.tables)

    def _known_tables(self) -> frozenset[str]:
        """The dataset's tables as the topology has them now."""
        dataset = self.platform.topology.load().datasets.get(self.run.dataset)
        return frozenset(table.name for table in dataset.tables) if dataset is not None else frozenset()

    def _leave_out(self, shards: Sequence[Shard]) -> None:
        gone = sorted(self.ids - {shard.id for shard in shards})
        if not gone:
            return
        self._give_up(gone, "it is no longer in the topology")

    def _give_up(self, shards: Iterable[str], why: str) -> None:
        names = sorted(shards)
        self.listener.say(f"Left out, {why}: {some_of(names, 10)}.")
        now = datetime.now(UTC)
        lost = ShardState(phase=Phase.FAILED, since=now, began=now, error=why)
        self.state.write({self.run.shard_key(shard): lost.document() for shard in names})

    def _tick(self, notes: NotificationReader) -> None:
        records = self.platform.state.read()
        self.wanted = wanted_of(records, self.run)
        if not self._states_known:
            self.board.load_states(shard_states(records, self.run.id))
            self._states_known = True
        self._look_at_connectors()
        self.board.hear(notes.read())
        self._admit()
        self._brake()
        if self.wanted is RequestedRun.STOPPED:
            self._stop()
        todo = self._decide()
        failed = self.acts.renew([place for place, step in todo if isinstance(step, steps.Reset)])
        failed += self.acts.begin([(place, step) for place, step in todo if isinstance(step, steps.Begin)])
        self.acts.withdraw([(place, step) for place, step in todo if isinstance(step, steps.Withdraw)])
        self.restores -= self.acts.restore(sorted(self.restores))
        self._move_on([*todo, *failed])
        self.acts.steer(self.braked)
        self._report()

    # Look

    def _look_at_connectors(self) -> None:
        if not self._due("connectors", self.pace.connectors):
            return
        seen: dict[str, tuple[str, Any]] = {}
        for name in sorted({*self.board.dataset.clusters, *self.homes.values()} & self.topology.clusters.keys()):
            for found in self.platform.connect(self.topology.clusters[name]).connectors().values():
                if found.owner == self.platform.settings.platform:
                    seen[found.name] = (name, found)
        for place in self.board:
            place.cluster, connector = seen.get(place.shard.name, (self.homes.get(place.shard.name), None))
            place.see(connector)
            seen_config = place.connector.config if place.connector is not None else None
            place.uncaptured = uncaptured(self.board.dataset, place.shard, self.run.tables, seen_config)

    def _decide(self) -> list[tuple[SliceShard, steps.Step]]:
        active = [place for place in self.board if place.admitted and not place.over]
        now = datetime.now(UTC)
        asking = []
        for place in active:
            place.offset = None  # one that was read before may be out of date
            if self._wants_offset(place, now):
                asking.append(place)
        with ThreadPoolExecutor(max_workers=_PARALLEL, thread_name_prefix="offsets") as pool:
            list(pool.map(self._read_offset, asking))
        return [
            (place, next_step(self.board.view(place, self.braked.get(place.shard.name)), now, self.patience))
            for place in active
        ]

    def _wants_offset(self, place: SliceShard, now: datetime) -> bool:
        if place.cluster is None:
            return False
        state = place.state
        if state is None or state.phase is Phase.STARTING or state.attempt == 0:
            return True
        if place.progress.complete(place.tables) or place.progress.ended is not None:
            return True
        return now - max(state.since, place.progress.last or state.since) > self.patience.lost

    def _read_offset(self, place: SliceShard) -> None:
        try:
            found = list(self.platform.connect(self.acts.cluster(place)).offsets(place.shard.name))
        except (Unavailable, NotFound):
            return  # unknown, and asked for again
        place.offset = found[0]["offset"] if found else {}

    # Waves and brakes

    def _admit(self) -> None:
        if self.wanted is not RequestedRun.RUNNING:
            return
        hosts: dict[str, int] = {}
        for place in self.board:
            if place.admitted and not place.over:
                hosts[str(place.shard.leader)] = hosts.get(str(place.shard.leader), 0) + 1
        fresh = []
        for place in self.board:
            host = str(place.shard.leader)
            if sum(hosts.values()) >= self.load.max_parallel_shards:
                break
            full = hosts.get(host, 0) >= self.load.max_parallel_per_host
            if place.admitted or place.over or full or place.shard.name in self.braked:
                continue
            place.admitted, place.admitted_at = True, datetime.now(UTC)
            hosts[host] = hosts.get(host, 0) + 1
            fresh.append(place)
        self.acts.set_rates(fresh, limited=True)

    def _brake(self) -> None:
        clusters = sorted({place.cluster for place in self.board if place.cluster and place.admitted})
        held = dict(
            self.brakes.look(
                self.board.dataset,
                [place.shard for place in self.board if not place.over],
                {place.shard.name: place.connector for place in self.board if place.connector is not None},
                [self.topology.clusters[name] for name in clusters],
            )
        )
        self.throttle.update(self.board.rows(), time.monotonic())
        free = [place for place in self.board if (place.reading or place.unbegun) and place.shard.name not in held]
        free.sort(key=SliceShard.turn)
        for place in free[self.throttle.allowed(len(free)) :]:
            held[place.shard.name] = "rows a second"
        if self.wanted is RequestedRun.PAUSED:
            held |= {place.shard.name: "paused by hand" for place in self.board if not place.over}
        self.braked = held

    def _stop(self) -> None:
        """A person has stopped the run: its snapshots end, nothing new begins."""
        self.acts.end([place for place in self.board if place.reading and not place.over and not place.ended])
        over = [
            place
            for place in self.board
            if not place.over
            and (not place.reading or place.ended)
            # A start anew that was begun is brought to its end, else the shard stays down.
            and not (place.state is not None and place.state.phase is Phase.RESETTING)
        ]
        self._move_on([(place, steps.Fail("stopped by hand")) for place in over])

    # Record

    def _move_on(self, todo: Todo) -> None:
        """Record what has changed; those that are over are told first."""
        now = datetime.now(UTC)
        moved = [(place, state) for place, step in todo if (state := self._moved(place, step, now)) is not None]
        if not moved:
            return
        records: dict[str, Mapping[str, Any] | None] = {}
        known = self._known_tables() if any(state.phase is not Phase.FAILED for _, state in moved) else frozenset()
        # A table that has just left has lost its watermark in a pass, and must not get one back.
        run = replace(self.run, tables=tuple(table for table in self.run.tables if table in known))
        for place, state in moved:
            records[self.run.shard_key(place.shard.id)] = state.document()
            records |= over_records(run, self.board.dataset, place.shard, state, self.marks)
        done = [(place, state) for place, state in moved if state.phase.over]
        if done:
            self.listener.over(tuple(shard_done(self.run, self.board.dataset, p.shard, s) for p, s in done))
        self.state.write(records)
        for place, state in moved:
            place.state = state
            if state.phase is Phase.DONE and self.run.mode is BootstrapMode.POSITION:
                self.restores.add(place.shard.id)
        self.acts.set_rates([place for place, _ in done], limited=False)

    def _moved(self, place: SliceShard, step: steps.Step, now: datetime) -> ShardState | None:
        if place.over:
            return None
        state = place.state or ShardState(phase=Phase.STARTING, since=now, began=place.admitted_at or now)
        match step:
            case steps.Adopt():
                adopted = state.to(Phase.READING, now, start=stream_offset(place.offset or {}), error=None)
                if self.board.reads(place):
                    return adopted
                return adopted.to(Phase.DONE, now, end=adopted.start, rows=self.board.rows_of(place))
            case steps.Finish():
                end = stream_offset(place.offset or {})
                return state.to(Phase.DONE, now, end=end, rows=self.board.rows_of(place))
            case steps.Fail(reason):
                return state.to(Phase.FAILED, now, error=reason, rows=self.board.rows_of(place))
            case _:
                return None

    def _report(self, *, force: bool = False) -> None:
        if force or self._due("report", self.pace.report):
            self.listener.progress(self.board.told(self.braked, time.monotonic()))

    def _due(self, what: str, every: float) -> bool:
        now = time.monotonic()
        if now < self._next.get(what, 0.0):
            return False
        self._next[what] = now + every
        return True


def work_slice(outside: SnapshotPorts, run: Run, number: int, listener: Listener, **more: Any) -> None:
    """Work on one of `opening.slices(run)`, with its share of the run's load, until its shards are over.

    Raises:
        Fenced: another worker has taken it over. Else as `Runner.work`.
    """
    parts = slices(run)
    load = run.request.load.share(len(parts))
    Runner(
        outside, run, parts[number], name=f"snapshots-{run.id}-{number}", listener=listener, load=load, **more
    ).work()
