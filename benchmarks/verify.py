"""What a proof costs: CPU, memory and time against reading the same data raw, and against reladiff.

    python -m benchmarks verify [--rows 1000000] [--events 1250000] [--engines mariadb,postgres] [--stack DIR]
                                [--rounds 3] [--json]

The rows are in real databases, spread over 4 shards, and their events in a real topic of 8 partitions;
the events are written by this benchmark in Debezium's format instead of by Debezium, and the connectors'
committed offsets are answered by it too. Every verification must end in `proven` for all shards.

Each measurement runs in a process of its own, pinned to one core. CPU seconds count, so that other work
on the machine matters less: those of the process with all its threads, and, where a database is
read, those of its server too, for a hash computed there is not free. The parts that are compared run in turn
`--rounds` times; medians are printed and judged. Memory is what Linux says was resident at the peak
(VmHWM), less what was resident when the call began.

Needs the extras `local` and `bench`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import secrets
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from benchmarks import proof
from benchmarks.measuring import Cost, measured
from cdc_platform.clients.kafka.topic_records import TopicRecords
from cdc_platform.clients.platform import Platform
from cdc_platform.errors import require_extra
from cdc_platform.local.lifecycle import down, up
from cdc_platform.local.stack import Stack, StackSpec
from cdc_platform.model.topology import Engine
from cdc_platform.reconciler.process_memory import VERIFYING, rarer_collections
from cdc_platform.testing.connect import FakeConnect
from cdc_platform.testing.state_topic import FakeStateStore
from cdc_platform.verification.ports import VerificationPolicy
from cdc_platform.verification.proof.completeness import ShardRange, plan_verification, verify_shards
from cdc_platform.verification.proof.topic_fold import TopicFold
from cdc_platform.verification.proof.verdicts import Verdict
from cdc_platform.wiring import verification_of

CHUNK = 10_000
FIXED = 96_000_000
SEED = 7

# name: (unit, is it a least value, the goal)
GOALS: dict[str, tuple[str, bool, float]] = {
    "end to end / raw": ("x the CPU", False, 1.7),
    "topic to fold": ("events a CPU second", True, 200_000),
    "memory": ("bytes a live key", False, 150),
    "memory, capped / cap": ("x", False, 1.0),
    "second run after 1 %": ("% of the first, topic side", False, 5.0),
    "two processes / one": ("x the CPU", False, 1.1),
}


class Bench:
    """One engine's data on the stack, for this process; `place` are the arguments that make it again in another."""

    def __init__(self, directory: str, engine: Engine, name: str) -> None:
        self.place = (directory, engine, name)
        self.stack, self.engine, self.name = Stack.load(Path(directory)), engine, name
        self.topology = proof.topology(self.stack, engine, name)
        self.dataset = self.topology.dataset(name)
        self.topic = self.dataset.topic(self.dataset.table("pins"))
        self.servers = {"bootstrap.servers": str(self.stack.kafka)}

    def databases(self) -> list[str]:
        """One for each shard."""
        return [shard.database for shard in self.topology.shards[self.name] if shard.database]

    def server_pids(self) -> list[int]:
        """The database that the rows are in."""
        names = self.stack.mariadb if self.engine is Engine.MARIADB else self.stack.postgres
        return [self.stack.pid(names[0])]

    def platform(self, cache: str) -> Platform:
        """All that a verification needs; only the connectors are not real."""
        return Platform(
            settings=replace(self.stack.settings(), platform=self.name, cache_dir=cache),
            topology=None,  # type: ignore[arg-type]  # a verification is given its topology
            kafka=None,  # type: ignore[arg-type]
            state=FakeStateStore(),
            connect=lambda cluster: CaughtUp(cluster.name),
        )


class CaughtUp(FakeConnect):
    """Connectors that have committed whatever the source has written."""

    def offsets(self, name: str) -> Sequence[dict[str, Any]]:
        """Committed offsets at the end of time, readable by either engine."""
        return [{"partition": {}, "offset": {"gtids": f"0-1-{2**62}", "lsn_commit": 2**62, "lsn_proc": 2**62}}]


# What is measured. Each gets ready and returns the call.


def raw_topic(*place: Any) -> Callable[[], int]:
    """Consume all records, take key and value of each; returns how many."""
    bench = Bench(*place)
    reader = TopicRecords(bench.servers, bench.topic)
    ends = reader.bounds().partitions
    reader.close()

    def call() -> int:
        consumer = Consumer({**bench.servers, "group.id": "benchmark", "enable.auto.commit": False})
        consumer.assign([TopicPartition(bench.topic, number, begin) for number, (begin, _) in ends.items()])
        count, total = 0, sum(end - begin for begin, end in ends.values())
        while count < total:
            pairs = [(message.key(), message.value()) for message in consumer.consume(2_000, timeout=1.0)]
            count += len(pairs)
        consumer.close()
        return count

    return call


def raw_table(*place: Any) -> Callable[[], int]:
    """SELECT all columns of all rows, in chunks of the size that a verification reads; returns how many."""
    bench = Bench(*place)

    def call() -> int:
        count = 0
        for database in bench.databases():
            with closing(proof.connect(bench.stack, bench.engine, database)) as connection:
                cursor, last = connection.cursor(), -1
                while True:
                    cursor.execute("SELECT * FROM pins WHERE id > %s ORDER BY id LIMIT %s", (last, CHUNK))
                    rows = cursor.fetchall()
                    if not rows:
                        break
                    count, last = count + len(rows), rows[-1][0]
        return count

    return call


def fold(cache: str, *place: Any) -> Callable[[], int]:
    """Topic to fold, from where `cache` is; returns the records that were read."""
    bench = Bench(*place)
    outside = verification_of(bench.platform(cache))
    shape, starts = None, {}
    for shard in bench.topology.shards[bench.name]:
        source = outside.source(bench.dataset, shard, bench.dataset.table("pins"))
        shape = source.inspect().shape
        starts[shard.id] = source.position()
        source.close()
    assert shape is not None
    records = outside.records(bench.topic)
    topic = TopicFold(Path(cache), bench.name, bench.topic, shape, records)

    def call() -> int:
        read = 0

        def report(done: int, total: int) -> None:
            nonlocal read
            read = done

        with rarer_collections(VERIFYING):
            topic.extend(records.bounds(), starts, report)
        records.close()
        return read

    return call


def verify(cache: str, run: str, part: ShardRange, policy: VerificationPolicy | None, *place: Any) -> Callable[[], int]:
    """The verification of a range of shards; returns the rows that were proven."""
    bench = Bench(*place)
    outside = verification_of(bench.platform(cache))

    def call() -> int:
        with rarer_collections(VERIFYING):  # as the command does
            verdicts = verify_shards(outside, bench.topology, part, run_id=run, policy=policy)
        for verdict in verdicts:
            if verdict.verdict is not Verdict.PROVEN:
                raise SystemExit(f"shard {verdict.shard} is {verdict.verdict}: {verdict.reason}")
        return sum(verdict.source_rows for verdict in verdicts)

    return call


def reladiff(*place: Any) -> Callable[[], int]:
    """reladiff of each shard's table with its copy; returns the differences."""
    from reladiff import connect_to_table, diff_tables

    columns = proof.COLUMNS[1:]
    bench = Bench(*place)
    login = bench.stack.admin(bench.engine)
    if bench.engine is Engine.MARIADB:
        driver, address = "mysql", bench.stack.mariadb_primary
    else:
        driver, address = "postgresql", bench.stack.postgres_primary

    def call() -> int:
        count = 0
        for database in bench.databases():
            url = f"{driver}://{login.user}:{login.password}@{address}/{database}"
            tables = [
                connect_to_table(url, name, "id", extra_columns=columns, thread_count=1)
                for name in ("pins", "pins_copy")
            ]
            count += len(list(diff_tables(*tables, key_columns=("id",), extra_columns=columns)))
            for table in tables:
                table.database.close()
        return count

    return call


# Making the data, four processes at once.


def _make(work: tuple[tuple[Any, ...], int, int, int]) -> None:
    place, rows, events, number = work
    bench = Bench(*place)
    chosen = (row for row in proof.latest(rows, events, SEED) if row.shard == number)
    proof.make_table(bench.stack, bench.engine, bench.name, number, chosen)


def _fill(work: tuple[tuple[Any, ...], int, int, int]) -> int:
    place, rows, events, number = work
    bench = Bench(*place)
    every = enumerate(proof.history(rows, events, SEED))
    return proof.produce(bench.stack, bench.engine, bench.topic, (one for one in every if one[1].id % 4 == number))


def prepare(bench: Bench, rows: int, events: int) -> int:
    """Databases, tables and topic; returns the bytes of the topic's records."""
    proof.make_topic(bench.stack, bench.topic)
    work = [(bench.place, rows, events, number) for number in range(proof.SHARDS)]
    with multiprocessing.get_context("spawn").Pool(proof.SHARDS) as pool:
        pool.map(_make, work)
        size = sum(pool.map(_fill, work))
    proof.advance(bench.stack, bench.engine, bench.name, events * 2)
    return size


def more(bench: Bench, rows: int, events: int) -> int:
    """1 % more events, and the rows that they say; returns how many."""
    count = max(1, events // 100)
    found = list(islice(enumerate(proof.history(rows, events + count, SEED)), events, None))
    proof.produce(bench.stack, bench.engine, bench.topic, iter(found))
    proof.update_table(bench.stack, bench.engine, bench.name, list({row.id: row for _, row in found}.values()))
    proof.advance(bench.stack, bench.engine, bench.name, (events + count) * 2)
    return count


# Printing.


class Paper:
    """Figures as they come, and how they stand to the goals."""

    def __init__(self) -> None:
        self.figures: dict[str, float] = {}
        self.missed: list[str] = []

    def line(self, engine: Engine, what: str, cost: Sequence[Cost], remark: str = "") -> None:
        """A measurement: medians of its rounds."""
        cpu, servers = median(one.cpu for one in cost), median(one.servers for one in cost)
        wall = median(one.wall for one in cost)
        self.figures[f"{engine} {what}: CPU s"] = round(cpu, 3)
        self.figures[f"{engine} {what}: server CPU s"] = round(servers, 3)
        self.figures[f"{engine} {what}: wall s"] = round(wall, 3)
        print(f"{engine:9}{what:34}{cpu:8.2f} CPU s {servers:8.2f} server {wall:8.2f} wall   {remark}", flush=True)

    def goal(self, engine: Engine, name: str, value: float) -> None:
        """A figure that has a goal."""
        unit, least, goal = GOALS[name]
        met = value >= goal if least else value <= goal
        self.figures[f"{engine} {name}"] = round(value, 4)
        shown = f"{value:,.0f}" if value > 1000 else f"{value:,.2f}"
        print(
            f"{engine:9}{name:34}{shown:>12} {unit}; goal: {'at least' if least else 'at most'} {goal:,g}"
            f" {'' if met else '   MISSED'}",
            flush=True,
        )
        if not met:
            self.missed.append(f"{engine} {name} {shown}")


def median(values: Iterator[float] | Any) -> float:
    """Of some numbers."""
    return float(statistics.median(values))


def run(bench: Bench, paper: Paper, asked: argparse.Namespace, caches: Path) -> None:
    """All measurements of one engine."""
    engine, place, servers = bench.engine, bench.place, bench.server_pids()
    rows, events = asked.rows, asked.events
    size = prepare(bench, rows, events)
    print(f"{engine:9}{rows:,} rows in {proof.SHARDS} shards; {events:,} events of {size // events} bytes", flush=True)

    def cache() -> str:
        return tempfile.mkdtemp(dir=caches)

    def verified(where: str, parts: Sequence[ShardRange], policy: VerificationPolicy | None = None) -> tuple[Cost, ...]:
        name = secrets.token_hex(4)
        calls = [(verify, (where, name, part, policy, *place)) for part in parts]
        found = measured(*calls, servers=servers)
        if sum(one.found for one in found) != rows:
            raise SystemExit(f"{sum(one.found for one in found)} rows were proven, {rows} are there")
        return found

    whole = plan_verification(bench.topology, bench.name, "pins", range_size=proof.SHARDS)
    halves = plan_verification(bench.topology, bench.name, "pins", range_size=proof.SHARDS // 2)
    topics, tables, folds, proofs, pairs = (
        list[Cost](),
        list[Cost](),
        list[Cost](),
        list[Cost](),
        list[tuple[Cost, ...]](),
    )
    kept = [""]
    for _ in range(asked.rounds):
        topics += measured((raw_topic, place))
        tables += measured((raw_table, place), servers=servers)
        kept = [cache(), cache()]
        folds += measured((fold, (kept[0], *place)))
        proofs += verified(kept[1], whole)
        pairs.append(verified(cache(), halves))
    paper.line(engine, "raw topic", topics, f"{events / median(one.cpu for one in topics):,.0f} events a CPU second")
    paper.line(engine, "raw table", tables)
    paper.line(engine, "topic to fold", folds)
    paper.line(engine, "verify, end to end", proofs, "proven")
    both = [
        Cost(
            cpu=sum(p.cpu for p in pair),
            servers=sum(p.servers for p in pair),
            wall=max(p.wall for p in pair),
            memory=max(p.memory for p in pair),
            found=None,
        )
        for pair in pairs
    ]
    paper.line(engine, "verify, two processes", both, "proven")

    raw = [topic.cpu + table.all_cpu for topic, table in zip(topics, tables, strict=True)]
    paper.goal(engine, "end to end / raw", median(p.all_cpu / r for p, r in zip(proofs, raw, strict=True)))
    clients = [topic.cpu + table.cpu for topic, table in zip(topics, tables, strict=True)]
    ratio = median(p.cpu / r for p, r in zip(proofs, clients, strict=True))
    paper.figures[f"{engine} end to end / raw, without the servers"] = round(ratio, 4)
    print(f"{engine:9}{'  without the servers':34}{ratio:12.2f} x the CPU")
    paper.goal(engine, "topic to fold", median(one.found / one.cpu for one in folds))
    paper.goal(engine, "two processes / one", median(b.all_cpu / p.all_cpu for b, p in zip(both, proofs, strict=True)))
    memory = median(one.memory for one in proofs)
    paper.goal(engine, "memory", memory / rows)
    print(f"{engine:9}  {memory / 1e6:.0f} MB resident at the peak, above what the process had before")

    if not asked.without_reladiff:
        compared(bench, paper, median(one.all_cpu for one in proofs))

    # What a slab holds, and what is there for a table of any size: client queue, batches, one partition's events.
    cap = FIXED + 150 * (rows // 10)
    capped = verified(cache(), whole, VerificationPolicy(slab_rows=rows // 10))
    paper.line(
        engine, f"verify, slab_rows {rows // 10:,}", capped, f"proven; {capped[0].memory / 1e6:.0f} MB at the peak"
    )
    paper.goal(engine, "memory, capped / cap", capped[0].memory / cap)

    added = more(bench, rows, events)
    again = measured((fold, (kept[0], *place)))
    if again[0].found != added:
        raise SystemExit(f"the second run read {again[0].found} records, {added} are new")
    paper.line(engine, f"topic to fold, {added:,} more events", again)
    paper.goal(engine, "second run after 1 %", 100 * again[0].cpu / median(one.cpu for one in folds))
    paper.line(engine, "verify, second run", verified(kept[1], whole), "proven; reads the table again")


def compared(bench: Bench, paper: Paper, ours: float) -> None:
    """reladiff of the tables with their copies on the same server: all columns, one thread, no topic to read."""
    found = measured((reladiff, bench.place), servers=bench.server_pids())
    if found[0].found:
        raise SystemExit(f"reladiff found {found[0].found} differences between a table and its copy")
    paper.line(
        bench.engine, "reladiff, table and its copy", found, f"{found[0].all_cpu / ours:.1f} x the CPU of verify"
    )
    paper.figures[f"{bench.engine} reladiff / verify"] = round(found[0].all_cpu / ours, 4)


def main(arguments: list[str]) -> int:
    """Prints a line a measurement, and `goal met` or `goal missed: ...` as the last."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks verify", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--events", type=int, help="by default 1.25 for each row")
    parser.add_argument("--engines", default="mariadb,postgres")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stack", type=Path, help="use the running stack of this directory")
    parser.add_argument("--without-reladiff", action="store_true")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    if not asked.without_reladiff:
        require_extra("bench")
    asked.events = asked.events or asked.rows * 5 // 4
    if not 8 <= asked.rows <= asked.events:
        parser.error("there must be at least 8 rows, and an event for each")
    paper = Paper()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores at the start", flush=True)
    with stack_of(asked.stack) as stack, tempfile.TemporaryDirectory(prefix="cdc-bench-") as caches:
        for engine in (Engine(name) for name in asked.engines.split(",")):
            bench = Bench(str(stack.directory), engine, f"bench_{secrets.token_hex(3)}")
            try:
                run(bench, paper, asked, Path(caches))
            finally:
                proof.drop(stack, engine, bench.name, bench.topic)
    print(f"load {os.getloadavg()[0]:.1f} at the end")
    if asked.json:
        print(json.dumps(paper.figures, indent=2))
    print("goal met" if not paper.missed else f"goal missed: {', '.join(paper.missed)}")
    return 1 if paper.missed else 0


@contextlib.contextmanager
def stack_of(given: Path | None) -> Iterator[Stack]:
    """The stack of that directory, or one of its own without workers at work."""
    if given is not None:
        yield Stack.load(given)
        return
    directory = Path(tempfile.mkdtemp(prefix="cdc-bench-"))
    # As root, the databases run as other users, who must get through.
    directory.chmod(0o711)
    try:
        stack = up(StackSpec(directory=directory, workers=1, agents=False, owned=True))
        stack.stop("w0")
        yield stack
    finally:
        down(directory, purge=True)
        shutil.rmtree(directory, ignore_errors=True)
