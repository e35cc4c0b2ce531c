"""From a leader change in ZooKeeper to the new leader's first event, by agents and by a control plane alone.

Real MariaDB, Connect and Debezium. The old leader is a proxy in front of the new one: it refuses (its connections are
cut), or is half-open (they stay, and nothing passes). By turns with a control plane
that hears of the move at once, deletes the connector and creates it again, and with one that restarts the tasks by REST
at the next turn of a loop of 60 s. The time of a shard is from its znode's write to the first event that was written
after the old leader was gone. Writers write all the while and keep their own record: what is lost or twice is counted
by a plain consumer. A worker's kill -9 is measured with the recommended settings and, on a stack of its own, with
Kafka's (the part `stock`: six minutes of it).
"""

from __future__ import annotations

import contextlib
import re
import secrets
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from benchmarks.form import Form, Goal
from benchmarks.movers import Agents, Mover, Recreate, Restart
from benchmarks.stacks import stack_of
from cdc_platform.clients.platform import Platform
from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import Address, BootstrapMode, Dataset, Engine, Shard, Table, TopicSpec
from tests.faults.far_proxy import FarProxy
from tests.faults.harness import TABLE, open_site_platform
from tests.faults.sources import Sources
from tests.faults.topic import Tap, read
from tests.faults.writers import Writers
from tests.waiting import assert_eventually

SIZES = {
    "rounds": (3, 1),  # of both sides by turns
    "changes": (5, 2),  # of one shard's leader in each round; of many it is one
    "shards": (100, 10),  # that move at once
    "tasks": (60, 9),  # that a killed worker's group has
    "engine": ("mariadb", "mariadb"),  # or mysql
    "parts": ("one,half-open,loop,many,worker,stock", "one,many,worker"),
}

# Against delete and recreate, told at once. Of one shard nothing is to be gained but the rebalance.
ONE_GOAL = Goal(at_most=1.0)
MANY_GOAL = Goal(
    at_most=0.25,
    limit=0.75,
    cause="Connect restarts the tasks of a worker one after another, about half a second each, whoever asks; what the "
    "agents save is the rebalance",
)
# Against Kafka's default settings.
WORKER_GOAL = Goal(
    at_most=0.03,
    limit=0.2,
    cause="the rest is the session timeout of a group's member, which shorter would take a pausing worker for a dead "
    "one, and the start of the lost tasks, one after another",
)
# How long the old leader is gone before ZooKeeper says so, seconds.
GONE = 1.0
# Between two writes of a shard, seconds. Each connector reads its server's whole binlog and tells of all its
# transactions: at 3 writes a second each, 100 shards of one server saturate four cores before anything moves.
ONE_PAUSE, MANY_PAUSE = 0.02, 2.0
# Kafka's defaults, where the recommended worker properties differ.
STOCK = {
    "scheduled.rebalance.max.delay.ms": "300000",
    "rebalance.timeout.ms": "60000",
    "heartbeat.interval.ms": "3000",
    "session.timeout.ms": "10000",
}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Times are seconds, one a shard and change, sorted. `cpu`: of workers and agents."""

    times: tuple[float, ...]
    events: int
    lost: int
    duplicates: int
    cpu: float

    @property
    def median(self) -> float:
        return statistics.median(self.times)

    @property
    def p99(self) -> float:
        return self.times[min(len(self.times) - 1, int(len(self.times) * 0.99))]


@dataclass(kw_only=True)
class Range:
    """Shards with databases of their own, their writers, and a consumer."""

    mover: Mover
    writers: Writers
    tap: Tap

    def flowing(self, since: float) -> dict[str, float]:
        """Shard id to the first arrival of what was written after `since`, once there is one of each (monotonic)."""

        def found() -> dict[str, float] | None:
            firsts: dict[str, float] = {}
            for change, at in self.writers.committed.copy().items():
                arrived = self.tap.arrived.get(change)
                if at >= since and arrived is not None:
                    firsts[change.shard] = min(arrived, firsts.get(change.shard, arrived))
            return firsts if len(firsts) == len(self.mover.shards) else None

        answer: dict[str, float] = assert_eventually(found, "events of all shards", 600)
        return answer

    def back(self, leader: Address) -> None:
        """To the first leader again, for the next round."""
        back = time.monotonic()
        self.mover.move(leader, at_once=True)
        self.flowing(back)
        assert_eventually(lambda: self.mover.are_at(leader), "all tasks run with it")
        self.flowing(time.monotonic())

    def counts(self) -> tuple[int, int, int]:
        """Events, lost, duplicates, after the writers have ended."""
        self.writers.stop()
        committed = list(self.writers.committed.copy())
        with contextlib.suppress(AssertionError):
            assert_eventually(lambda: all(change in self.tap.arrived for change in committed), "all arrived", 60)
        self.tap.stop()
        found = read(self.mover.settings.kafka, self.mover.dataset.topic(self.mover.dataset.tables[0]))
        lost = sum(not found[change] for change in committed)
        return found.total(), lost, found.total() - len(found)


@contextlib.contextmanager
def capturing(
    kind: type[Mover], stack: Stack, platform: Platform, engine: Engine, count: int, leader: Address
) -> Iterator[Range]:
    """That many shards, captured, with their writers at work."""
    name = f"fo{secrets.token_hex(3)}"
    sources = Sources(directory=stack.directory, engine=engine)
    dataset = Dataset(
        name=name,
        engine=engine,
        tables=(Table(name=TABLE),),
        clusters=(stack.cluster().name,),
        credentials=stack.credentials(engine, name),
        bootstrap=BootstrapMode.LATEST,
        topics=TopicSpec(partitions=4, replication=1),
    )
    shards = tuple(Shard(dataset=name, id=f"{n:05d}", leader=leader, database=f"{name}_{n:05d}") for n in range(count))
    for shard in shards:
        sources.create(shard.database, 1)
    mover = kind(stack=stack, settings=platform.settings, platform=platform, dataset=dataset, shards=shards)
    made = Range(
        mover=mover,
        writers=Writers(sources, shards, pause=ONE_PAUSE if count == 1 else MANY_PAUSE),
        tap=Tap(platform.settings.kafka, dataset.topic(dataset.tables[0])),
    )
    try:
        mover.begin()
        # A connector's first start may come before the position it begins at: what was written since counts.
        assert_eventually(lambda: all(mover.offset(shard) for shard in shards), "first offsets are committed")
        made.tap.start()
        made.writers.start()
        made.flowing(time.monotonic())
        yield made
    finally:
        made.writers.stop()
        made.tap.stop()
        mover.close()
        with sources.admin() as run:
            for shard in shards:
                run(f"DROP DATABASE IF EXISTS {shard.database}")


def leader_changes(
    kind: type[Mover],
    stack: Stack,
    platform: Platform,
    engine: Engine,
    *,
    count: int,
    rounds: int,
    half_open: bool = False,
) -> Measured:
    """Rounds of a leader that goes away, and a change of all shards to another."""
    at = stack.primary(engine)
    times: list[float] = []
    cpu = Cpu(stack)
    with (
        FarProxy((at.host, at.port)) as old,
        capturing(kind, stack, platform, engine, count, Address.parse(old.address)) as shards,
    ):
        for number in range(rounds):
            gone = time.monotonic()
            if half_open:
                old.stall()
            else:
                old.cut()
            time.sleep(GONE)
            moved = shards.mover.move(at)
            firsts = shards.flowing(gone + GONE / 2)
            times += [firsts[shard] - moved[shard] for shard in firsts]
            old.reset()
            if number < rounds - 1:
                shards.back(Address.parse(old.address))
        spent = cpu.spent()
        events, lost, duplicates = shards.counts()
    return Measured(
        times=tuple(sorted(max(0.0, t) for t in times)),
        events=events,
        lost=lost,
        duplicates=duplicates,
        cpu=spent,
    )


def worker_kill(stack: Stack, platform: Platform, engine: Engine, *, count: int) -> Measured:
    """kill -9 of one of the workers, until events written later flow of all shards."""
    cpu = Cpu(stack)
    with capturing(Agents, stack, platform, engine, count, stack.primary(engine)) as shards:
        victim = _follower(stack)
        at = time.monotonic()
        stack.kill(victim)
        firsts = shards.flowing(at)
        times = tuple(sorted(max(0.0, first - at) for first in firsts.values()))
        spent = cpu.spent()
        stack.start(victim, timeout=180)
        events, lost, duplicates = shards.counts()
    return Measured(
        times=times,
        events=events,
        lost=lost,
        duplicates=duplicates,
        cpu=spent,
    )


def _follower(stack: Stack) -> str:
    """A worker that does not lead the group.

    Only the leader knows which tasks a lost worker had, and so delays them (KIP-415): where it is the
    one that is lost, the next leader gives them away at once, whatever the settings.
    """
    for name in stack.workers:
        joined = re.findall(r"leaderUrl='https?://([^/']+)", stack.log(name).read_text(errors="replace"))
        if joined and joined[-1] != str(stack.address(name, "connect")):
            return name
    raise LookupError("no worker's log tells of another that leads the group")


class Cpu:
    """CPU seconds of the stack's workers and agents from here on; of those that still run."""

    def __init__(self, stack: Stack) -> None:
        names = [*stack.workers, *(f"agent-{worker}" for worker in stack.workers)]
        running = stack.running()
        self._before = {one: _seconds(one) for one in (psutil.Process(running[n].pid) for n in names if n in running)}

    def spent(self) -> float:
        found = 0.0
        for process, before in self._before.items():
            with contextlib.suppress(psutil.NoSuchProcess):
                found += _seconds(process) - before
        return found


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def run(form: Form) -> None:
    """The parts that were asked for."""
    parts, every, engine = form.text("parts").split(","), list[Measured](), Engine(form.text("engine"))
    if set(parts) != {"stock"}:
        with _platform_on(form) as (stack, platform):
            every += _leader_changes(form, parts, stack, platform)
            if "worker" in parts:
                every.append(worker_kill(stack, platform, engine, count=form.count("tasks")))
                form.figure("worker kill -9: all shards flow after", "s", [every[-1].times[-1]])
    if "stock" in parts:
        recommended = every[-1] if "worker" in parts else None
        # Never on a running stack: its workers have the recommended settings.
        with _platform_on(replace(form, stack=None), worker_properties=STOCK) as (stack, platform):
            every.append(worker_kill(stack, platform, engine, count=form.count("tasks")))
        if recommended:
            form.compare(
                "worker kill -9: all shards flow after", "s", [recommended.times[-1]], [every[-1].times[-1]],
                other_side="Kafka's default settings", goal=WORKER_GOAL,
            )  # fmt: skip
    lost = sum(one.lost for one in every)
    form.condition("nothing is lost", lost == 0, f"{lost} of {sum(one.events for one in every):,} events")
    form.figure("duplicates of all parts", "events", [sum(one.duplicates for one in every)])


def _leader_changes(form: Form, parts: list[str], stack: Stack, platform: Platform) -> list[Measured]:
    """By turns with the other side."""
    every, engine = list[Measured](), Engine(form.text("engine"))
    recreated = "deleted and created again, told at once"

    def by_turns(
        other: type[Mover], count: int, changes: int, *, half_open: bool = False
    ) -> tuple[list[Measured], list[Measured]]:
        ours, theirs = list[Measured](), list[Measured]()
        for _ in range(form.count("rounds")):
            for found, kind in ((ours, Agents), (theirs, other)):
                turn = leader_changes(kind, stack, platform, engine, count=count, rounds=changes, half_open=half_open)
                found.append(turn)
        every.extend([*ours, *theirs])
        return ours, theirs

    def medians(found: list[Measured]) -> list[float]:
        return [one.median for one in found]

    def cpus(found: list[Measured]) -> list[float]:
        return [one.cpu for one in found]

    changes = form.count("changes")
    if "one" in parts:
        ours, theirs = by_turns(Recreate, 1, changes)
        form.compare("one shard", "s, median", medians(ours), medians(theirs), other_side=recreated, goal=ONE_GOAL)
        form.compare("one shard, workers and agents", "CPU s", cpus(ours), cpus(theirs), other_side=recreated)
    if "half-open" in parts:
        ours, theirs = by_turns(Recreate, 1, changes, half_open=True)
        form.compare("one shard, half-open", "s, median", medians(ours), medians(theirs), other_side=recreated)
    if "loop" in parts:
        ours, theirs = by_turns(Restart, 1, changes)
        form.compare("one shard", "s, median", medians(ours), medians(theirs), other_side="restarted in a 60 s loop")
    if "many" in parts:
        count = form.count("shards")
        ours, theirs = by_turns(Recreate, count, 1)
        slowest = [one.p99 for one in ours], [one.p99 for one in theirs]
        form.compare(f"{count} shards at once", "s, p99", *slowest, other_side=recreated, goal=MANY_GOAL)
        form.compare(f"{count} shards at once", "s, median", medians(ours), medians(theirs), other_side=recreated)
    return every


def _servers(form: Form) -> dict[str, bool]:
    return {engine.value: engine.value == form.text("engine") for engine in Engine}


@contextlib.contextmanager
def _platform_on(form: Form, **spec: Any) -> Iterator[tuple[Stack, Platform]]:
    """The running stack that was asked for, or one of its own, and a platform on it."""
    with contextlib.ExitStack() as ending:
        stack = ending.enter_context(stack_of(form, **_servers(form), workers=3, worker_heap_mb=768, **spec))
        cache = Path(ending.enter_context(tempfile.TemporaryDirectory()))
        yield stack, ending.enter_context(open_site_platform(stack, cache))
