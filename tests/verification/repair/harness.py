"""A bootstrapped dataset of real shards, and what a test does to it."""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from threading import Event, Thread
from typing import Any

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from cdc_platform.clients.platform import Platform
from cdc_platform.clients.secrets import resolve_all
from cdc_platform.verification.audit_frame import AuditFrame
from cdc_platform.verification.proof.completeness import plan_verification, verify_shards
from cdc_platform.verification.proof.verdicts import ShardVerdict
from cdc_platform.verification.repair.reemit import RepairPorts
from tests.messages import document, headers_of
from tests.snapshots.harness import Harness as SnapshotHarness

SHARDS, ROWS = 5, 400


class Harness:
    """A bootstrapped dataset, and what a test does to it."""

    def __init__(self, world: SnapshotHarness, outside: RepairPorts) -> None:
        self.world, self.outside = world, outside
        self.runs = 0

    @property
    def platform(self) -> Platform:
        return self.outside.proof.platform

    @property
    def topic(self) -> str:
        return self.world.dataset.topic(self.world.dataset.table("items"))

    def verify(self, run_id: str = "") -> dict[str, ShardVerdict]:
        """As the job does: verdicts go into the audit frame."""
        self.runs += 1
        topology = self.platform.topology.load()
        found: list[ShardVerdict] = []
        for part in plan_verification(topology, self.world.name, "items"):
            found += verify_shards(self.outside.proof, topology, part, run_id=run_id or f"v{self.runs}")
        AuditFrame(self.platform.settings.audit_dir).write(found)
        return {verdict.shard: verdict for verdict in found}

    def records(self) -> list[tuple[int, bytes, dict[str, Any] | None]]:
        """Partition, key and value of all records."""
        return [(partition, key, value) for partition, key, value, _ in self.traced()]

    def traced(self) -> list[tuple[int, bytes, dict[str, Any] | None, dict[str, str]]]:
        """Partition, key, value and headers of all records."""
        consumer = Consumer(
            {
                **resolve_all(self.world.settings.kafka),
                "group.id": f"plain-{secrets.token_hex(4)}",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
            }
        )
        found = []
        try:
            waiting = set(consumer.list_topics(self.topic, timeout=30).topics[self.topic].partitions)
            consumer.assign([TopicPartition(self.topic, part, 0) for part in waiting])
            while waiting:
                message = consumer.poll(30)
                assert message is not None, f"nothing came from {waiting}"
                error = message.error()
                if error is not None:
                    assert error.code() == KafkaError._PARTITION_EOF, error
                    waiting.discard(message.partition())
                else:
                    key, value = bytes(message.key() or b""), document(message.value())
                    found.append((message.partition() or 0, key, value, headers_of(message)))
        finally:
            consumer.close()
        return found

    def take_away(self, wanted: dict[str, set[int]]) -> None:
        """Rows leave the topic: a stranger's tombstones, as a bug or a wrong delete would write them."""
        producer = Producer(resolve_all(self.world.settings.kafka))
        keys = {}
        for partition, key, _ in self.records():
            document = json.loads(key)
            if document["id"] in wanted.get(document["shard"], ()):
                keys[key] = partition
        assert len(keys) == sum(map(len, wanted.values()))
        for key, partition in keys.items():
            producer.produce(self.topic, key=key, value=None, partition=partition)
        assert producer.flush(60) == 0

    def put_in(self, shard: str, ids: Sequence[int]) -> dict[bytes, int]:
        """Rows that only the topic has, as a stray producer would write them; key to partition."""
        producer = Producer(resolve_all(self.world.settings.kafka))
        partition, key, value = next(
            found for found in self.records() if found[2] and json.loads(found[1])["shard"] == shard
        )
        assert value is not None
        own = {}
        for number in ids:
            # The order of the key's fields, and no spaces: as Connect writes them.
            fresh = json.dumps(json.loads(key) | {"id": number}, separators=(",", ":")).encode()
            row = value | {"after": value["after"] | {"id": number}}
            producer.produce(self.topic, key=fresh, value=json.dumps(row).encode(), partition=partition)
            own[fresh] = partition
        assert producer.flush(60) == 0
        return own

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Writes to the other table of each shard, as on a shard in use: positions go on, and snapshots with them."""
        stop = Event()

        def write() -> None:
            with ExitStack() as closing:
                runs = [closing.enter_context(self.world.admin(shard.database)) for shard in self.world.shards]
                while not stop.wait(0.5):
                    for run in runs:
                        run("UPDATE notes SET v = v + 1 WHERE id = 1")

        thread = Thread(target=write)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def read_by_snapshots(self) -> Counter[tuple[str, int]]:
        """(shard, id) of rows that incremental snapshots read."""
        return Counter(
            (json.loads(key)["shard"], json.loads(key)["id"])
            for _, key, value in self.records()
            if value and value["op"] == "r" and value["source"]["snapshot"] == "incremental"
        )


MakeHarness = Callable[..., Harness]


def lost() -> dict[str, set[int]]:
    """37 rows in 5 shards."""
    return {f"{n:05d}": set(range(10, 10 + size)) for n, size in enumerate((7, 7, 7, 8, 8))}
