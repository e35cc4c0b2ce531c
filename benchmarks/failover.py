"""From a leader change in ZooKeeper to the first event of the new leader, and from a worker's kill -9 to all events.

    python -m benchmarks failover [--stack DIR] [--rounds 20] [--shards 100] [--parts ...] [--json FILE]

Real MariaDB, Connect and Debezium. The old leader is a proxy in front of the new one: it refuses (its connections are
cut), or is half-open (they stay, and nothing passes). Side by side with a control plane
that hears of the move at once, deletes the connector and creates it anew, and with one that restarts the tasks by REST
at the next turn of a loop of 60 s. The time of a shard is from its znode's write to the first event that was written
after the old leader was gone. Writers write all the while and keep their own record: what is lost or twice is counted
by a plain consumer. A worker's kill is measured with the recommended settings and, on a stack of its own, with Kafka's
(the part `stock`: six minutes of it).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import secrets
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.movers import Agents, Mover, Recreate, Restart
from cdc_platform.clients.platform import Platform
from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import Address, BootstrapMode, Dataset, Engine, Shard, Table, TopicSpec
from tests.conftest import own_stack
from tests.faults.far_proxy import FarProxy
from tests.faults.harness import TABLE, open_site_platform
from tests.faults.sources import Sources
from tests.faults.topic import Tap, read
from tests.faults.writers import Writers
from tests.waiting import assert_eventually

MEDIAN_GOAL, P99_GOAL, WORKER_GOAL = 3.0, 20.0, 30.0
RECOMMENDED = "recommended settings"
PARTS = ("one", "many", "worker", "stock")
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
    """One line. Times are seconds, one a shard and round, sorted; `all_after`: the longest of each round's last."""

    who: str
    what: str
    times: tuple[float, ...]
    events: int
    lost: int
    duplicates: int
    load: float
    cpu: float

    @property
    def median(self) -> float:
        return statistics.median(self.times)

    @property
    def p99(self) -> float:
        return self.times[min(len(self.times) - 1, int(len(self.times) * 0.99))]

    def sentence(self) -> str:
        return (
            f"{self.who:24} {self.what:34} n {len(self.times):4}  median {self.median:6.2f} s  p99 {self.p99:6.2f} s  "
            f"longest {self.times[-1]:6.2f} s  events {self.events:6}  lost {self.lost}  duplicates {self.duplicates}  "
            f"load {self.load:.1f}  CPU {self.cpu:.1f} s"
        )


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
def capturing(kind: type[Mover], stack: Stack, platform: Platform, count: int, leader: Address) -> Iterator[Range]:
    """That many shards, captured, with their writers at work."""
    name = f"fo{secrets.token_hex(3)}"
    sources = Sources(directory=stack.directory, engine=Engine.MARIADB)
    dataset = Dataset(
        name=name,
        engine=Engine.MARIADB,
        tables=(Table(name=TABLE),),
        clusters=(stack.cluster().name,),
        credentials=stack.credentials(Engine.MARIADB, name),
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
    kind: type[Mover], stack: Stack, platform: Platform, *, count: int, rounds: int, half_open: bool = False
) -> Measured:
    """Rounds of a leader that goes away, and a change of all shards to another."""
    at = stack.mariadb_primary
    times: list[float] = []
    cpu = Cpu(stack)
    with (
        FarProxy((at.host, at.port)) as old,
        capturing(kind, stack, platform, count, Address.parse(old.address)) as shards,
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
        who=kind.__name__.lower(),
        what=f"{count} shard{'s' if count > 1 else ''}, {'half-open' if half_open else 'refuses'}",
        times=tuple(sorted(max(0.0, t) for t in times)),
        events=events,
        lost=lost,
        duplicates=duplicates,
        load=os.getloadavg()[0],
        cpu=spent,
    )


def worker_kill(stack: Stack, platform: Platform, *, count: int, who: str) -> Measured:
    """kill -9 of one of the workers, until events written later flow of all shards."""
    cpu = Cpu(stack)
    with capturing(Agents, stack, platform, count, stack.mariadb_primary) as shards:
        victim = _follower(stack)
        at = time.monotonic()
        stack.kill(victim)
        firsts = shards.flowing(at)
        times = tuple(sorted(max(0.0, first - at) for first in firsts.values()))
        spent = cpu.spent()
        stack.start(victim, timeout=180)
        events, lost, duplicates = shards.counts()
    return Measured(
        who=who,
        what=f"worker kill -9, {count} shards",
        times=times,
        events=events,
        lost=lost,
        duplicates=duplicates,
        load=os.getloadavg()[0],
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


def main(arguments: list[str]) -> int:
    """Prints a line a measurement, and `goal met` or `goal missed: ...` as the last."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks failover", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stack", type=Path, help="use the running stack of this directory")
    parser.add_argument("--rounds", type=int, default=20, help="of one shard; all others take an eighth")
    parser.add_argument("--shards", type=int, default=100, help="that move at once; a worker's kill has 60 of them")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(arguments)
    found: list[Measured] = []
    for one in _measurements(asked):
        found.append(one)
        print(one.sentence(), flush=True)
    if asked.json:
        asked.json.write_text(json.dumps([asdict(one) for one in found], indent=1))
    return _verdict(found)


def _measurements(asked: argparse.Namespace) -> Iterator[Measured]:
    few, tasks = max(1, asked.rounds // 8), min(60, asked.shards)
    if set(asked.parts) != {"stock"}:
        with _platform_on(asked.stack) as (stack, platform):
            if "one" in asked.parts:
                yield leader_changes(Agents, stack, platform, count=1, rounds=asked.rounds)
                yield leader_changes(Recreate, stack, platform, count=1, rounds=few * 2)
                yield leader_changes(Restart, stack, platform, count=1, rounds=few * 2)
                yield leader_changes(Agents, stack, platform, count=1, rounds=few * 2, half_open=True)
            if "many" in asked.parts:
                yield leader_changes(Agents, stack, platform, count=asked.shards, rounds=few)
                yield leader_changes(Agents, stack, platform, count=asked.shards, rounds=1, half_open=True)
                yield leader_changes(Recreate, stack, platform, count=asked.shards, rounds=1)
                yield leader_changes(Restart, stack, platform, count=asked.shards, rounds=1)
            if "worker" in asked.parts:
                yield worker_kill(stack, platform, count=tasks, who=RECOMMENDED)
    if "stock" in asked.parts:
        with _platform_on(None, worker_properties=STOCK) as (stack, platform):
            yield worker_kill(stack, platform, count=tasks, who="stock settings")


@contextlib.contextmanager
def _platform_on(directory: Path | None, **spec: Any) -> Iterator[tuple[Stack, Platform]]:
    """The running stack of that directory, or one of its own, and a platform on it."""
    with contextlib.ExitStack() as ending:
        stack = (
            Stack.load(directory)
            if directory is not None
            else ending.enter_context(own_stack(workers=3, postgres=False, worker_heap_mb=768, **spec))
        )
        cache = Path(ending.enter_context(tempfile.TemporaryDirectory()))
        yield stack, ending.enter_context(open_site_platform(stack, cache))


def _verdict(found: Sequence[Measured]) -> int:
    """Goals of what was measured; the rest is not judged."""
    goals = [(f"lost {sum(one.lost for one in found)}", not any(one.lost for one in found))]
    for one in found:
        if one.who == "agents" and "refuses" in one.what and one.what.startswith("1 "):
            goals.append((f"{one.what}, median {one.median:.2f} s of {MEDIAN_GOAL:.0f}", one.median < MEDIAN_GOAL))
        elif one.who == "agents" and "refuses" in one.what:
            goals.append((f"{one.what}, p99 {one.p99:.2f} s of {P99_GOAL:.0f}", one.p99 < P99_GOAL))
        elif one.who == RECOMMENDED:
            goals.append((f"{one.what}, {one.times[-1]:.1f} s of {WORKER_GOAL:.0f}", one.times[-1] < WORKER_GOAL))
    figures = "; ".join(text for text, _ in goals) + f"; duplicates {sum(one.duplicates for one in found)}"
    missed = [text for text, met in goals if not met]
    print(f"goal met: {figures}" if not missed else f"goal missed: {'; '.join(missed)} (all: {figures})")
    return 1 if missed else 0
