"""Bootstrap: our bounded one, and one Debezium connector with its default settings, on the same data.

Four parts, on a real MariaDB, Kafka and Connect; each contender has a Connect worker of its own:
speed    a table of narrow rows in a worker with 1 GB: rows a second, CPU seconds and peak memory of the worker
wide     a table of 100 KB rows, bootstrapped with heaps from small to large: the smallest that survives
backlog  100 KB rows changed while the worker was down: the smallest heap that works the backlog off
flood    the same with millions of changes of narrow rows, in just one heap

A worker that runs out of memory, a task that fails and a standstill count as a death; in a flood also less than
1,000 events a second, which is a worker that does little but collect garbage.
The stock connector has no option but where the source, its schema history and its topics are.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pymysql
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from benchmarks.form import Form, Goal
from benchmarks.stacks import stack_of
from benchmarks.worker import OwnWorker, Watched
from cdc_platform.connectors.identity import table_topic
from cdc_platform.errors import CdcError
from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import BootstrapMode, Dataset, Engine, Shard, Table, TopicSpec
from cdc_platform.settings import Settings
from cdc_platform.snapshots import run_lifecycle
from cdc_platform.snapshots.connector_waves import committed, wait_idle
from cdc_platform.snapshots.ports import SnapshotPorts
from cdc_platform.snapshots.progress_events import Listener
from cdc_platform.snapshots.request import Request, RunKind
from cdc_platform.snapshots.slice_runner import work_slice
from cdc_platform.wiring import open_platform, open_snapshots

SIZES = {
    "rows": (150_000, 150_000),  # narrow
    "wide": (1_500, 1_500),  # of 100 KB
    "backlog": (3_000, 600),  # changes of wide rows
    "flood": (2_000_000, 200_000),  # changes of narrow rows
    "flood_heap": (128, 128),  # MB
    "heaps": ("96,128,256,512,1024", "96,128,256,512,1024"),  # MB, from small to large
    "rounds": (3, 1),  # of the first part
    "parts": ("speed,wide,backlog,flood", "speed,wide"),
}

NARROW, WIDE = "narrow", "wide"
WIDE_BYTES = 100_000
PARTITIONS = 2
LARGE_MB = 1024
# Of the stock connector's rows a second.
SPEED_GOAL = Goal(
    at_least=0.8,
    limit=0.25,
    cause="Debezium's incremental reading does one thing after another in the thread of the stream: it reads a chunk, "
    "waits for the log to pass it, sends it. The stock snapshot sends while it reads, and streams nothing meanwhile. "
    "The mode *snapshot* reads as fast as stock",
)
ALIVE = 60_000  # events a minute
_MINUTE = 60.0
_LIMIT = 600.0


@dataclass(frozen=True, kw_only=True)
class Ran:
    """One contender's run. `died`: how; None: it came to its end. Bytes and seconds."""

    seconds: float
    cpu: float
    peak: int
    events: int
    died: str | None = None


class Source:
    """A database of the benchmark's own on the stack's MariaDB."""

    def __init__(self, stack: Stack, name: str) -> None:
        self.stack = stack
        self.name = name
        self.run(f"CREATE DATABASE {name}", database=None)
        self.run(f"CREATE TABLE {NARROW} (id BIGINT PRIMARY KEY, v BIGINT NOT NULL, pad VARCHAR(300) NOT NULL)")
        self.run(f"CREATE TABLE {WIDE} (id BIGINT PRIMARY KEY, v BIGINT NOT NULL, pad LONGTEXT NOT NULL)")

    def run(self, *statements: str, database: str | None = "") -> int:
        """Each its own transaction. Returns how many rows they have changed."""
        login = self.stack.admin(Engine.MARIADB)
        address = self.stack.mariadb_primary
        connection = pymysql.connect(
            host=address.host,
            port=address.port,
            user=login.user,
            password=login.password,
            database=self.name if database == "" else database,
            autocommit=True,
            max_allowed_packet=16 * 1024 * 1024,
        )
        with contextlib.closing(connection), connection.cursor() as cursor:
            return sum(cursor.execute(statement) for statement in statements)

    def fill(self, rows: int, wide: int) -> None:
        """First rows."""
        for at in range(1, rows + 1, 2000):
            ids = range(at, min(rows, at + 1999) + 1)
            self.run(f"INSERT INTO {NARROW} VALUES " + ",".join(f"({i},0,REPEAT('n', 250))" for i in ids))
        for at in range(1, wide + 1, 50):
            ids = range(at, min(wide, at + 49) + 1)
            self.run(f"INSERT INTO {WIDE} VALUES " + ",".join(f"({i},0,REPEAT('w', {WIDE_BYTES}))" for i in ids))
        self.run(f"ANALYZE TABLE {NARROW}, {WIDE}")

    def change(self, table: str, changes: int) -> None:
        """So many changes of rows, each event with the row before and after; a transaction has all rows once."""
        left, number = changes, 0
        while left > 0:
            number += 1
            left -= self.run(f"UPDATE {table} SET v = {number} ORDER BY id LIMIT {left}")

    def drop(self) -> None:
        """Away with it."""
        self.run(f"DROP DATABASE {self.name}", database=None)


class Contender:
    """What both are: a connector in a worker of its own."""

    def __init__(self, source: Source, table: str, what: str) -> None:
        self.source = source
        self.table = table
        self.stack = source.stack
        self.worker = OwnWorker(source.stack, f"{source.name}-{table}-{what}-{secrets.token_hex(2)}")
        self.settings: Settings = replace(
            source.stack.settings(),
            zookeeper_root=f"/{self.worker.name}",
            state_topic=f"{self.worker.name}.state",
            platform=self.worker.name.replace("-", "_"),
            heartbeat_topic=f"{self.worker.name}.heartbeat",
        )
        self.connector = ""
        self.topic = ""
        self._seen = 0
        self._consumer = Consumer({**self.settings.kafka, "group.id": "benchmark"})

    def bootstrap(self, mode: BootstrapMode) -> None:
        """Ask for the first data, or for changes from now on. May return before it is there."""
        raise NotImplementedError

    def end(self) -> int:
        """How many records were ever written to the table's topic, as far as the broker tells now."""
        try:
            self._seen = sum(
                self._consumer.get_watermark_offsets(TopicPartition(self.topic, part), timeout=30)[1]
                for part in range(PARTITIONS)
            )
        except KafkaException as error:
            # Not made yet, or just made.
            if error.args[0].code() not in (KafkaError._UNKNOWN_PARTITION, KafkaError.NOT_LEADER_FOR_PARTITION):
                raise
        return self._seen

    def make_topics(self, *names: str, partitions: int = PARTITIONS) -> None:
        """Topics as a broker has them by default."""
        wanted = [NewTopic(name, num_partitions=partitions, replication_factor=1) for name in names]
        client = AdminClient(dict(self.settings.kafka))  # without a name it ends before its answers
        for answer in client.create_topics(wanted).values():
            answer.result(30)

    def close(self) -> None:
        """End the worker."""
        self.worker.close()
        self._consumer.close()


class Stock(Contender):
    """One connector with Debezium's default settings."""

    def __init__(self, source: Source, table: str) -> None:
        super().__init__(source, table, "stock")
        self.connector = self.worker.name
        self.topic = f"{self.connector}.{source.name}.{table}"
        self.make_topics(self.topic)
        self.make_topics(self.connector, f"{self.connector}.history", partitions=1)

    def bootstrap(self, mode: BootstrapMode) -> None:
        # Its snapshot locks tables, which the platform's user may not.
        admin = self.stack.secrets_dir / "mariadb-admin.properties"
        config = {
            "connector.class": "io.debezium.connector.mariadb.MariaDbConnector",
            "database.hostname": self.stack.mariadb_primary.host,
            "database.port": str(self.stack.mariadb_primary.port),
            "database.user": f"${{file:{admin}:user}}",
            "database.password": f"${{file:{admin}:password}}",
            "database.server.id": str(secrets.randbelow(2**30) + 2**24),
            "topic.prefix": self.connector,
            "database.include.list": self.source.name,
            "table.include.list": f"{self.source.name}.{self.table}",
            "schema.history.internal.kafka.topic": f"{self.connector}.history",
            "schema.history.internal.kafka.bootstrap.servers": str(self.stack.kafka),
            **({} if mode is BootstrapMode.SNAPSHOT else {"snapshot.mode": "no_data"}),
        }
        self.worker.connect.create(self.connector, config)


class Ours(Contender):
    """A shard, bootstrapped by the platform with its own default settings."""

    def __init__(self, source: Source, table: str) -> None:
        super().__init__(source, table, "ours")
        name = f"d{secrets.token_hex(4)}"
        self.dataset = Dataset(
            name=name,
            engine=Engine.MARIADB,
            tables=(Table(name=table),),
            clusters=(self.worker.name,),
            credentials=self.stack.credentials(Engine.MARIADB, name),
            topics=TopicSpec(partitions=PARTITIONS, replication=1),
        )
        self.shard = Shard(dataset=name, id="00000", leader=self.stack.mariadb_primary, database=source.name)
        self.connector = self.shard.name
        self.topic = table_topic(self.dataset, self.dataset.tables[0])
        self.worker.lead(self.shard)
        self._closing = contextlib.ExitStack()
        platform = self._closing.enter_context(open_platform(self.settings))
        self.outside: SnapshotPorts = self._closing.enter_context(open_snapshots(platform))
        platform.topology.put_cluster(self.worker.cluster)
        platform.topology.put_dataset(self.dataset)
        platform.topology.put_shard(self.shard)

    def bootstrap(self, mode: BootstrapMode) -> None:
        wanted = Request(kind=RunKind.BOOTSTRAP, dataset=self.dataset.name, mode=mode, again=True)
        run = run_lifecycle.open_run(self.outside, wanted, f"run-{secrets.token_hex(4)}")
        work_slice(self.outside, run, 0, Listener())
        closed = run_lifecycle.finish(self.outside, run)
        if closed.failed:
            raise RuntimeError(f"the bootstrap of {self.shard.name} failed")

    def close(self) -> None:
        super().close()
        self._closing.close()


def speed(source: Source, rows: int) -> dict[str, Ran]:
    """The narrow table in large workers, one contender after the other."""
    found: dict[str, Ran] = {}
    makers: dict[str, tuple[Callable[[], Contender], BootstrapMode]] = {
        "stock": (lambda: Stock(source, NARROW), BootstrapMode.SNAPSHOT),
        "ours, incremental": (lambda: Ours(source, NARROW), BootstrapMode.INCREMENTAL),
        "ours, snapshot": (lambda: Ours(source, NARROW), BootstrapMode.SNAPSHOT),
    }
    for name, (make, mode) in makers.items():
        contender = make()
        try:
            contender.worker.start(LARGE_MB)
            found[name] = _bootstrapped(contender, mode, rows)
        finally:
            contender.close()
        _tell("speed", name, LARGE_MB, found[name])
    return found


def wide(source: Source, rows: int, heaps: Sequence[int]) -> dict[str, int | None]:
    """The smallest heap in MB in which each contender bootstraps the wide rows; None: not even the largest."""
    found: dict[str, int | None] = {}
    makers: dict[str, tuple[Callable[[], Contender], BootstrapMode]] = {
        "stock": (lambda: Stock(source, WIDE), BootstrapMode.SNAPSHOT),
        "ours": (lambda: Ours(source, WIDE), BootstrapMode.INCREMENTAL),
    }
    for name, (make, mode) in makers.items():
        found[name] = None
        for heap in heaps:
            contender = make()
            try:
                contender.worker.start(heap)
                ran = _bootstrapped(contender, mode, rows)
            finally:
                contender.close()
            _tell("wide", name, heap, ran)
            if ran.died is None:
                found[name] = heap
                break
    return found


def backlog(
    part: str, source: Source, table: str, changes: int, heaps: Sequence[int], *, least: int = 1
) -> dict[str, int | None]:
    """The smallest heap in MB in which each contender works off what was changed while its worker was down.

    `least` events a minute are alive.
    """
    contenders: dict[str, Contender] = {"stock": Stock(source, table), "ours": Ours(source, table)}
    found: dict[str, int | None] = dict.fromkeys(contenders)
    try:
        before = {name: _stopped_stream(contender) for name, contender in contenders.items()}
        source.change(table, changes)
        print(f"{part}: {changes:,} changes of {table} rows", flush=True)
        for name, contender in contenders.items():
            for heap in heaps:
                ran = _worked_off(contender, before[name], changes, heap, least)
                _tell(part, name, heap, ran)
                if ran.died is None:
                    found[name] = heap
                    break
    finally:
        for contender in contenders.values():
            contender.close()
    return found


def _bootstrapped(contender: Contender, mode: BootstrapMode, rows: int) -> Ran:
    trouble: list[BaseException] = []

    def work() -> None:
        try:
            contender.bootstrap(mode)
        except (CdcError, RuntimeError) as error:
            trouble.append(error)

    thread = threading.Thread(target=work, daemon=True)  # after a death it may wait for long
    return _watched(contender, 0, rows, begin=thread.start, over=lambda: not thread.is_alive(), trouble=trouble)


def _stopped_stream(contender: Contender) -> dict[str, Any]:
    """Streams from now on, stopped, its worker ended. Returns the committed offset."""
    contender.worker.start(LARGE_MB)
    contender.bootstrap(BootstrapMode.LATEST)
    connect = contender.worker.connect
    end = time.monotonic() + _LIMIT
    seen = contender.end()
    while contender.end() == seen:
        _check(end, f"{contender.connector} streams nothing")
        # What is committed before the first change is no place in the stream yet.
        contender.source.run(f"UPDATE {contender.table} SET v = v - 1 WHERE id = 1")
        time.sleep(1.0)
    offset: dict[str, Any] | None = None
    while not (offset and offset.get("gtids")):
        _check(end, f"{contender.connector} commits no offset")
        time.sleep(1.0)
        offset = committed(connect, contender.connector)
    offset = _stop_connector(contender)
    contender.worker.stop()
    return offset


def _worked_off(contender: Contender, offset: dict[str, Any], changes: int, heap: int, least: int) -> Ran:
    contender.worker.start(heap)
    connect = contender.worker.connect
    name = contender.connector
    connect.alter_offsets(name, [{"partition": {"server": name}, "offset": offset}])
    before = contender.end()
    ran = _watched(contender, before, before + changes, begin=lambda: connect.resume(name), least=least)
    contender.worker.stop()
    # At the next heap from the same place.
    contender.worker.start(LARGE_MB)
    _stop_connector(contender)
    contender.worker.stop()
    return ran


def _stop_connector(contender: Contender) -> dict[str, Any]:
    connect = contender.worker.connect
    connect.stop(contender.connector)
    wait_idle(connect, contender.connector)
    return committed(connect, contender.connector) or {}


def _watched(
    contender: Contender,
    before: int,
    wanted: int,
    *,
    begin: Callable[[], object],
    over: Callable[[], bool] = lambda: True,
    trouble: Sequence[BaseException] = (),
    least: int = 1,
) -> Ran:
    """Until so many records are in the topic, or it is clear that they will not come."""
    died = None
    seen, mark, marked = before, before, time.monotonic()
    with Watched(contender.worker.pid()) as watched:
        begin()
        while seen < wanted and died is None:
            time.sleep(0.25)
            seen = contender.end()
            died = _death(contender, trouble)
            if time.monotonic() - marked >= _MINUTE:
                if seen - mark < least:
                    died = died or f"{seen - mark:,} events in a minute"
                mark, marked = seen, time.monotonic()
    end = time.monotonic() + _LIMIT
    while died is None and not over():  # the platform's own bookkeeping
        _check(end, f"the run of {contender.connector} does not end")
        time.sleep(0.25)
    return Ran(seconds=watched.seconds, cpu=watched.cpu, peak=watched.peak, events=seen - before, died=died)


def _death(contender: Contender, trouble: Sequence[BaseException]) -> str | None:
    if contender.worker.out_of_memory():
        return "out of memory"
    if contender.worker.dead():
        return "its worker ended"
    if trouble:
        return str(trouble[0])
    try:
        seen = contender.worker.connect.connector(contender.connector)
    except CdcError:
        return None  # not made yet, or too busy to answer: the standstill tells
    failed = [task for task in seen.tasks if task.state == "FAILED"]
    return "its task failed" if failed else None


def _check(end: float, what: str) -> None:
    if time.monotonic() > end:
        raise RuntimeError(what)


def _tell(part: str, name: str, heap: int, ran: Ran) -> None:
    print(
        f"{part:8} {name:18} heap {heap:5} MB: {ran.events:8,} events, {ran.seconds:6.1f} s, "
        f"{ran.events / ran.seconds:9,.0f} events/s, {ran.cpu:6.1f} CPU s, peak {ran.peak / 1e6:5.0f} MB"
        + (f": DIED, {ran.died}" if ran.died else ""),
        flush=True,
    )


def run(form: Form) -> None:
    """All parts, one after another; in the first the contenders by turns."""
    heaps = [int(text) for text in form.text("heaps").split(",")]
    parts = form.text("parts").split(",")
    with stack_of(form, workers=1, postgres=False) as stack:
        source = Source(stack, f"bench_{secrets.token_hex(3)}")
        source.fill(form.count("rows"), form.count("wide"))
        if "speed" in parts:
            _compare_speed(form, [speed(source, form.count("rows")) for _ in range(form.count("rounds"))])
        if "wide" in parts:
            _compare_heaps(form, "wide rows", wide(source, form.count("wide"), heaps))
        if "backlog" in parts:
            found = backlog("backlog", source, WIDE, form.count("backlog"), heaps)
            _compare_heaps(form, "a backlog of wide rows", found)
        if "flood" in parts:
            found = backlog("flood", source, NARROW, form.count("flood"), [form.count("flood_heap")], least=ALIVE)
            own = found["ours"]
            form.condition("a flood of narrow rows is survived", own is not None, f"with {own or 'no'} MB; stock with "
                           f"{found['stock'] or 'no'} MB")  # fmt: skip
        source.drop()


def _compare_speed(form: Form, rounds: Sequence[dict[str, Ran]]) -> None:
    def of(who: str, number: Callable[[Ran], float]) -> list[float]:
        return [number(ran[who]) for ran in rounds]

    for who, goal in (("ours, incremental", SPEED_GOAL), ("ours, snapshot", None)):
        what = who.removeprefix("ours, ")
        numbers: tuple[tuple[str, str, Callable[[Ran], float], Goal | None], ...] = (
            ("rows", "a second", lambda ran: ran.events / ran.seconds, goal),
            ("the worker's CPU", "s", lambda ran: ran.cpu, None),
            ("the worker's memory", "MB at the peak", lambda ran: ran.peak / 1e6, None),
        )
        for name, unit, number, judged in numbers:
            form.compare(f"{what}: {name}", unit, of(who, number), of("stock", number), other_side="stock", goal=judged)


def _compare_heaps(form: Form, what: str, found: dict[str, int | None]) -> None:
    own, stock = found["ours"], found["stock"]
    if own is not None and stock is not None:
        form.compare(f"{what}: smallest heap", "MB", [own], [stock], other_side="stock", goal=Goal(at_most=0.99))
        return
    said = f"ours from {own or 'no heap'} MB, stock from {stock or 'no heap'} MB"
    form.condition(f"{what}: bootstrapped in a smaller heap than stock", own is not None, said)
