"""What connectors' source offsets were, from the topic in which Connect keeps them.

The newest offset is Connect's to tell (`GET /connectors/NAME/offsets`); an older one is read here, as long as
compaction has left it. Connect's own key is `["<connector>",{"server":"<connector>"}]`, and its producer
partitions by murmur2 of it (KafkaOffsetBackingStore, 4.3).
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from kafka.partitioner.default import murmur2

from cdc_platform.clients.kafka.librdkafka import bad_settings, configuration, log, translated
from cdc_platform.connectors.worker_properties import offsets_topic
from cdc_platform.errors import CdcError, KafkaUnavailable
from cdc_platform.model.topology import Cluster

_BATCH = 5_000
_POLL_SECONDS = 0.5


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
        self._servers = config.get("bootstrap.servers", "(no bootstrap.servers)")

    def read(self, cluster: Cluster, windows: Mapping[str, tuple[int, int]]) -> Mapping[str, Sequence[WrittenOffset]]:
        """A topic that is not there, or that we may not read, gives nothing."""
        if not windows:
            return {}
        topic = offsets_topic(cluster)
        try:
            consumer = self._consumer()
            try:
                return self._read(consumer, topic, windows, time.monotonic() + self._timeout)
            finally:
                consumer.close()
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                return {}
            raise translated(error, f"read {topic}", self._servers) from None

    def _read(
        self, consumer: Consumer, topic: str, windows: Mapping[str, tuple[int, int]], end: float
    ) -> Mapping[str, Sequence[WrittenOffset]]:
        metadata = consumer.list_topics(topic, timeout=max(0.1, end - time.monotonic())).topics.get(topic)
        if metadata is None or metadata.error is not None or not metadata.partitions:
            return {}
        count = len(metadata.partitions)
        wanted: dict[int, dict[bytes, str]] = defaultdict(dict)
        for name in windows:
            key = connector_key(name)
            wanted[(murmur2(key) & 0x7FFFFFFF) % count][key] = name
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

    def _consumer(self) -> Consumer:
        own = {
            "group.id": "cdc-platform-ledger",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 50,
            "queued.max.messages.kbytes": 8192,
        }
        try:
            return Consumer(configuration(self._config, own), logger=log)
        except (KafkaException, CdcError, ValueError, TypeError) as error:
            raise bad_settings(error) from None


def connector_key(name: str) -> bytes:
    """The key of a connector's source offset."""
    return msgspec.json.encode([name, {"server": name}])


def _between(consumer: Consumer, topic: str, partition: int, begin: int, until: int, end: float) -> Any:
    """Records of a partition with times from `begin` to `until`, or to its end."""
    left = max(0.1, end - time.monotonic())
    (start,) = consumer.offsets_for_times([TopicPartition(topic, partition, begin)], timeout=left)
    if start.offset < 0:
        return
    _, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=left)
    consumer.assign([TopicPartition(topic, partition, start.offset)])
    at = start.offset
    while at < high:
        if time.monotonic() > end:
            raise KafkaUnavailable("not read to its end in time.", where=f"topic {topic}")
        for message in consumer.consume(_BATCH, timeout=_POLL_SECONDS):
            error = message.error()
            if error is not None and error.code() == KafkaError._PARTITION_EOF:
                at = max(at, int(message.offset() or 0))
                continue
            if error is not None:
                raise KafkaException(error)
            at = max(at, int(message.offset() or 0) + 1)
            # Clocks of several workers: a record that is late by a minute may have an early one behind it.
            if message.timestamp()[1] > until + 60_000:
                return
            yield message


def _decoded(value: bytes | None) -> Mapping[str, Any] | None:
    if value is None:
        return None
    found = msgspec.json.decode(value)
    return found if isinstance(found, dict) else {}
