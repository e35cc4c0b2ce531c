"""A plain consumer of the data topic: when events arrived, and in the end which ones."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, TopicPartition

from tests.faults.writers import Change


def change_of(key: bytes | None, value: bytes | None) -> Change | None:
    """The change that an event tells of; None for a tombstone."""
    if not key or not value:
        return None
    document = json.loads(value)
    row = document["after"] or document["before"]
    return Change(json.loads(key)["shard"], int(row["id"]), document["op"], int(row["v"]))


class Tap:
    """Follows a topic in a thread; `arrived` holds the first arrival of each change (monotonic)."""

    def __init__(self, kafka: Mapping[str, str], topic: str) -> None:
        self.arrived: dict[Change, float] = {}
        self._kafka, self._topic = kafka, topic
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._trouble: list[BaseException] = []

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(30)
        if self._trouble:
            raise self._trouble[0]

    def _follow(self) -> None:
        consumer = _consumer(self._kafka, eof=False)
        try:
            consumer.assign([TopicPartition(self._topic, number, 0) for number in _partitions(consumer, self._topic)])
            while not self._stop.is_set():
                now = None
                for message in consumer.consume(2000, 0.1):
                    now = now or time.monotonic()
                    # Errors here are those of a broker that is away: librdkafka goes on by itself.
                    if message.error() is None and (change := change_of(message.key(), message.value())):
                        self.arrived.setdefault(change, now)
        except BaseException as error:  # noqa: BLE001 (told by stop)
            self._trouble.append(error)
        finally:
            consumer.close()


def read(kafka: Mapping[str, str], topic: str) -> Counter[Change]:
    """How many events of each change the topic holds, read from its start."""
    consumer = _consumer(kafka, eof=True)
    found: Counter[Change] = Counter()
    try:
        waiting = _partitions(consumer, topic)
        consumer.assign([TopicPartition(topic, number, 0) for number in waiting])
        end = time.monotonic() + 120
        while waiting:
            assert time.monotonic() < end, f"{topic} was not read to its end"
            for message in consumer.consume(5000, 0.5):
                error = message.error()
                if error is None:
                    if change := change_of(message.key(), message.value()):
                        found[change] += 1
                elif error.code() == KafkaError._PARTITION_EOF:
                    waiting.discard(message.partition())
    finally:
        consumer.close()
    return found


def _consumer(kafka: Mapping[str, str], *, eof: bool) -> Any:
    return Consumer(
        {
            **kafka,
            "group.id": f"plain-{secrets.token_hex(4)}",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": eof,
            "reconnect.backoff.max.ms": 500,
            "log_level": 0,
        }
    )


def _partitions(consumer: Any, topic: str) -> set[int]:
    return set(consumer.list_topics(topic, timeout=30).topics[topic].partitions)
