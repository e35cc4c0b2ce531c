"""A proof, and the same data read raw: CPU and memory; also against a dict of the topic, and against reladiff.

The rows are in real databases, spread over 4 shards, and their events in a real topic of 8 partitions;
the events are written by this benchmark in Debezium's format instead of by Debezium, and the connectors'
committed offsets are answered by it too. Every verification must end in `proven` for all shards.

Each measurement runs in a process of its own, pinned to one core. CPU seconds count, so that other work
on the machine matters less: those of the process with all its threads, and, where a database is
read, those of its server too, for a hash computed there is not free. Memory is what Linux says was resident at the
peak (VmHWM), less what was resident when the call began.
"""

from __future__ import annotations

import multiprocessing
import secrets
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from benchmarks import proof
from benchmarks.form import Form, Goal
from benchmarks.measuring import Cost, measured
from benchmarks.stacks import stack_of
from cdc_platform.clients.kafka.topic_records import TopicRecords
from cdc_platform.clients.platform import Platform
from cdc_platform.local.stack import Stack
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

_PYTHON = (
    "of an event's 3 us the raw side pays 1.1 too, for its consumption; msgspec takes 0.6 to decode it and the hash "
    "0.4. With all else free the fold would be at 1.9 times the raw side ([what an event costs](verification.md#cost))"
)
FOLD_GOAL = Goal(at_most=2.0, limit=4.5, cause=_PYTHON)
# A raw export by pymysql is expensive, so that its share of the proof is small there.
WHOLE_GOAL = {
    Engine.MARIADB: Goal(at_most=1.0),
    Engine.MYSQL: Goal(at_most=1.0),
    Engine.POSTGRES: Goal(at_most=1.4, limit=2.1, cause=f"psycopg reads raw rows in C, and {_PYTHON}"),
}
DIFFERENCE_GOAL = {
    Engine.MARIADB: Goal(at_most=1.0),
    Engine.POSTGRES: Goal(
        at_most=1.0, limit=2.0, cause=f"reladiff reads two tables in their server and no topic; {_PYTHON}"
    ),
}

SIZES = {
    "rows": (1_000_000, 400_000),
    "events": (1_250_000, 500_000),
    "engines": ("mariadb,postgres", "mariadb,postgres"),
    "rounds": (3, 1),
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
        return [self.stack.pid(self.stack.servers(self.engine)[0])]

    def written(self) -> str:
        """A GTID position behind all that was and will be written."""
        if self.engine is not Engine.MYSQL:
            return f"0-1-{2**62}"
        with closing(proof.connect(self.stack, self.engine, None)) as connection:
            cursor = connection.cursor()
            cursor.execute("SELECT @@GLOBAL.gtid_executed, @@server_uuid")
            executed, own = cursor.fetchone()
            return f"{executed},{own}:1-{2**62},{proof.SOURCE}:1-{2**62}"

    def platform(self, cache: str) -> Platform:
        """All that a verification needs; only the connectors are not real."""
        return Platform(
            settings=replace(self.stack.settings(), platform=self.name, cache_dir=cache),
            topology=None,  # type: ignore[arg-type]  # a verification is given its topology
            kafka=None,  # type: ignore[arg-type]
            state=FakeStateStore(),
            connect=lambda cluster: CaughtUp(cluster.name, self.written()),
        )


class CaughtUp(FakeConnect):
    """Connectors that have committed whatever the source has written."""

    def __init__(self, name: str, gtids: str) -> None:
        super().__init__(name)
        self._gtids = gtids

    def offsets(self, name: str) -> Sequence[dict[str, Any]]:
        """Committed offsets at the end of time, readable by either engine."""
        return [{"partition": {}, "offset": {"gtids": self._gtids, "lsn_commit": 2**62, "lsn_proc": 2**62}}]


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


def dict_fold(*place: Any) -> Callable[[], int]:
    """The topic into a dict from key to the last value's hash; returns how many keys there are."""
    bench = Bench(*place)
    reader = TopicRecords(bench.servers, bench.topic)
    ends = reader.bounds().partitions
    reader.close()

    def call() -> int:
        consumer = Consumer({**bench.servers, "group.id": "benchmark", "enable.auto.commit": False})
        consumer.assign([TopicPartition(bench.topic, number, begin) for number, (begin, _) in ends.items()])
        last: dict[bytes, int] = {}
        count, total = 0, sum(end - begin for begin, end in ends.values())
        while count < total:
            for message in consumer.consume(2_000, timeout=1.0):
                last[bytes(message.key() or b"")] = hash(message.value())
                count += 1
        consumer.close()
        return len(last)

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
                raise RuntimeError(f"shard {verdict.shard} is {verdict.verdict}: {verdict.reason}")
        return sum(verdict.source_rows for verdict in verdicts)

    return call


def reladiff(*place: Any) -> Callable[[], int]:
    """reladiff of each shard's table with its copy; returns the differences."""
    from reladiff import connect_to_table, diff_tables

    columns = proof.COLUMNS[1:]
    bench = Bench(*place)
    login = bench.stack.admin(bench.engine)
    driver, address = "mysql" if bench.engine.reads_binlog else "postgresql", bench.stack.primary(bench.engine)

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


class Rounds:
    """What was measured of one engine, a number a round."""

    def __init__(self) -> None:
        self.topics, self.tables, self.dicts = list[Cost](), list[Cost](), list[Cost]()
        self.folds, self.proofs, self.pairs = list[Cost](), list[Cost](), list[tuple[Cost, ...]]()
        self.diffs = list[Cost]()

    def raw(self, *, servers: bool) -> list[float]:
        """CPU of reading topic and table."""
        tables = [table.all_cpu if servers else table.cpu for table in self.tables]
        return [topic.cpu + table for topic, table in zip(self.topics, tables, strict=True)]


def run(form: Form) -> None:
    """One engine after the other."""
    if not 8 <= form.count("rows") <= form.count("events"):
        raise ValueError("there must be at least 8 rows, and an event for each")
    # Without workers at work.
    engines = [Engine(name) for name in form.text("engines").split(",")]
    parts = {engine.value: engine in engines for engine in Engine}
    with (
        stack_of(form, workers=1, agents=False, **parts) as stack,
        tempfile.TemporaryDirectory(prefix="cdc-bench-") as caches,
    ):
        if form.stack is None:
            stack.stop("w0")
        for engine in engines:
            bench = Bench(str(stack.directory), engine, f"bench_{secrets.token_hex(3)}")
            try:
                measure(form, bench, Path(caches))
            finally:
                proof.drop(stack, engine, bench.name, bench.topic)


def measure(form: Form, bench: Bench, caches: Path) -> None:
    """All measurements of one engine."""
    engine, place, servers = bench.engine, bench.place, bench.server_pids()
    rows, events = form.count("rows"), form.count("events")
    size = prepare(bench, rows, events)
    form.figure(f"{engine}: an event", "bytes", [size / events])

    def cache() -> str:
        return tempfile.mkdtemp(dir=caches)

    def verified(where: str, parts: Sequence[ShardRange], policy: VerificationPolicy | None = None) -> tuple[Cost, ...]:
        name = secrets.token_hex(4)
        calls = [(verify, (where, name, part, policy, *place)) for part in parts]
        found = measured(*calls, servers=servers)
        if sum(one.found for one in found) != rows:
            raise RuntimeError(f"{sum(one.found for one in found)} rows were proven, {rows} are there")
        return found

    whole = plan_verification(bench.topology, bench.name, "pins", range_size=proof.SHARDS)
    halves = plan_verification(bench.topology, bench.name, "pins", range_size=proof.SHARDS // 2)
    made, kept = Rounds(), ["", ""]
    for _ in range(form.count("rounds")):
        made.topics += measured((raw_topic, place))
        made.tables += measured((raw_table, place), servers=servers)
        made.dicts += measured((dict_fold, place))
        kept = [cache(), cache()]
        made.folds += measured((fold, (kept[0], *place)))
        made.proofs += verified(kept[1], whole)
        made.pairs.append(verified(cache(), halves))
        # It asks for MD5(), which MySQL 9 does not have.
        if engine is not Engine.MYSQL:
            made.diffs += _without_difference(measured((reladiff, place), servers=servers))
    _compare(form, engine, made, rows)

    # What a slab holds, and what is there for a table of any size: client queue, batches, one partition's events.
    cap = FIXED + 150 * (rows // 10)
    capped = verified(cache(), whole, VerificationPolicy(slab_rows=rows // 10))
    form.compare(
        f"{engine}: memory with slab_rows {rows // 10:,}", "MB", [capped[0].memory / 1e6], [cap / 1e6],
        other_side="the cap", goal=Goal(at_most=1.0),
    )  # fmt: skip
    added = more(bench, rows, events)
    again = measured((fold, (kept[0], *place)))
    if again[0].found != added:
        raise RuntimeError(f"the second run read {again[0].found} records, {added} are new")
    form.compare(
        f"{engine}: topic side after 1 % more events", "CPU s", [again[0].cpu], [made.folds[-1].cpu],
        other_side="the first run", goal=Goal(at_most=0.05),
    )  # fmt: skip


def _compare(form: Form, engine: Engine, made: Rounds, rows: int) -> None:
    proofs = [one.all_cpu for one in made.proofs]
    form.compare(
        f"{engine}: verify, end to end", "CPU s", proofs, made.raw(servers=True),
        other_side="topic and table, raw", goal=WHOLE_GOAL[engine],
    )  # fmt: skip
    form.compare(
        f"{engine}: verify, without the servers", "CPU s", [one.cpu for one in made.proofs], made.raw(servers=False),
        other_side="topic and table, raw",
    )  # fmt: skip
    form.compare(
        f"{engine}: topic to fold", "CPU s", [one.cpu for one in made.folds], [one.cpu for one in made.topics],
        other_side="topic, raw", goal=FOLD_GOAL,
    )  # fmt: skip
    form.compare(
        f"{engine}: memory of verify", "bytes a live key", [one.memory / rows for one in made.proofs],
        [one.memory / rows for one in made.dicts], other_side="dict of the topic", goal=Goal(at_most=1.0),
    )  # fmt: skip
    form.compare(
        f"{engine}: two processes", "CPU s", [sum(one.all_cpu for one in pair) for pair in made.pairs], proofs,
        other_side="one process", goal=Goal(at_most=1.1),
    )  # fmt: skip
    if not made.diffs:
        return
    form.compare(
        f"{engine}: verify", "CPU s", proofs, [one.all_cpu for one in made.diffs],
        other_side="reladiff of the tables with copies of them", goal=DIFFERENCE_GOAL[engine],
    )  # fmt: skip


def _without_difference(found: tuple[Cost, ...]) -> tuple[Cost, ...]:
    if found[0].found:
        raise RuntimeError(f"reladiff found {found[0].found} differences between a table and its copy")
    return found
