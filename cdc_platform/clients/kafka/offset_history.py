"""What connectors' source offsets were, from the topic in which Connect keeps them.

The newest offset is Connect's to tell (`GET /connectors/NAME/offsets`); an older one is read here, as long as
compaction has left it. Connect's own key is `["<connector>",{"server":"<connector>"}]`, and its producer
partitions by murmur2 of it (KafkaOffsetBackingStore, 4.3).
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException

from cdc_platform.clients.kafka.consumer import (
    assign,
    offsets_at,
    open_consumer,
    partitions_of,
    read_to_end,
    watermarks,
)
from cdc_platform.clients.kafka.librdkafka import kafka_errors, remaining
from cdc_platform.clients.kafka.murmur2 import partition_of
from cdc_platform.connectors.worker_properties import offsets_topic
from cdc_platform.model import bounded_json
from cdc_platform.model.topology import Cluster


@dataclass(frozen=True, slots=True)
class WrittenOffset:
    """One source offset of a connector, written at that time (ms since 1970). None: it was deleted."""

    at: int
    offset: Mapping[str, Any] | None


class OffsetHistories(Protocol):
    """Source offsets of the past. Raises KafkaUnavailable, KafkaRejected."""

    def read(self, cluster: Cluster, windows: Mapping[str, tuple[int, int]]) -> Mapping[str, Sequence[WrittenOffset]]:
        """Connector to its offsets written within (from, until) in ms, in their order."""


class OffsetTopics:
    """`OffsetHistories` over Kafka. One thread at a time."""

    def __init__(self, config: Mapping[str, str], *, timeout: float = 60.0) -> None:
        self._config = dict(config)
        self._timeout = timeout

    def read(self, cluster: Cluster, windows: Mapping[str, tuple[int, int]]) -> Mapping[str, Sequence[WrittenOffset]]:
        """A topic that is not there, or that we may not read, gives nothing."""
        if not windows:
            return {}
        topic = offsets_topic(cluster)
        with kafka_errors(f"read {topic}", self._config):
            consumer = open_consumer(self._config, "cdc-platform-ledger")
            try:
                return self._read(consumer, topic, windows, time.monotonic() + self._timeout)
            except KafkaException as error:
                if error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                    return {}
                raise
            finally:
                consumer.close()

    def _read(
        self, consumer: Consumer, topic: str, windows: Mapping[str, tuple[int, int]], end: float
    ) -> Mapping[str, Sequence[WrittenOffset]]:
        count = len(partitions_of(consumer, topic, end))
        if not count:
            return {}
        wanted: dict[int, dict[bytes, str]] = defaultdict(dict)
        for name in windows:
            key = connector_key(name)
            wanted[partition_of(key, count)][key] = name
        found: dict[str, list[WrittenOffset]] = defaultdict(list)
        for partition, keys in wanted.items():
            begin = min(windows[name][0] for name in keys.values())
            until = max(windows[name][1] for name in keys.values())
            for message in _between(consumer, topic, partition, begin, until, end):
                owner = keys.get(message.key() or b"")
                at = message.timestamp()[1]
                if owner is not None and windows[owner][0] <= at <= windows[owner][1]:
                    found[owner].append(WrittenOffset(at, _decoded(message.value())))
        return found


def connector_key(name: str) -> bytes:
    """The key of a connector's source offset."""
    return msgspec.json.encode([name, {"server": name}])


def _between(consumer: Consumer, topic: str, partition: int, begin: int, until: int, end: float) -> Iterator[Any]:
    """Records of a partition with times from `begin` to `until`, or to its end."""
    start = offsets_at(consumer, topic, {partition: begin}, end).get(partition)
    if start is None:
        return
    _, high = watermarks(consumer, topic, partition, end)
    offsets = {(topic, partition): start}
    assign(consumer, offsets)
    for batch in read_to_end(consumer, offsets, {(topic, partition): high}, timeout=remaining(end)):
        for message in batch:
            # Clocks of several workers: a record that is late by a minute may have an early one behind it.
            if message.timestamp()[1] > until + 60_000:
                return
            yield message


_ANY = msgspec.json.Decoder()


def _decoded(value: bytes | None) -> Mapping[str, Any] | None:
    if value is None:
        return None
    try:
        found = bounded_json.decode(_ANY, value)
    except msgspec.DecodeError:
        return {}
    return found if isinstance(found, dict) else {}
