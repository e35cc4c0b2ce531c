"""One real shard captured by a real connector, written to and counted by hand."""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pymysql
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from cdc_platform.clients.kafka.offset_history import OffsetTopics
from cdc_platform.clients.kafka.topic_records import TopicRecords
from cdc_platform.clients.secrets import resolve
from cdc_platform.connectors.identity import signal_topic, slot_name
from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import (
    EMPTY,
    Address,
    BootstrapMode,
    Dataset,
    Engine,
    Shard,
    Table,
    TopicSpec,
    Topology,
)
from cdc_platform.verification.duplicates.causes import Blame, Cause, blame, unsure_runs
from cdc_platform.verification.duplicates.deliveries import DeliveryReader
from cdc_platform.verification.duplicates.delivery_store import TopicDeliveries
from cdc_platform.verification.duplicates.transaction_takeovers import OffsetTakeovers
from tests.connectors.harness import Harness as ConnectorHarness
from tests.messages import document, headers_of
from tests.waiting import assert_eventually

# Slow enough that an offset is committed in a transaction's middle, and events are sent after it.
SLOW = {"max.batch.size": "250", "max.queue.size": "500", "poll.interval.ms": "100"}


@dataclass(kw_only=True)
class Harness:
    """One shard captured by a real connector."""

    field: ConnectorHarness
    dataset: Dataset
    shard: Shard
    root: Path
    written: int = 0

    @property
    def topic(self) -> str:
        return self.dataset.topic(self.dataset.tables[0])

    def write(self, rows: int) -> None:
        """Insert rows, each its own transaction, at the leader."""
        with self.admin(self.shard.database) as run:
            for _ in range(rows):
                self.written += 1
                run(f"INSERT INTO pins VALUES ({self.written}, 0)")

    @contextmanager
    def admin(self, database: str | None = None) -> Iterator[Callable[[str], object]]:
        """Runs statements as the administrator of the leader, each its own transaction."""
        with admin(self.field.stack, self.dataset.engine, self.shard.leader, database) as run:
            yield run

    def records(self) -> list[tuple[dict[str, Any], dict[str, Any], dict[str, str]]]:
        """Key, value and headers of all events, by a plain consumer."""
        consumer = Consumer(
            {
                **self.field.stack.kafka_client,
                "group.id": f"plain-{secrets.token_hex(4)}",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
            }
        )
        found = []
        try:
            waiting = set(consumer.list_topics(self.topic, timeout=30).topics[self.topic].partitions)
            consumer.assign([TopicPartition(self.topic, part, 0) for part in waiting])
            while waiting:
                message = consumer.poll(10)
                assert message is not None, f"nothing came from {waiting}"
                error = message.error()
                if error is not None:
                    assert error.code() == KafkaError._PARTITION_EOF, error
                    waiting.discard(message.partition())
                elif message.value():
                    found.append((document(message.key()), document(message.value()), headers_of(message)))
        finally:
            consumer.close()
        return found

    def copies(self) -> int:
        """An independent count: every event beyond the first of its key and transaction; each row is inserted once."""
        name = "gtid" if self.dataset.engine.reads_binlog else "txId"
        seen = Counter(
            # A row that a snapshot reads is the same row whenever it is read.
            (key["id"], value["op"] == "r" or value["source"][name], value["op"])
            for key, value, _ in self.records()
        )
        return sum(seen.values()) - len(seen)

    def ids(self) -> set[int]:
        return {key["id"] for key, _, _ in self.records()}

    def last_offsets(self) -> int:
        """How many records the topic has had."""
        consumer = Consumer({**self.field.stack.kafka_client, "group.id": "ends"})
        try:
            parts = consumer.list_topics(self.topic, timeout=30).topics[self.topic].partitions
            return sum(consumer.get_watermark_offsets(TopicPartition(self.topic, n), timeout=30)[1] for n in parts)
        finally:
            consumer.close()

    def arrived(self) -> None:
        assert_eventually(lambda: len(self.ids()) == self.written, f"{self.written} rows arrived", 180)

    def blames(self, *moved: datetime) -> list[Blame]:
        """What the platform says; `moved`: when the leader was seen to have moved."""
        settings = self.field.settings
        records = TopicRecords(settings.kafka, self.topic, traced=True)
        try:
            bounds = records.bounds()
            seen = TopicDeliveries(
                self.root, settings.platform, self.topic, bounds.topic_id, sorted(bounds.partitions), self.takeovers()
            )
            seen.extend(
                records, lambda: DeliveryReader(self.dataset.engine), dict(bounds.partitions), lambda done, total: None
            )
        finally:
            records.close()
        counts = seen.counts()
        assert unsure_runs(counts) == {}
        return blame(counts, {self.shard.id: moved})

    def takeovers(self) -> OffsetTakeovers | None:
        """As the platform asks how runs began."""
        if not self.dataset.engine.reads_binlog:
            return None
        topology = Topology(
            datasets={self.dataset.name: self.dataset},
            shards={self.dataset.name: (self.shard,)},
            clusters={"local": self.field.stack.cluster()},
        )
        return OffsetTakeovers(OffsetTopics(self.field.settings.kafka), topology, self.dataset)

    def causes(self, *moved: datetime) -> Counter[Cause]:
        found: Counter[Cause] = Counter()
        for item in self.blames(*moved):
            found[item.cause] += item.count
        return found

    def committed(self) -> object:
        offset = self.field.offset(self.shard)
        return offset.get("gtids") if self.dataset.engine.reads_binlog else offset.get("lsn_commit")

    def home(self) -> str:
        """The worker that runs the task."""
        stack, found = self.field.stack, ""

        def known() -> bool:
            nonlocal found
            try:
                answer = self.field.rest.get(f"{self.url()}/connectors/{self.shard.name}/status", timeout=10)
            except httpx.HTTPError:
                return False
            tasks = answer.json().get("tasks", []) if answer.is_success else []
            if not tasks or tasks[0]["state"] != "RUNNING":
                return False
            port = int(tasks[0]["worker_id"].rpartition(":")[2])
            found = next(name for name in stack.workers if stack.launches[name].ports["connect"] == port)
            return True

        assert_eventually(known, "a worker runs the task", 180)
        return found

    def url(self) -> str:
        """REST of a worker that runs."""
        stack = self.field.stack
        name = next(worker for worker in stack.workers if worker in stack.running())
        return f"http://127.0.0.1:{stack.launches[name].ports['connect']}"

    def sent_but_not_committed(self, rows: int) -> None:
        """Rows that have arrived and whose offsets are not committed: right after a commit, so that 5 s are left."""
        self.write(1)
        self.arrived()
        before = self.committed()
        assert_eventually(lambda: self.committed() != before, "an offset is committed", 60)
        self.write(rows)
        self.arrived()


@contextmanager
def admin(
    stack: Stack, engine: Engine, leader: Address, database: str | None = None
) -> Iterator[Callable[[str], object]]:
    """Runs statements as the administrator, each its own transaction."""
    login = stack.admin(engine)
    connection: Any
    if engine.reads_binlog:
        connection = pymysql.connect(
            host=leader.host, port=leader.port, user=login.user, password=login.password,
            database=database, autocommit=True,
        )  # fmt: skip
    else:
        connection = psycopg.connect(
            host=leader.host, port=leader.port, user=login.user, password=login.password,
            dbname=database or "postgres", autocommit=True,
        )  # fmt: skip
    with connection, connection.cursor() as cursor:
        yield cursor.execute


@contextmanager
def harnesses(
    stack: Stack,
    root: Path,
    bootstrap: BootstrapMode = BootstrapMode.LATEST,
    connector: Mapping[str, str] = EMPTY,
) -> Iterator[Callable[[Engine], Harness]]:
    """Makes captured shards on that stack. `connector`: overrides of their configuration."""
    made: list[Harness] = []

    def make(engine: Engine) -> Harness:
        fresh = Stack.load(stack.directory)
        own = f"d{secrets.token_hex(4)}"
        settings = replace(
            fresh.settings(),
            platform=own,
            heartbeat_topic=f"{own}.platform.heartbeat",
            state_topic=f"{own}.platform.state",
            cache_dir=str(root / "cache"),
            audit_dir=str(root / "audit"),
        )
        field = ConnectorHarness(stack=fresh, settings=settings)
        leader = fresh.primary(engine)
        credentials = fresh.credentials(engine, own)
        with admin(fresh, engine, leader) as run:
            run(f"CREATE DATABASE {own}")
        with admin(fresh, engine, leader, own) as run:
            run("CREATE TABLE pins (id BIGINT PRIMARY KEY, n INT)")
            if not engine.reads_binlog:
                user = str(resolve(credentials.user))
                run(f"GRANT CREATE ON DATABASE {own} TO {user}")
                run("ALTER TABLE pins REPLICA IDENTITY FULL")
                run(f"ALTER TABLE pins OWNER TO {user}")
        shard = Shard(dataset=own, id="00000", leader=leader, database=own)
        dataset = Dataset(
            name=own,
            engine=engine,
            tables=(Table(name="pins"),),
            clusters=("local",),
            credentials=credentials,
            bootstrap=bootstrap,
            connector=connector,
            topics=TopicSpec(partitions=2, replication=1),
        )
        found = Harness(field=field, dataset=dataset, shard=shard, root=root)
        made.append(found)
        field.deploy(dataset, shard)
        assert_eventually(lambda: bool(field.offset(shard)), "a first offset is committed", 120)
        return found

    try:
        yield make
    finally:
        for one in made:
            one.field.close()
            if not one.dataset.engine.reads_binlog:
                drop_slot(one, slot_name(one.field.settings, one.shard))


def ask_for_snapshot(place: Harness, name: str) -> None:
    """An incremental snapshot by signal."""
    producer = Producer(dict(place.field.stack.kafka_client))
    data = {"type": "incremental", "data-collections": [f"{place.shard.database}.pins"]}
    signal = {"id": name, "type": "execute-snapshot", "data": data}
    topic = signal_topic(place.field.settings, place.shard)
    producer.produce(topic, key=place.shard.name, value=json.dumps(signal), partition=0)
    assert producer.flush(30) == 0


def drop_slot(place: Harness, slot: str) -> None:
    """Its connector is gone: the slot would keep the server's WAL."""
    with place.admin() as run:

        def dropped() -> bool:
            run(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
                f" WHERE slot_name = '{slot}' AND NOT active"
            )
            return not run(f"SELECT 1 FROM pg_replication_slots WHERE slot_name = '{slot}'").rowcount  # type: ignore[attr-defined]

        assert_eventually(dropped, f"slot {slot} is gone", 60)


def killed_in_mid_transaction(place: Harness) -> int:
    """One transaction of 20,000 changes, whose worker is killed behind an offset in its middle; how many changes."""
    stack, changes = place.field.stack, 0
    before, home = place.last_offsets(), place.home()
    with place.admin(place.shard.database) as run:
        run("BEGIN")
        for _ in range(64):
            rows = range(place.written + 1, place.written + 301)
            run(f"INSERT INTO pins VALUES {','.join(f'({row}, 0)' for row in rows)}")
            place.written += 300
            changes += 300
            for _ in range(13):  # the same two values, over and over
                run("UPDATE pins SET n = 1 - n WHERE id = 1")
                changes += 1
        run("COMMIT")

    def halfway() -> bool:
        offset = place.field.offset(place.shard)
        inside = any(name.startswith("transaction_data_collection_order_") for name in offset)
        return inside or place.last_offsets() - before >= changes

    assert_eventually(halfway, "an offset in the middle is committed", 120)
    # A moment's events more than were committed.
    sent = place.last_offsets()
    assert_eventually(lambda: place.last_offsets() >= min(sent + 500, before + changes), "more is sent", 60)
    stack.kill(home)
    try:
        assert_eventually(lambda: place.home() != home, "another worker has the task", 180)
    finally:
        stack.start(home)
    return changes
