"""Tables and their topic for the benchmarks of the proof: 13 columns, events as Debezium writes them.

The rows are really in the databases; the events are put into the real topic by this module instead of
Debezium, byte for byte in its format. They are made from the same values as the rows, so that a
verification of them must end in `proven`: a benchmark that compared wrongly would show it.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pymysql
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import Dataset, Engine, Shard, Table, TopicSpec, Topology

PARTITIONS = 8
SHARDS = 4

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WORDS = [
    "pin",
    "board",
    "image",
    "garden",
    "kitchen",
    "blue",
    "wooden",
    "handmade",
    "vintage",
    "summer",
    "recipe",
    "idea",
    "small",
    "modern",
    "travel",
]

# MySQL: the server whose transactions the events are, and how many of them are one.
SOURCE = "bec00000-0000-4000-8000-000000000001"
TRANSACTION = 4096

COLUMNS = (
    "id", "user_id", "board_id", "title", "description", "link", "price", "created_at", "updated_at", "flags",
    "active", "digest", "score",
)  # fmt: skip

_BINLOG_DDL = (
    "CREATE TABLE {} (id BIGINT PRIMARY KEY, user_id BIGINT, board_id BIGINT, title VARCHAR(200), description TEXT,"
    " link VARCHAR(200), price DECIMAL(10,2), created_at DATETIME(6), updated_at TIMESTAMP(6) NULL, flags INT,"
    " active TINYINT(1), digest VARBINARY(20), score INT)"
)
DDL = {
    Engine.MARIADB: _BINLOG_DDL,
    Engine.MYSQL: _BINLOG_DDL,
    Engine.POSTGRES: (
        "CREATE TABLE {} (id bigint PRIMARY KEY, user_id bigint, board_id bigint, title varchar(200), description text,"
        " link varchar(200), price numeric(10,2), created_at timestamp, updated_at timestamptz, flags int,"
        " active boolean, digest bytea, score int)"
    ),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One row; `version` counts its updates."""

    id: int
    version: int
    seed: int

    @property
    def shard(self) -> int:
        """The number of its shard; each partition has rows of all shards."""
        return self.id // PARTITIONS % SHARDS

    def values(self) -> list[Any]:
        """The columns' values, the same for each call."""
        rng = random.Random(self.seed * 1_000_003 + self.id * 31 + self.version)
        title = " ".join(rng.choices(_WORDS, k=4)) + (' "quoted"' if rng.random() < 0.05 else "")
        created = _EPOCH + timedelta(days=18_000, seconds=rng.random() * 1e8)
        return [
            self.id,
            rng.randrange(10**7),
            rng.randrange(10**8),
            title,
            rng.randbytes(45).hex(),
            f"https://example.org/{rng.randrange(10**9)}",
            f"{rng.randrange(10**6)}.{rng.randrange(100):02d}",
            created,
            created + timedelta(microseconds=rng.randrange(10**12)),
            rng.randrange(2**31),
            rng.random() < 0.5,
            rng.randbytes(16),
            rng.randrange(1000),
        ]


def _text(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _after(engine: Engine, v: list[Any]) -> str:
    updated = v[8].strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    active = str(v[10]).lower() if engine is Engine.POSTGRES else str(int(v[10]))
    micros = (v[7] - _EPOCH) // timedelta(microseconds=1)
    return (
        f'{{"id":{v[0]},"user_id":{v[1]},"board_id":{v[2]},"title":{_text(v[3])},"description":"{v[4]}",'
        f'"link":"{v[5]}","price":"{v[6]}","created_at":{micros},"updated_at":"{updated}","flags":{v[9]},'
        f'"active":{active},"digest":"{v[11].hex()}","score":{v[12]}}}'
    )


def event(engine: Engine, row: Row, number: int) -> tuple[bytes, bytes]:
    """Key and value of the event that wrote the row; `number` is its place in the source."""
    after, shard = _after(engine, row.values()), shard_id(row.shard)
    ms = 1_795_402_053_000 + number
    # Postgres, MySQL: transactions of many rows, so that their ids stay below those that the server has given.
    if engine is Engine.POSTGRES:
        source = (
            f'{{"version":"3.7.0.Final","connector":"postgresql","name":"bench.{shard}","ts_ms":{ms},"snapshot":null,'
            f'"db":"bench","sequence":"[\\"{number}\\",\\"{number}\\"]","ts_us":{ms}000,"ts_ns":{ms}000000,'
            f'"schema":"public","table":"pins","txId":{number // 4096 + 3},"lsn":{number + 1},"xmin":null,'
            '"origin":null,"origin_lsn":null}'
        )
    elif engine is Engine.MYSQL:
        source = (
            f'{{"version":"3.6.1.Final","connector":"mysql","name":"bench.{shard}","ts_ms":{ms},"snapshot":null,'
            f'"db":"bench","sequence":null,"ts_us":{ms}000,"ts_ns":{ms}000000,"table":"pins","server_id":1,'
            f'"gtid":"{SOURCE}:{number // TRANSACTION + 1}","file":"binlog.000002","pos":{number * 400 % 2**31},'
            '"row":0,"thread":null,"query":null}'
        )
    else:
        source = (
            f'{{"version":"3.5.0.Final","connector":"mariadb","name":"bench.{shard}","ts_ms":{ms},"snapshot":null,'
            f'"db":"bench","sequence":null,"ts_us":{ms}000,"ts_ns":{ms}000000,"table":"pins","server_id":1,'
            f'"gtid":"0-1-{number + 1}","file":"binlog.000002","pos":{number * 400 % 2**31},"row":0,"thread":null,'
            '"query":null}'
        )
    operation = "c" if row.version == 0 else "u"
    before = "null"
    if row.version and engine.reads_binlog:
        # Full row images; Postgres sends the old row only with REPLICA IDENTITY FULL.
        before = _after(engine, Row(row.id, row.version - 1, row.seed).values())
    value = (
        f'{{"before":{before},"after":{after},"source":{source},"transaction":null,"op":"{operation}","ts_ms":{ms},'
        f'"ts_us":{ms}498,"ts_ns":{ms}498000}}'
    )
    return f'{{"id":{row.id},"shard":"{shard}"}}'.encode(), value.encode()


def history(rows: int, events: int, seed: int) -> Iterator[Row]:
    """All versions of all rows in the order of writing: inserts, then updates of some."""
    for number in range(rows):
        yield Row(number, 0, seed)
    rng = random.Random(seed)
    versions: dict[int, int] = {}
    for _ in range(events - rows):
        number = rng.randrange(rows)
        versions[number] = versions.get(number, 0) + 1
        yield Row(number, versions[number], seed)


def shard_id(number: int) -> str:
    """The id of the shard of that number."""
    return f"{number:05d}"


def latest(rows: int, events: int, seed: int) -> Iterator[Row]:
    """All rows in their last versions."""
    updated = {row.id: row.version for row in history(rows, events, seed) if row.version}
    for number in range(rows):
        yield Row(number, updated.get(number, 0), seed)


def topology(stack: Stack, engine: Engine, name: str) -> Topology:
    """The dataset of the benchmark: a database a shard, one table `pins`."""
    address = stack.primary(engine)
    found = Dataset(
        name=name,
        engine=engine,
        tables=(Table(name="pins"),),
        clusters=("local",),
        credentials=stack.credentials(engine, name),
        topics=TopicSpec(partitions=PARTITIONS, replication=1),
    )
    shards = tuple(
        Shard(dataset=name, id=shard_id(number), leader=address, database=f"{name}_{number}")
        for number in range(SHARDS)
    )
    return Topology(datasets={name: found}, shards={name: shards}, clusters={"local": stack.cluster()})


def connect(stack: Stack, engine: Engine, database: str | None) -> Any:
    """A connection of the account that may do everything."""
    login = stack.admin(engine)
    address = stack.primary(engine)
    if engine.reads_binlog:
        return pymysql.connect(
            host=address.host,
            port=address.port,
            user=login.user,
            password=login.password,
            database=database,
            autocommit=True,
            local_infile=True,
            charset="utf8mb4",
            init_command="SET time_zone='+00:00'",
        )
    return psycopg.connect(
        host=address.host,
        port=address.port,
        user=login.user,
        password=login.password,
        dbname=database or "postgres",
        autocommit=True,
        options="-c timezone=UTC",
    )


def make_table(stack: Stack, engine: Engine, name: str, number: int, rows: Iterable[Row]) -> None:
    """The shard's database with the table `pins` of these rows, and `pins_copy` beside it."""
    database = f"{name}_{number}"
    with closing(connect(stack, engine, None)) as admin:
        admin.cursor().execute(f"CREATE DATABASE {database}")
        if engine is Engine.MYSQL:
            admin.cursor().execute("SET GLOBAL local_infile = ON")
    with closing(connect(stack, engine, database)) as connection:
        cursor = connection.cursor()
        cursor.execute(DDL[engine].format("pins"))
        _load(engine, cursor, rows)
        cursor.execute(DDL[engine].format("pins_copy"))
        cursor.execute("INSERT INTO pins_copy SELECT * FROM pins")
        if engine is Engine.POSTGRES:
            cursor.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO PUBLIC")
            cursor.execute("VACUUM ANALYZE")
        else:
            cursor.execute("ANALYZE TABLE pins, pins_copy")
            cursor.fetchall()


def _load(engine: Engine, cursor: Any, rows: Iterable[Row]) -> None:
    if engine is Engine.POSTGRES:
        with cursor.copy("COPY pins FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row.values())
        return
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".tsv") as stream:
        for row in rows:
            v = row.values()
            # ISO times without their zone: the session is in UTC.
            v[7], v[8], v[10], v[11] = str(v[7])[:-6], str(v[8])[:-6], int(v[10]), v[11].hex()
            stream.write("\t".join(map(str, v)) + "\n")
        stream.flush()
        cursor.execute(
            "LOAD DATA LOCAL INFILE %s INTO TABLE pins CHARACTER SET utf8mb4"
            " (id,user_id,board_id,title,description,link,price,created_at,updated_at,flags,active,@d,score)"
            " SET digest=UNHEX(@d)",
            (stream.name,),
        )


def update_table(stack: Stack, engine: Engine, name: str, rows: Iterable[Row]) -> None:
    """Bring rows to a later version."""
    for number in range(SHARDS):
        found = {row.id: row for row in rows if row.shard == number}
        with closing(connect(stack, engine, f"{name}_{number}")) as connection:
            cursor = connection.cursor()
            marks = ",".join(map(str, found))
            cursor.execute(f"DELETE FROM pins WHERE id IN ({marks})")
            _load(engine, cursor, found.values())


def advance(stack: Stack, engine: Engine, name: str, number: int) -> None:
    """Bring the source's position to `number` or further, as if its own writes had made the events."""
    if engine is Engine.MYSQL:
        with closing(connect(stack, engine, None)) as connection:
            cursor = connection.cursor()
            for transaction in range(1, number // TRANSACTION + 2):
                # One that was executed before is passed over.
                cursor.execute(f"SET gtid_next = '{SOURCE}:{transaction}'")
                cursor.execute("BEGIN")
                cursor.execute("COMMIT")
        return
    with closing(connect(stack, engine, f"{name}_0")) as connection:
        cursor = connection.cursor()
        if engine is Engine.POSTGRES:
            cursor.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
            if cursor.fetchone()[0] < number:
                raise RuntimeError("the server has written less WAL than there are events")
            return
        cursor.execute("SELECT @@global.gtid_binlog_pos")
        if int(cursor.fetchone()[0].rpartition("-")[2]) < number:
            cursor.execute(f"SET SESSION gtid_seq_no = {number}")
        cursor.execute("CREATE OR REPLACE TABLE advanced (id INT)")


def make_topic(stack: Stack, topic: str) -> None:
    """An empty topic."""
    admin = AdminClient({"bootstrap.servers": str(stack.kafka)})
    config = {"cleanup.policy": "compact", "min.compaction.lag.ms": str(7 * 86_400_000)}
    admin.create_topics([NewTopic(topic, PARTITIONS, 1, config=config)])[topic].result(30)


def drop(stack: Stack, engine: Engine, name: str, topic: str) -> None:
    """Remove what the benchmark made."""
    admin = AdminClient({"bootstrap.servers": str(stack.kafka)})
    admin.delete_topics([topic])[topic].result(30)
    with closing(connect(stack, engine, None)) as connection:
        for number in range(SHARDS):
            connection.cursor().execute(f"DROP DATABASE IF EXISTS {name}_{number}")


def produce(stack: Stack, engine: Engine, topic: str, rows: Iterable[tuple[int, Row]]) -> int:
    """Send the events of these rows, each with its place in the source; returns their bytes."""
    producer = Producer(
        {
            "bootstrap.servers": str(stack.kafka),
            "linger.ms": 50,
            "compression.type": "lz4",
            "queue.buffering.max.messages": 50_000,
        }
    )
    sent = 0
    for number, row in rows:
        key, value = event(engine, row, number)
        while True:
            try:
                producer.produce(topic, value, key, row.id % PARTITIONS)
                break
            except BufferError:
                producer.poll(0.1)
        sent += len(key) + len(value)
        producer.poll(0)
    if producer.flush(120):
        raise RuntimeError("the broker did not take all records")
    return sent
