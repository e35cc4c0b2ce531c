"""The demo's judge: what the topics hold, by a plain consumer, and what the sources hold, by COUNT(*).

Nothing of the platform is used here, so that it cannot agree with itself.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, Message, TopicPartition

from cdc_platform.local.demo.sources import Change

# The key columns of the demo's tables, besides `shard`.
KEYS = {"pins": ("id",), "boards": ("id",), "orders": ("id",), "order_items": ("order_id", "line")}


@dataclass
class TopicCount:
    """What was read so far. `live` maps (shard, table, key) to its last revision in the topic."""

    events: Counter[str] = field(default_factory=Counter)
    distinct: set[Change] = field(default_factory=set)
    live: dict[tuple[str, str, tuple[int, ...]], int] = field(default_factory=dict)
    shards: set[str] = field(default_factory=set)

    def live_rows(self) -> Counter[str]:
        """Rows that exist according to the topics, by table."""
        return Counter(table for _, table, _ in self.live)


class Judge:
    """Reads the data topics from their beginning and keeps the count up."""

    def __init__(self, kafka: Mapping[str, str], topics: Iterable[str]) -> None:
        self.count = TopicCount()
        self._topics = tuple(topics)
        self._consumer = Consumer(
            {
                **kafka,
                "group.id": "demo-judge",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "topic.metadata.refresh.interval.ms": 1000,
            }
        )
        self._assigned: set[tuple[str, int]] = set()

    def read(self, seconds: float) -> None:
        """Read for a while, or until nothing more comes for a moment."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._assign()
            messages = self._consumer.consume(num_messages=5000, timeout=0.3) if self._assigned else []
            if not messages:
                if not self._assigned:
                    time.sleep(0.3)
                return
            for message in messages:
                if message.error() is None:
                    self._note(message)

    def close(self) -> None:
        """Leave the brokers."""
        self._consumer.close()

    def _assign(self) -> None:
        if len({topic for topic, _ in self._assigned}) == len(self._topics):
            return
        known = self._consumer.list_topics(timeout=10).topics
        fresh = [
            TopicPartition(topic, partition, 0)
            for topic in self._topics
            if topic in known
            for partition in known[topic].partitions
            if (topic, partition) not in self._assigned
        ]
        if fresh:
            self._consumer.incremental_assign(fresh)
            self._assigned |= {(part.topic, part.partition) for part in fresh}

    def _note(self, message: Message) -> None:
        topic, raw_key, raw_value = message.topic(), message.key(), message.value()
        if topic is None or raw_key is None:
            raise ValueError(f"a record without a key in {topic}")
        table = topic.rsplit(".", 1)[1]
        key_document = json.loads(raw_key)
        key = tuple(int(key_document[column]) for column in KEYS[table])
        shard = f"{topic.split('.')[1]}.{key_document['shard']}"
        self.shards.add(shard)
        row = (shard, table, key)
        if raw_value is None:
            return  # the tombstone after a delete
        event: dict[str, Any] = json.loads(raw_value)
        self.count.events[table] += 1
        if event["op"] == "d":
            self.count.distinct.add((*row, "delete", 0))
            self.count.live.pop(row, None)
        else:
            revision = int(event["after"]["revision"])
            self.count.distinct.add((*row, "write", revision))
            self.count.live[row] = revision

    @property
    def shards(self) -> set[str]:
        """The shards (`<dataset>.<shard>`) that at least one event came from."""
        return self.count.shards
