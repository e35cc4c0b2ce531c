"""How much is in topics, and what a recent record looks like."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from cdc_platform.clients.kafka.consumer import assign, open_consumer, read_to_end
from cdc_platform.clients.kafka.librdkafka import kafka_errors, remaining
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


def samples(ask: Ask, config: Mapping[str, str], partitions: Mapping[str, int], end: float) -> dict[str, bytes]:
    """Topic to the newest value near the end of its partition with the newest record."""
    newest = _offsets(ask, partitions, _NEWEST, end)
    last: dict[str, tuple[int, int, int]] = {}
    for (topic, partition), info in newest.items():
        if info.timestamp > 0:
            last[topic] = max(last.get(topic, (0, 0, 0)), (info.timestamp, partition, info.offset))
    if not last:
        return {}
    offsets = {(topic, partition): max(0, offset - _LOOK_BACK) for topic, (_, partition, offset) in last.items()}
    ends = {(topic, partition): offset + 1 for topic, (_, partition, offset) in last.items()}
    found: dict[str, bytes] = {}
    with kafka_errors("read newest records", config):
        consumer = open_consumer(config, "cdc-platform-samples")
        try:
            assign(consumer, offsets)
            # In an open transaction, the newest record is behind the end that we may read.
            for batch in read_to_end(consumer, offsets, ends, timeout=remaining(end), stop_at_eof=True):
                for message in batch:
                    topic, value = str(message.topic()), message.value()
                    # What came after the newest was asked for may be beyond it.
                    is_asked = int(message.offset() or 0) < ends[topic, int(message.partition() or 0)]
                    if isinstance(value, bytes) and is_asked:
                        found[topic] = value
        finally:
            consumer.close()
    return found


def _offsets(ask: Ask, partitions: Mapping[str, int], spec: OffsetSpec, end: float) -> dict[tuple[str, int], Any]:
    asked = {TopicPartition(topic, number): spec for topic, count in partitions.items() for number in range(count)}
    if not asked:
        return {}
    answers = ask("list offsets", lambda client, seconds: client.list_offsets(asked, request_timeout=seconds), end)
    # A partition whose leader is just elected has no answer: its topic is left out this time.
    return {
        (key.topic, key.partition): answer for key, answer in answers.items() if not isinstance(answer, KafkaException)
    }
