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
from confluent_kafka import Consumer

from cdc_platform.clients.kafka.consumer import (
    Partition,
    assign,
    offsets_at,
    open_consumer,
    partitions_of,
    read_to_end,
    watermarks,
)
from cdc_platform.clients.kafka.librdkafka import kafka_errors, remaining
from cdc_platform.errors import KafkaUnavailable
from cdc_platform.model import bounded_json

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
        self._consumer: Consumer | None = None
        self._next: dict[Partition, int] = {}

    def read(self) -> Sequence[Notification]:
        """What is new, in the order of each partition: all of it, or as much as could be read.

        Raises:
            KafkaUnavailable: nothing could be read. The next call goes on from there.
        """
        found: list[Notification] = []
        try:
            with kafka_errors(f"read {self._topic}", self._config):
                for notification in self._read(time.monotonic() + self._timeout):
                    found.append(notification)
        except KafkaUnavailable:
            self.close()
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
        ends = {}
        for topic, partition in self._next:
            low, high = watermarks(consumer, topic, partition, end)
            # Retention may have removed what we have not read.
            self._next[topic, partition] = max(self._next[topic, partition], low)
            ends[topic, partition] = high
        for batch in read_to_end(consumer, self._next, ends, timeout=remaining(end), batch=_BATCH, poll=_POLL_SECONDS):
            for message in batch:
                found = decode(message.value(), datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC))
                if found is not None:
                    yield found

    def _assigned(self, end: float) -> Consumer | None:
        if self._consumer is not None:
            return self._consumer
        self._consumer = consumer = open_consumer(self._config, "cdc-platform-notifications")
        partitions = partitions_of(consumer, self._topic, end)
        if not partitions:
            self.close()
            return None
        if not self._next:
            starts = offsets_at(
                consumer, self._topic, dict.fromkeys(partitions, int(self._since.timestamp() * 1000)), end
            )
            for partition in partitions:
                start = starts.get(partition)
                # Nothing newer than `since` yet: from the end on.
                self._next[self._topic, partition] = (
                    watermarks(consumer, self._topic, partition, end)[1] if start is None else start
                )
        assign(consumer, self._next)
        return consumer


_plain = msgspec.json.Decoder(_Value)
_wrapped = msgspec.json.Decoder(_WithSchema)


def decode(value: bytes | str | None, at: datetime) -> Notification | None:
    """One record's value, with or without a JSON schema around it; None for what is no snapshot notification."""
    if not value:
        return None
    try:
        found = bounded_json.decode(_plain, value)
    except msgspec.ValidationError:
        try:
            found = bounded_json.decode(_wrapped, value).payload
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
