"""How much is in topics, and what a recent record looks like."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from cdc_platform.clients.kafka.librdkafka import bad_settings, configuration, log, translated
from cdc_platform.errors import CdcError, KafkaUnavailable
from cdc_platform.model.observed import TopicExtent

# The newest record may be a tombstone or a transaction's end: look at this many before it.
_LOOK_BACK = 20

_FIRST = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
_LAST = OffsetSpec.latest()  # type: ignore[no-untyped-call]
_NEWEST = OffsetSpec.max_timestamp()  # type: ignore[no-untyped-call]

Asked = Callable[[AdminClient, float], Mapping[Any, Any]]


class Ask(Protocol):
    """One request of an admin client: the answer or the error of each key."""

    def __call__(self, what: str, call: Asked, end: float) -> Mapping[Any, Any]: ...


def extents(ask: Ask, partitions: Mapping[str, int], end: float) -> dict[str, TopicExtent]:
    """Topic to its extent; `partitions` is topic to number of partitions."""
    first = _offsets(ask, partitions, _FIRST, end)
    last = _offsets(ask, partitions, _LAST, end)
    newest = _offsets(ask, partitions, _NEWEST, end)
    found = {}
    for topic, count in partitions.items():
        keys = [(topic, partition) for partition in range(count)]
        if any(key not in first or key not in last for key in keys):
            continue
        times = [newest[key].timestamp for key in keys if key in newest and newest[key].timestamp > 0]
        found[topic] = TopicExtent(
            begin=sum(first[key].offset for key in keys),
            end=sum(last[key].offset for key in keys),
            newest=datetime.fromtimestamp(max(times) / 1000, UTC) if times else None,
        )
    return found


def samples(
    ask: Ask, config: Mapping[str, str], partitions: Mapping[str, int], end: float, *, servers: str
) -> dict[str, bytes]:
    """Topic to the newest value near the end of its partition with the newest record."""
    newest = _offsets(ask, partitions, _NEWEST, end)
    goals: dict[str, tuple[int, int]] = {}
    best: dict[str, int] = {}
    for (topic, partition), info in newest.items():
        if info.timestamp > best.get(topic, 0):
            best[topic] = info.timestamp
            goals[topic] = (partition, info.offset)
    if not goals:
        return {}
    consumer = _consumer(config)
    try:
        return _read(consumer, goals, end)
    except KafkaException as error:
        raise translated(error, "read newest records", servers) from None
    finally:
        consumer.close()


def _offsets(ask: Ask, partitions: Mapping[str, int], spec: OffsetSpec, end: float) -> dict[tuple[str, int], Any]:
    asked = {TopicPartition(topic, number): spec for topic, count in partitions.items() for number in range(count)}
    if not asked:
        return {}
    answers = ask("list offsets", lambda client, seconds: client.list_offsets(asked, request_timeout=seconds), end)
    # A partition whose leader is just elected has no answer: its topic is left out this time.
    return {
        (key.topic, key.partition): answer for key, answer in answers.items() if not isinstance(answer, KafkaException)
    }


def _consumer(config: Mapping[str, str]) -> Consumer:
    extra = {
        "group.id": "cdc-platform-samples",
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "enable.partition.eof": True,
    }
    try:
        return Consumer(configuration(config, extra), logger=log)
    except (KafkaException, CdcError, ValueError, TypeError) as error:
        raise bad_settings(error) from None


def _read(consumer: Consumer, goals: Mapping[str, tuple[int, int]], end: float) -> dict[str, bytes]:
    consumer.assign([TopicPartition(t, part, max(0, goal - _LOOK_BACK)) for t, (part, goal) in goals.items()])
    found: dict[str, bytes] = {}
    waiting = set(goals)
    while waiting:
        if time.monotonic() > end:
            raise KafkaUnavailable(f"read newest records: {len(waiting)} topics did not answer in time.")
        for message in consumer.consume(num_messages=1000, timeout=0.2):
            topic = message.topic()
            if topic not in waiting:
                continue
            if _is_last(message, goals[topic][1]):
                waiting.discard(topic)
            value = message.value()
            if message.error() is None and isinstance(value, bytes):
                found[topic] = value
    return found


def _is_last(message: Message, goal: int) -> bool:
    error = message.error()
    if error is not None:
        if error.code() == KafkaError._PARTITION_EOF:
            return True
        raise KafkaException(error)
    offset = message.offset()
    return offset is not None and offset >= goal
