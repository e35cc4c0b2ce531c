"""Real shards under live writes, and a check who compares their tables with the topics."""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pymysql
from confluent_kafka import Consumer, KafkaError, TopicPartition

from cdc_platform.clients.platform import Platform
from cdc_platform.clients.secrets import resolve, resolve_all
from cdc_platform.connectors.identity import table_topic
from cdc_platform.connectors.leader_files import file_name
from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import Address, BootstrapMode, Dataset, Engine, Shard, Table, TopicSpec
from cdc_platform.settings import Settings
from tests.local.promotion import drop_postgres_database
from tests.messages import document
from tests.waiting import assert_eventually

TABLES = ("items", "notes")
# MySQL's and MariaDB's error number: a lock was not had in time.
LOCK_WAIT_TIMEOUT = 1205


@dataclass(kw_only=True)
class Harness:
    """One dataset of real shards in a real stack."""

    stack: Stack
    settings: Settings
    engine: Engine
    count: int
    rows: int
    bootstrap: BootstrapMode = BootstrapMode.INCREMENTAL
    overrides: Mapping[str, str] = field(default_factory=dict)
    pad: int = 100
    through: Address | None = None
    name: str = field(default_factory=lambda: f"b{secrets.token_hex(3)}")

    def __post_init__(self) -> None:
        self.dataset = Dataset(
            name=self.name,
            engine=self.engine,
            tables=tuple(Table(name=table) for table in TABLES),
            clusters=(self.stack.cluster().name,),
            credentials=self.stack.credentials(self.engine, self.name),
            topics=TopicSpec(partitions=2, replication=1),
            bootstrap=self.bootstrap,
            connector=dict(self.overrides),
        )
        self.shards = tuple(
            Shard(dataset=self.name, id=f"{n:05d}", leader=self.through or self.leader, database=f"{self.name}_{n:05d}")
            for n in range(self.count)
        )

    @property
    def leader(self) -> Address:
        return self.stack.primary(self.engine)

    def make(self) -> None:
        """Databases, tables, first rows."""
        for shard in self.shards:
            with self.admin() as run:
                run(f"CREATE DATABASE {shard.database}")
            with self.admin(shard.database) as run:
                if self.engine is Engine.POSTGRES:
                    user = str(resolve(self.dataset.credentials.user))
                    run(f"GRANT CREATE ON DATABASE {shard.database} TO {user}")
                for table in self.dataset.tables:
                    self.create(run, table.name)
                    self.fill(run, table.name, 1, self.rows)

    def create(self, run: Callable[..., Any], table: str) -> None:
        """One more table, which the dataset's user owns."""
        text = "text" if self.engine is Engine.POSTGRES else "mediumtext"
        run(f"CREATE TABLE {table} (id bigint PRIMARY KEY, v bigint NOT NULL, pad {text} NOT NULL)")
        if self.engine is Engine.POSTGRES:
            run(f"ALTER TABLE {table} REPLICA IDENTITY FULL")
            run(f"ALTER TABLE {table} OWNER TO {resolve(self.dataset.credentials.user)}")

    def fill(self, run: Callable[..., Any], table: str, first: int, last: int, v: int = 0) -> None:
        """Insert rows first..last."""
        into = f"{table} (id, v, pad)"
        if self.engine is Engine.POSTGRES:
            run(f"INSERT INTO {into} SELECT g, {v}, repeat('x', {self.pad}) FROM generate_series({first}, {last}) g")
            return
        for at in range(first, last + 1, 1000):
            ids = range(at, min(last, at + 999) + 1)
            run(f"INSERT INTO {into} VALUES " + ",".join(f"({i},{v},REPEAT('x',{self.pad}))" for i in ids))

    def put(self, platform: Platform) -> None:
        """The topology into ZooKeeper, and from there into the leader files that the agents keep."""
        platform.topology.put_cluster(self.stack.cluster())
        platform.topology.put_dataset(self.dataset)
        for shard in self.shards:
            platform.topology.put_shard(shard)
        assert_eventually(lambda: all(path.exists() for path in self._leader_files()), what="leader files")

    def _leader_files(self) -> Iterator[Path]:
        for worker in self.stack.workers:
            for shard in self.shards:
                yield self.stack.directory / "workers" / worker / "leaders" / file_name(shard.name)

    @contextmanager
    def admin(self, database: str | None = None) -> Iterator[Callable[..., list[Any]]]:
        """Runs statements as the administrator, each its own transaction."""
        login = self.stack.admin(self.engine)
        connection: Any
        if self.engine.reads_binlog:
            connection = pymysql.connect(
                host=self.leader.host,
                port=self.leader.port,
                user=login.user,
                password=login.password,
                database=database,
                autocommit=True,
            )
        else:
            connection = psycopg.connect(
                host=self.leader.host,
                port=self.leader.port,
                user=login.user,
                password=login.password,
                dbname=database or "postgres",
                autocommit=True,
            )
        try:
            with connection.cursor() as cursor:

                def run(sql: str, *params: Any) -> list[Any]:
                    cursor.execute(sql, params or None)
                    return list(cursor.fetchall()) if cursor.description else []

                yield run
        finally:
            connection.close()

    def position(self, shard: Shard) -> str:
        """Where the source's log is now, as a person would note it."""
        with self.admin(shard.database) as run:
            if self.engine is Engine.MARIADB:
                return str(run("SELECT @@gtid_binlog_pos")[0][0])
            if self.engine is Engine.MYSQL:
                return str(run("SELECT @@gtid_executed")[0][0]).replace("\n", "")
            return str(run("SELECT pg_current_wal_lsn()::text")[0][0])

    def table(self, shard: Shard, table: str) -> dict[int, int]:
        """id to v, as the source has it."""
        with self.admin(shard.database) as run:
            return {int(i): int(v) for i, v in run(f"SELECT id, v FROM {table}")}

    def clean(self, platform: Platform) -> None:
        """Topology, connectors, slots and databases away."""
        platform.topology.delete_dataset(self.name)
        connect = platform.connect(self.stack.cluster())
        for shard in self.shards:
            connect.delete(shard.name)
        for shard in self.shards:
            if self.engine is Engine.POSTGRES:
                drop_postgres_database(self.stack, shard.database)
            else:
                with self.admin() as run:
                    self._drop_binlog_database(run, shard.database)

    def _drop_binlog_database(self, run: Callable[..., list[Any]], database: str) -> None:
        """As docs/operations.md has it where a task restarted in mid-read has left its session in a transaction."""
        run("SET SESSION lock_wait_timeout = 20")
        try:
            run(f"DROP DATABASE IF EXISTS {database}")
        except pymysql.OperationalError as error:
            if error.args[0] != LOCK_WAIT_TIMEOUT:
                raise
            user = resolve(self.dataset.credentials.user)
            for (session,) in run(
                "SELECT p.id FROM information_schema.processlist p JOIN information_schema.innodb_trx t"
                " ON t.trx_mysql_thread_id = p.id WHERE p.user = %s AND p.command = 'Sleep' AND p.time > 20",
                user,
            ):
                run(f"KILL {session}")
            run(f"DROP DATABASE IF EXISTS {database}")


class Writers:
    """Changes rows of all shards until stopped: inserts, updates, deletes; a deleted key may come back."""

    def __init__(self, harness: Harness, *, pause: float = 0.002, tables: Sequence[str] = TABLES) -> None:
        self.harness = harness
        self.pause = pause
        self.tables = tables
        self.changed: dict[tuple[str, str], set[int]] = {}
        self.writes = 0
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(shard,)) for shard in harness.shards]
        self._trouble: list[BaseException] = []

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self._trouble:
            raise self._trouble[0]

    def _write(self, shard: Shard) -> None:
        dice = random.Random(shard.name)
        try:
            with self.harness.admin(shard.database) as run:
                v = 0
                while not self._stop.is_set():
                    v += 1
                    self._change(run, dice, v, shard)
                    self.writes += 1
                    time.sleep(self.pause)
        except (pymysql.Error, psycopg.Error) as error:
            self._trouble.append(error)

    def _change(self, run: Callable[..., Any], dice: random.Random, v: int, shard: Shard) -> None:
        table = dice.choice(self.tables)
        key = dice.randrange(1, int(self.harness.rows * 1.2) + 2)
        self.changed.setdefault((shard.id, table), set()).add(key)
        kind = dice.random()
        if kind < 0.2:
            run(f"DELETE FROM {table} WHERE id = {key}")
        elif kind < 0.6:
            run(f"UPDATE {table} SET v = {v} WHERE id = {key}")
        elif self.harness.engine.reads_binlog:
            run(f"INSERT INTO {table} (id, v, pad) VALUES ({key}, {v}, 'w') ON DUPLICATE KEY UPDATE v = {v}")
        else:
            run(f"INSERT INTO {table} (id, v, pad) VALUES ({key}, {v}, 'w') ON CONFLICT (id) DO UPDATE SET v = {v}")


class TopicCheck:
    """Folds topics and compares: the last value of each key, in the order of the topic."""

    def __init__(self, harness: Harness, *, since: Mapping[tuple[str, int], int] | None = None) -> None:
        self.harness = harness
        self.since = since or {}

    def ends(self) -> dict[tuple[str, int], int]:
        """Where the topics end now, by topic and partition: what a later check may begin at."""
        consumer = self._consumer()
        try:
            found = {}
            for table in TABLES:
                topic = table_topic(self.harness.dataset, self.harness.dataset.table(table))
                for part in consumer.list_topics(topic, timeout=10).topics[topic].partitions:
                    found[topic, part] = consumer.get_watermark_offsets(TopicPartition(topic, part), timeout=10)[1]
            return found
        finally:
            consumer.close()

    def _consumer(self) -> Consumer:
        return Consumer(
            {
                **resolve_all(self.harness.settings.kafka),
                "group.id": f"judge-{secrets.token_hex(4)}",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
            }
        )

    def fold(self, table: str) -> dict[str, dict[int, int | None]]:
        """Shard id to key to v; None: the last is a delete."""
        return {
            shard: {key: None if row is None else int(row["v"]) for key, row in rows.items()}
            for shard, rows in self.rows(table).items()
        }

    def rows(self, table: str) -> dict[str, dict[int, dict[str, Any] | None]]:
        """Shard id to key to the row; None: the last is a delete."""
        return {shard: {key: row for key, (row, _) in rows.items()} for shard, rows in self._read(table).items()}

    def _read(self, table: str) -> dict[str, dict[int, tuple[dict[str, Any] | None, str]]]:
        topic = table_topic(self.harness.dataset, self.harness.dataset.table(table))
        consumer = self._consumer()
        found: dict[str, dict[int, tuple[dict[str, Any] | None, str]]] = {}
        try:
            parts = list(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
            consumer.assign([TopicPartition(topic, part, self.since.get((topic, part), 0)) for part in parts])
            waiting = set(parts)
            while waiting:
                for message in consumer.consume(5000, timeout=0.5):
                    error = message.error()
                    if error is not None:
                        assert error.code() == KafkaError._PARTITION_EOF, error
                        waiting.discard(message.partition())
                        continue
                    key = document(message.key())
                    value = document(message.value())
                    if value is None:
                        continue  # the tombstone after a delete
                    after = value["after"]
                    rows = found.setdefault(key["shard"], {})
                    rows[int(key["id"])] = (after, value["op"])
        finally:
            consumer.close()
        return found

    def ops(self, table: str, shard: str) -> dict[str, int]:
        """How many keys' last event is of each kind."""
        counts: dict[str, int] = {}
        for _, op in self._read(table).get(shard, {}).values():
            counts[op] = counts.get(op, 0) + 1
        return counts

    def differences(self, *, only: Mapping[tuple[str, str], set[int]] | None = None) -> list[str]:
        """What differs between tables and topics, in words; `only` these keys by (shard, table)."""
        found: list[str] = []
        for table in TABLES:
            topic = self.fold(table)
            for shard in self.harness.shards:
                source = self.harness.table(shard, table)
                folded = topic.get(shard.id, {})
                keys = source.keys() | {key for key, v in folded.items() if v is not None}
                if only is not None:
                    keys &= only.get((shard.id, table), set())
                found += [
                    f"{shard.name} {table} {key}: source {source.get(key)}, topic {folded.get(key)}"
                    for key in sorted(keys)
                    if source.get(key) != folded.get(key)
                ]
        return found

    def assert_agrees(self, *, only: Mapping[tuple[str, str], set[int]] | None = None, seconds: float = 60) -> None:
        """Raises AssertionError unless tables and topics assert_agrees within `seconds`, the writers being still."""
        end = time.monotonic() + seconds
        while found := self.differences(only=only):
            if time.monotonic() > end:
                raise AssertionError(f"{len(found)} differences: {found[:5]}")
            time.sleep(1)
