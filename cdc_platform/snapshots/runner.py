"""Works on one slice of a run until all its shards are over: look, decide, act, again and again.

Killed at any moment and started elsewhere it goes on: what was recorded, signalled and
said by the connectors is read back first. A second worker of the same slice fences the first.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cdc_platform.clients.protocols import Connect, StateStore
from cdc_platform.clients.signals import Signal
from cdc_platform.connectors.identity import notification_topic, signal_topic
from cdc_platform.connectors.tables import literal
from cdc_platform.connectors.topics import desired_topics
from cdc_platform.errors import LockHeld, LockLost, NotFound, Unavailable
from cdc_platform.reconciler import plan_pass
from cdc_platform.reconciler.ideal import ideal_state
from cdc_platform.snapshots import steps
from cdc_platform.snapshots.board import Board, Place
from cdc_platform.snapshots.brakes import BrakePolicy, Brakes
from cdc_platform.snapshots.closing import over_records, shard_done
from cdc_platform.snapshots.opening import Wanted, wanted_of
from cdc_platform.snapshots.outside import NotificationReader, Outside, Signals
from cdc_platform.snapshots.records import ASIDE, Phase, Run, ShardState, shard_states, watermarks
from cdc_platform.snapshots.request import Load
from cdc_platform.snapshots.reset import Renewal, hopeless, renew, restore
from cdc_platform.snapshots.steps import Patience, next_step, signal_id, stream_offset
from cdc_platform.snapshots.throttle import Throttle
from cdc_platform.snapshots.told import Listener
from cdc_platform.topology import BootstrapMode, Cluster, Topology

log = logging.getLogger(__name__)

_PARALLEL = 16
# Clocks of this machine and of the brokers may differ by so much.
_SLACK = timedelta(minutes=2)
_OFFSET_AGE = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Seconds between looks, between reports, before a pause is sent again; shards started anew at once."""

    tick: float = 1.0
    connectors: float = 2.0
    report: float = 10.0
    steer: float = 30.0
    lock: float = 30.0
    wave: int = 20


class Runner:
    """One slice of a run. `name` is the slice's, the same whoever works on it."""

    def __init__(
        self,
        outside: Outside,
        run: Run,
        shards: Sequence[str],
        *,
        name: str,
        listener: Listener,
        load: Load | None = None,
        patience: Patience | None = None,
        brakes: BrakePolicy | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.outside = outside
        self.platform = outside.platform
        self.run = run
        self.ids = tuple(shards)
        self.name = name
        self.listener = listener
        self.load = load or run.request.load
        self.patience = patience or Patience()
        self.pace = pace or Pace()
        self.brakes = Brakes(outside.sources, outside.platform.metrics, brakes or BrakePolicy())
        self.throttle = Throttle(self.load.max_rows_per_s)
        self.braked: Mapping[str, str] = {}
        self.wanted = Wanted.RUNNING
        self.sent_known = False
        self.state_known = True
        self._next: dict[str, float] = {}
        self._restores: set[str] = set()

    def work(self) -> None:
        """Until all shards are over.

        Raises:
            Fenced: another worker has taken this slice over.
            BadInput, TopologyError: the dataset is gone.
            KafkaRejected: the brokers forbid quotas or topics.
        """
        self.state: StateStore = self.outside.writer(self.name)
        self.signals: Signals = self.outside.signals(self.name)
        self.signals.take_over()
        # The first write takes the slice's records over, too.
        self.state.write({self.run.shard_key(f"{ASIDE}worker/{self.name}"): {"at": datetime.now(UTC).isoformat()}})
        self._prepare()
        notes: NotificationReader = self.outside.notifications(self.run.created - _SLACK)
        try:
            while not all(place.over for place in self.board) or self._restores:
                began = time.monotonic()
                try:
                    self._tick(notes)
                except (Unavailable, LockLost) as error:
                    log.warning("%s: %s", self.name, error)
                    self.listener.say(f"Waiting: {error}")
                    # Perhaps more is on record than we know.
                    self.state_known = False
                time.sleep(max(0.0, self.pace.tick - (time.monotonic() - began)))
            self._report(force=True)
        finally:
            notes.close()
            self._set_rates(list(self.board), None)

    def _prepare(self) -> None:
        picture, planned = plan_pass(self.platform)
        topology = picture.topology
        dataset = topology.dataset(self.run.dataset)
        shards = [shard for shard in topology.shards.get(dataset.name, ()) if shard.id in set(self.ids)]
        self.topology: Topology = topology
        self.homes = planned.homes
        self.config_of = ideal_state(topology, self.platform.settings)[1].config_of
        self.board = Board(self.platform.settings, self.run, dataset, shards)
        records = self.platform.state.read()
        self.board.load_states(shard_states(records, self.run.id))
        self.marks = watermarks(records, dataset.name)
        gone = sorted(set(self.ids) - self.board.places.keys())
        if gone:
            self.listener.say(f"No longer in the topology, and left out: {', '.join(gone[:10])}.")
            now = datetime.now(UTC)
            lost = ShardState(phase=Phase.FAILED, since=now, began=now, error="it is no longer in the topology")
            self.state.write({self.run.shard_key(shard): lost.document() for shard in gone})
        self.platform.kafka.create_topics(desired_topics(self._only(topology), self.platform.settings))

    def _only(self, topology: Topology) -> Topology:
        dataset = self.board.dataset
        return replace(
            topology,
            datasets={dataset.name: dataset},
            shards={dataset.name: tuple(place.shard for place in self.board)},
        )

    # One look

    def _tick(self, notes: NotificationReader) -> None:
        if not self.sent_known:
            self.board.load_sent(self.signals.sent(self.board.topics(), self.run.created - _SLACK))
            self.sent_known = True
        records = self.platform.state.read()
        self.wanted = wanted_of(records, self.run)
        if not self.state_known:
            self.board.load_states(shard_states(records, self.run.id))
            self.state_known = True
        self._look_at_connectors()
        self.board.hear(notes.read())
        self._admit()
        self._brake()
        if self.wanted is Wanted.STOPPED:
            self._stop_all()
        todo = self._decide()
        self._renew([place for place, step in todo if isinstance(step, steps.Reset)])
        self._restore()
        self._send([(place, step) for place, step in todo if isinstance(step, steps.Send)])
        self._move_on(todo)
        self._steer()
        self._report()

    def _decide(self) -> list[tuple[Place, steps.Step]]:
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

    def _wants_offset(self, place: Place, now: datetime) -> bool:
        if place.cluster is None:
            return False
        if place.state is None or place.state.phase is Phase.STARTING or not place.sent:
            return True
        if place.progress.complete(place.tables):
            return True
        touched = max(max(place.sent.values()), place.progress.last or max(place.sent.values()))
        return now - touched > self.patience.lost

    def _read_offset(self, place: Place) -> None:
        try:
            found = list(self._client(place).offsets(place.shard.name))
        except (Unavailable, NotFound):
            place.offset = None
            return
        place.offset = found[0]["offset"] if found else {}

    def _look_at_connectors(self) -> None:
        if not self._due("connectors", self.pace.connectors):
            return
        names = self.board.dataset.clusters
        seen: dict[str, tuple[str, Any]] = {}
        for name in sorted({*names, *self.homes.values()} & self.topology.clusters.keys()):
            try:
                for found in self.platform.connect(self.topology.clusters[name]).connectors().values():
                    if found.owner == self.platform.settings.platform:
                        seen[found.name] = (name, found)
            except Unavailable as error:
                log.warning("%s: %s", self.name, error)
                return
        for place in self.board:
            place.cluster, place.connector = seen.get(place.shard.name, (self.homes.get(place.shard.name), None))

    def _client(self, place: Place) -> Connect:
        return self.platform.connect(self._cluster(place))

    def _cluster(self, place: Place) -> Cluster:
        assert place.cluster is not None
        return self.topology.clusters[place.cluster]

    # Waves and brakes

    def _admit(self) -> None:
        if self.wanted is not Wanted.RUNNING:
            return
        hosts: dict[str, int] = {}
        busy = 0
        for place in self.board:
            if place.admitted and not place.over:
                busy += 1
                hosts[str(place.shard.leader)] = hosts.get(str(place.shard.leader), 0) + 1
        fresh = []
        for place in self.board:
            host = str(place.shard.leader)
            if busy >= self.load.max_parallel_shards:
                break
            full = hosts.get(host, 0) >= self.load.max_parallel_per_host
            if place.admitted or place.over or full or place.shard.name in self.braked:
                continue
            place.admitted = True
            fresh.append(place)
            busy += 1
            hosts[host] = hosts.get(host, 0) + 1
        self._set_rates(fresh, self.load.max_bytes_per_s)

    def _set_rates(self, places: Sequence[Place], limit: int | None) -> None:
        """The run's byte rate, shared by the shards that may run at once; at the end the dataset's own again."""
        if self.load.max_bytes_per_s is None or not places:
            return
        usual = self.board.dataset.limits.bytes_per_second
        rate = usual if limit is None else max(1, limit // self.load.max_parallel_shards)
        if limit is not None and usual is not None:
            rate = min(rate or usual, usual)
        self.outside.rates.set_rates({producer_client_id(place.shard.name): rate for place in places})

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
        reading = [place for place in self.board if place.reading]
        self.throttle.update(self.board.rows(), time.monotonic())
        free = [place for place in reading if place.shard.name not in held]
        # Those that wait longest go first, so that each has its turn.
        free.sort(key=lambda place: place.progress.paused or datetime.now(UTC))
        for place in free[self.throttle.allowed(len(free)) :]:
            held[place.shard.name] = "rows a second"
        if self.wanted is Wanted.PAUSED:
            held |= {place.shard.name: "paused by hand" for place in self.board if not place.over}
        self.braked = held

    def _steer(self) -> None:
        """Pause what is held back, resume what is not: by what the connectors say, so a lost pause is sent again."""
        signals = []
        now = time.monotonic()
        for place in self.board:
            if not place.reading or place.progress.started is None or place.progress.ended is not None:
                continue
            held = place.shard.name in self.braked
            paused = place.progress.paused is not None
            if held == paused:
                place.steered = None
                continue
            kind = "pause-snapshot" if held else "resume-snapshot"
            if place.steered is not None and place.steered[1] == kind and now - place.steered[0] < self.pace.steer:
                continue
            place.steered = (now, kind)
            signals.append(self._signal(place, f"#{kind}-{time.time_ns()}", kind, {"type": "incremental"}))
        self._produce(signals)

    def _stop_all(self) -> None:
        """A person has stopped the run: snapshots of ours end, nothing new begins."""
        signals = []
        ended = []
        for place in self.board:
            if place.over or (place.state is not None and place.state.phase is Phase.RESETTING):
                continue
            if place.reading and place.progress.ended is None:
                tables = [regex_of(name) for name in place.tables]
                stop = {"type": "incremental", "data-collections": tables}
                signals.append(self._signal(place, "#stop", "stop-snapshot", stop))
                # A paused snapshot does not look at its stop before it goes on.
                signals.append(self._signal(place, "#stop-resume", "resume-snapshot", {"type": "incremental"}))
            ended.append((place, steps.Fail("stopped by hand")))
        self._produce(signals)
        self._move_on(ended)

    # Acts

    def _renew(self, places: Sequence[Place]) -> None:
        if not places or not self._due("wave", self.pace.tick):
            return
        wave = [self._renewal(place) for place in places[: self.pace.wave] if place.cluster is not None]
        began = time.monotonic()
        try:
            with self.platform.topology.lock(owner=f"{self.run.kind} {self.run.id}", timeout=self.pace.lock) as lock:
                results = renew(self.outside, lock, self.state, self.run, wave)
        except LockHeld as error:
            self.listener.say(f"Waiting for the lock: {error.message}")
            return
        # Passes get as much time as the waves took.
        self._next["wave"] = time.monotonic() + (time.monotonic() - began)
        done = [shard for shard, result in results.items() if isinstance(result, ShardState)]
        if done:
            self.listener.say(f"Started anew: {', '.join(f'{self.run.dataset}.{shard}' for shard in sorted(done))}.")
        failed = []
        for shard, result in results.items():
            place = self.board.places[shard]
            if isinstance(result, ShardState):
                place.state, place.offset, place.connector = result, None, None
                continue
            began_at = place.state.began if place.state else datetime.now(UTC)
            waited = datetime.now(UTC) - began_at
            self.listener.say(f"{place.shard.name} could not be started anew: {result}")
            if hopeless(result) or waited > self.patience.silent:
                failed.append((place, steps.Fail(str(result))))
            elif place.state is None:
                now = datetime.now(UTC)
                place.state = ShardState(phase=Phase.RESETTING, since=now, began=now, reset=True, error=str(result))
                self.state.write({self.run.shard_key(shard): place.state.document()})
        self._move_on(failed)

    def _renewal(self, place: Place) -> Renewal:
        cluster = self._cluster(place)
        marks = [self.marks.get((table, place.shard.id)) for table in self.run.tables]
        bases = [mark.position for mark in marks if mark is not None]
        return Renewal(
            dataset=self.board.dataset,
            shard=place.shard,
            connect=self.platform.connect(cluster),
            config=self.config_of(self.board.dataset, place.shard, cluster),
            state=place.state,
            position=self.run.request.positions.get(place.shard.id),
            base=bases[0] if bases else None,
        )

    def _restore(self) -> None:
        """Connectors that began with `recovery` get their usual configuration."""
        if not self._restores or not self._due("restore", self.pace.tick * 5):
            return
        wave = [self._renewal(self.board.places[shard]) for shard in sorted(self._restores)[: self.pace.wave]]
        try:
            with self.platform.topology.lock(owner=f"{self.run.kind} {self.run.id}", timeout=self.pace.lock) as lock:
                failed = restore(lock, wave)
        except LockHeld:
            return
        for shard, error in failed.items():
            self.listener.say(f"{self.run.dataset}.{shard} keeps snapshot.mode=recovery for now: {error}")
        self._restores -= {item.shard.id for item in wave} - failed.keys()

    def _send(self, asked: Sequence[tuple[Place, steps.Send]]) -> None:
        signals = []
        condition = self.run.request.filter(self.board.dataset.engine)
        for place, step in asked:
            names = [regex_of(name) for name in step.tables]
            data: dict[str, Any] = {"type": "incremental", "data-collections": names}
            if condition is not None:
                data["additional-conditions"] = [{"data-collection": name, "filter": condition} for name in names]
            signals.append(self._signal(place, f"#{step.attempt}", "execute-snapshot", data))
        if self._produce(signals):
            now = datetime.now(UTC)
            for place, step in asked:
                self.board.note_sent(place.shard.id, step.attempt, now)
                if step.attempt > 1:
                    self.listener.say(f"{place.shard.name}: asked again (attempt {step.attempt}).")

    def _signal(self, place: Place, suffix: str, kind: str, data: Mapping[str, Any]) -> Signal:
        return Signal(
            topic=signal_topic(self.platform.settings, place.shard),
            shard=place.shard.name,
            id=f"{self.run.id}/{place.shard.name}{suffix}",
            type=kind,
            data=data,
        )

    def _produce(self, signals: Sequence[Signal]) -> bool:
        if not signals:
            return False
        try:
            self.signals.send(signals)
        except Unavailable:
            # Perhaps they arrived: look before anything is sent again.
            self.sent_known = False
            self.signals.take_over()
            raise
        return True

    def _move_on(self, todo: Sequence[tuple[Place, steps.Step]]) -> None:
        """Record what has changed; those that are over are told first."""
        now = datetime.now(UTC)
        records: dict[str, Mapping[str, Any] | None] = {}
        moved: list[tuple[Place, ShardState]] = []
        for place, step in todo:
            state = place.state or ShardState(phase=Phase.STARTING, since=now, began=now)
            match step:
                case steps.Adopt():
                    adopted = state.to(Phase.READING, now, start=stream_offset(place.offset or {}), error=None)
                    if not self.board.incremental:
                        adopted = adopted.to(Phase.DONE, now, end=adopted.start, rows=self.board.rows_of(place))
                    moved.append((place, adopted))
                case steps.Finish():
                    end = stream_offset(place.offset or {})
                    moved.append((place, state.to(Phase.DONE, now, end=end, rows=self.board.rows_of(place))))
                case steps.Fail(reason):
                    rows = self.board.rows_of(place)
                    moved.append((place, state.to(Phase.FAILED, now, error=reason, rows=rows)))
                case steps.Wait() | steps.Reset() | steps.Send():
                    pass
        if not moved:
            return
        for place, state in moved:
            records[self.run.shard_key(place.shard.id)] = state.document()
            records |= over_records(self.run, self.board.dataset, place.shard, state, self.marks)
        done = [(place, state) for place, state in moved if state.phase.over]
        if done:
            self.listener.over(tuple(shard_done(self.run, self.board.dataset, p.shard, s) for p, s in done))
        self.state.write(records)
        for place, state in moved:
            place.state = state
            if state.phase is Phase.DONE and self.run.mode is BootstrapMode.POSITION:
                self._restores.add(place.shard.id)
        self._set_rates([place for place, _ in done], None)

    def _report(self, *, force: bool = False) -> None:
        if self._due("report", self.pace.report) or force:
            self.listener.progress(self.board.told(self.braked, time.monotonic()))

    def _due(self, what: str, every: float) -> bool:
        now = time.monotonic()
        if now < self._next.get(what, 0.0):
            return False
        self._next[what] = now + every
        return True


def regex_of(table: str) -> str:
    """The table's name as Debezium's signals take it: an expression that matches just it."""
    return literal(table)


def producer_client_id(connector: str) -> str:
    """The `client.id` of the one task's producer, as Connect makes it up."""
    return f"connector-producer-{connector}-0"


__all__ = ["Pace", "Runner", "notification_topic", "signal_id"]
