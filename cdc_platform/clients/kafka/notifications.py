"""What connectors say of their snapshots: the notification topic, read from a moment on.

Debezium's sink channel writes one record a step (SinkNotificationChannel), all
connectors into one topic. Field names and types are those of 3.5 to 3.7:
InitialSnapshotNotificationService, IncrementalSnapshotNotificationService.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from cdc_platform.clients.kafka.librdkafka import bad_settings, configuration, log, translated
from cdc_platform.errors import CdcError, KafkaUnavailable

INITIAL = "Initial Snapshot"
INCREMENTAL = "Incremental Snapshot"

_BATCH = 10_000
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """One step of one snapshot.

    `snapshot` is INITIAL or INCREMENTAL; `id` is the signal's for an incremental one. `shard` is
    `<dataset>.<shard>`. `table` is Debezium's name of it (`database.table` or `schema.table`), `rows`
    what was read of it, `last_key` and `max_key` its columns joined by commas. `chunk` of `chunks`
    and `total_rows` come from Debezium 3.7 on. `status` is that of a table's end, such as SUCCEEDED.
    `at` is the record's time.
    """

    id: str
    snapshot: str
    type: str
    shard: str
    at: datetime
    table: str | None = None
    tables: tuple[str, ...] = ()
    status: str | None = None
    rows: int | None = None
    last_key: str | None = None
    max_key: str | None = None
    chunk: int | None = None
    chunks: int | None = None
    total_rows: int | None = None


class _Value(msgspec.Struct):
    id: str
    type: str
    aggregate_type: str
    additional_data: dict[str, str] | None = None


class _WithSchema(msgspec.Struct):
    payload: _Value


class Notifications:
    """Reads the notification topic: the first call from `since` on, each later one what is new.

    Not for several threads.

    Args:
        config: a librdkafka configuration; values may be references.
        topic: the notification topic.
        since: how far back the first call reads.
        timeout: seconds for each call as a whole.
    """

    def __init__(self, config: Mapping[str, str], topic: str, since: datetime, *, timeout: float = 60.0) -> None:
        self._config = dict(config)
        self._topic = topic
        self._since = since
        self._timeout = timeout
        self._servers = config.get("bootstrap.servers", "(no bootstrap.servers)")
        self._consumer: Consumer | None = None
        self._next: dict[int, int] = {}

    def read(self) -> Sequence[Notification]:
        """What is new, in the order of each partition: all of it, or as much as could be read.

        Raises:
            KafkaUnavailable: nothing could be read. The next call goes on from there.
        """
        found: list[Notification] = []
        try:
            for notification in self._read(time.monotonic() + self._timeout):
                found.append(notification)
        except KafkaException as error:
            self.close()
            if not found:
                raise translated(error, f"read {self._topic}", self._servers) from None
        except KafkaUnavailable:
            if not found:
                raise
        return found

    def close(self) -> None:
        """Close the connection; a later `read` goes on where this one was."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    def _read(self, end: float) -> Iterator[Notification]:
        consumer = self._assigned(end)
        if consumer is None:
            return
        goals = {}
        for partition in self._next:
            low, high = consumer.get_watermark_offsets(
                TopicPartition(self._topic, partition), timeout=max(0.1, end - time.monotonic())
            )
            # Retention may have removed what we have not read.
            self._next[partition] = max(self._next[partition], low)
            goals[partition] = high
        while any(self._next[partition] < goal for partition, goal in goals.items()):
            if time.monotonic() > end:
                raise KafkaUnavailable("not read to its end in time.", where=f"topic {self._topic}")
            for message in consumer.consume(num_messages=_BATCH, timeout=_POLL_SECONDS):
                found = self._take(message)
                if found is not None:
                    yield found

    def _take(self, message: Message) -> Notification | None:
        partition, offset, error = message.partition(), message.offset(), message.error()
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF and partition is not None and offset is not None:
                self._next[partition] = max(self._next[partition], offset)
                return None
            raise KafkaException(error)
        assert partition is not None and offset is not None
        self._next[partition] = offset + 1
        return decode(message.value(), datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC))

    def _assigned(self, end: float) -> Consumer | None:
        if self._consumer is not None:
            return self._consumer
        own = {
            "group.id": "cdc-platform-notifications",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 50,
        }
        try:
            consumer = Consumer(configuration(self._config, own), logger=log)
        except (KafkaException, CdcError, ValueError, TypeError) as error:
            raise bad_settings(error) from None
        self._consumer = consumer
        found = consumer.list_topics(timeout=max(0.1, end - time.monotonic())).topics.get(self._topic)
        if found is None or not found.partitions:
            self.close()
            return None
        if not self._next:
            self._next = _starts(consumer, self._topic, list(found.partitions), self._since, end)
        consumer.assign([TopicPartition(self._topic, partition, at) for partition, at in self._next.items()])
        return consumer


def _starts(consumer: Consumer, topic: str, partitions: Sequence[int], since: datetime, end: float) -> dict[int, int]:
    at = int(since.timestamp() * 1000)
    asked = [TopicPartition(topic, partition, at) for partition in partitions]
    starts = {}
    for part in consumer.offsets_for_times(asked, timeout=max(0.1, end - time.monotonic())):
        if part.offset >= 0:
            starts[part.partition] = part.offset
        else:  # nothing newer than `since` yet
            starts[part.partition] = consumer.get_watermark_offsets(part, timeout=max(0.1, end - time.monotonic()))[1]
    return starts


def decode(value: bytes | str | None, at: datetime) -> Notification | None:
    """One record's value, with or without a JSON schema around it; None for what is no snapshot notification."""
    if not value:
        return None
    try:
        found = msgspec.json.decode(value, type=_Value)
    except msgspec.ValidationError:
        try:
            found = msgspec.json.decode(value, type=_WithSchema).payload
        except msgspec.MsgspecError:
            return None
    except msgspec.DecodeError:
        return None
    data = found.additional_data or {}
    if found.aggregate_type not in (INITIAL, INCREMENTAL) or "connector_name" not in data:
        return None
    return Notification(
        id=found.id,
        snapshot=found.aggregate_type,
        type=found.type,
        shard=data["connector_name"],
        at=at,
        table=data.get("scanned_collection") or data.get("current_collection_in_progress"),
        tables=tuple(name for name in data.get("data_collections", "").split(",") if name),
        status=data.get("status"),
        rows=_number(data.get("total_rows_scanned")),
        last_key=data.get("last_processed_key"),
        max_key=data.get("maximum_key"),
        chunk=_number(data.get("chunk_index")),
        chunks=_number(data.get("total_chunks")),
        total_rows=_number(data.get("total_rows")),
    )


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else None
