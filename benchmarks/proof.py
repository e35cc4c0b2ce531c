"""A table and its topic for the benchmarks of the proof: 13 columns, events as Debezium writes them.

The events are made from the same values as the rows, so that a verification of
them must end in `proven`: a benchmark that compared wrongly would show it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pymysql
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from cdc_platform.local.stack import Stack
from cdc_platform.topology import Dataset, Engine, Shard, Table, TopicSpec

PARTITIONS = 8
SHARD = "00000"

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

DDL = {
    Engine.MARIADB: (
        "CREATE TABLE {} (id BIGINT PRIMARY KEY, user_id BIGINT, board_id BIGINT, title VARCHAR(200), description TEXT,"
        " link VARCHAR(200), price DECIMAL(10,2), created_at DATETIME(6), updated_at TIMESTAMP(6) NULL, flags INT,"
        " active TINYINT(1), digest VARBINARY(20), score INT)"
    ),
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
    after = _after(engine, row.values())
    ms = 1_795_402_053_000 + number
    if engine is Engine.POSTGRES:
        source = (
            f'{{"version":"3.7.0.Final","connector":"postgresql","name":"bench.{SHARD}","ts_ms":{ms},"snapshot":null,'
            f'"db":"bench","sequence":"[\\"{number}\\",\\"{number}\\"]","ts_us":{ms}000,"ts_ns":{ms}000000,'
            f'"schema":"public","table":"pins","txId":{number % 2**31 + 3},"lsn":{number + 1},"xmin":null,'
            '"origin":null,"origin_lsn":null}'
        )
    else:
        source = (
            f'{{"version":"3.5.0.Final","connector":"mariadb","name":"bench.{SHARD}","ts_ms":{ms},"snapshot":null,'
            f'"db":"bench","sequence":null,"ts_us":{ms}000,"ts_ns":{ms}000000,"table":"pins","server_id":1,'
            f'"gtid":"0-1-{number + 1}","file":"binlog.000002","pos":{number * 400 % 2**31},"row":0,"thread":null,'
            '"query":null}'
        )
    operation = "c" if row.version == 0 else "u"
    value = (
        f'{{"before":null,"after":{after},"source":{source},"transaction":null,"op":"{operation}","ts_ms":{ms},'
        f'"ts_us":{ms}498,"ts_ns":{ms}498000}}'
    )
    return f'{{"id":{row.id},"shard":"{SHARD}"}}'.encode(), value.encode()


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


def dataset(stack: Stack, engine: Engine, name: str) -> tuple[Dataset, Shard]:
    """The dataset of the benchmark: one shard, one table."""
    address = stack.mariadb_primary if engine is Engine.MARIADB else stack.postgres_primary
    found = Dataset(
        name=name,
        engine=engine,
        tables=(Table(name="pins"),),
        clusters=("local",),
        credentials=stack.credentials(engine),
        topics=TopicSpec(partitions=PARTITIONS, replication=1),
    )
    return found, Shard(dataset=name, id=SHARD, leader=address, database=name)


def connect(stack: Stack, engine: Engine, database: str | None) -> Any:
    """A connection of the account that may do everything."""
    login = stack.admin(engine)
    if engine is Engine.MARIADB:
        address = stack.mariadb_primary
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
    address = stack.postgres_primary
    return psycopg.connect(
        host=address.host,
        port=address.port,
        user=login.user,
        password=login.password,
        dbname=database or "postgres",
        autocommit=True,
        options="-c timezone=UTC",
    )


def make_table(stack: Stack, engine: Engine, name: str, latest: dict[int, Row]) -> None:
    """The table `pins` with the latest versions, and `pins_copy` beside it."""
    with connect(stack, engine, None) as admin:
        admin.cursor().execute(f"CREATE DATABASE {name}")
    with connect(stack, engine, name) as connection:
        cursor = connection.cursor()
        cursor.execute(DDL[engine].format("pins"))
        if engine is Engine.POSTGRES:
            with cursor.copy("COPY pins FROM STDIN") as copy:
                for row in latest.values():
                    copy.write_row(row.values())
        else:
            _load(cursor, latest)
        cursor.execute(DDL[engine].format("pins_copy"))
        cursor.execute("INSERT INTO pins_copy SELECT * FROM pins")
        cursor.execute("ANALYZE TABLE pins" if engine is Engine.MARIADB else "VACUUM ANALYZE")
        if engine is Engine.MARIADB:
            cursor.fetchall()


def _load(cursor: Any, latest: dict[int, Row]) -> None:
    statement = f"INSERT INTO pins VALUES ({','.join(['%s'] * 13)})"
    part: list[list[Any]] = []
    for row in latest.values():
        values = row.values()
        part.append([value.replace(tzinfo=None) if isinstance(value, datetime) else value for value in values])
        if len(part) == 2000:
            cursor.executemany(statement, part)
            part = []
    if part:
        cursor.executemany(statement, part)


def update_table(stack: Stack, engine: Engine, name: str, rows: list[Row]) -> None:
    """Bring rows to a later version."""
    with connect(stack, engine, name) as connection:
        for row in rows:
            values = row.values()
            connection.cursor().execute("DELETE FROM pins WHERE id = %s", (row.id,))
            if engine is Engine.MARIADB:
                _load(connection.cursor(), {row.id: row})
            else:
                connection.cursor().execute(f"INSERT INTO pins VALUES ({','.join(['%s'] * 13)})", values)


def make_topic(stack: Stack, topic: str) -> None:
    """An empty topic."""
    admin = AdminClient({"bootstrap.servers": str(stack.kafka)})
    config = {"cleanup.policy": "compact", "min.compaction.lag.ms": str(7 * 86_400_000)}
    admin.create_topics([NewTopic(topic, PARTITIONS, 1, config=config)])[topic].result(30)


def drop(stack: Stack, engine: Engine, name: str, topic: str) -> None:
    """Remove what the benchmark made."""
    admin = AdminClient({"bootstrap.servers": str(stack.kafka)})
    admin.delete_topics([topic])[topic].result(30)
    with connect(stack, engine, None) as connection:
        connection.cursor().execute(f"DROP DATABASE {name}")


def produce(stack: Stack, topic: str, records: Iterator[tuple[int, tuple[bytes, bytes]]]) -> int:
    """Send the records (row id, key and value); returns their bytes."""
    producer = Producer(
        {
            "bootstrap.servers": str(stack.kafka),
            "linger.ms": 50,
            "compression.type": "lz4",
            "queue.buffering.max.messages": 200_000,
        }
    )
    sent = 0
    for number, (key, value) in records:
        while True:
            try:
                producer.produce(topic, value, key, number % PARTITIONS)
                break
            except BufferError:
                producer.poll(0.1)
        sent += len(key) + len(value)
        if number % 1000 == 0:
            producer.poll(0)
    if producer.flush(120):
        raise RuntimeError("the broker did not take all records")
    return sent
