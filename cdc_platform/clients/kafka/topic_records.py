"""Records of one topic as they stand in its partitions: ranges in bulk, single ones by offset."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from cdc_platform.clients.kafka.consumer import assign, open_consumer, read_to_end, watermarks
from cdc_platform.clients.kafka.librdkafka import kafka_errors, open_client, servers_of, timed_out
from cdc_platform.errors import NotFound

# Records a call: enough that the call itself costs nothing, few enough to stay in the processor's cache.
_BATCH = 1_000

_LEADERLESS = {KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE}
_MISSING = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}


@dataclass(frozen=True, slots=True)
class Batch:
    """Records of one partition in the order of their offsets. A value of None is a tombstone.

    `headers` and `times` (ms since 1970) are there only when the reader was made to keep them.
    """

    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    offsets: Sequence[int]
    headers: Sequence[Sequence[tuple[str, bytes]]] = ()
    times: Sequence[int] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicBounds:
    """A topic at one moment: its id (a re-made topic has another) and, by partition, first and next offset."""

    topic_id: str
    partitions: Mapping[int, tuple[int, int]]


class Records(Protocol):
    """One topic's records. Raises KafkaUnavailable, KafkaRejected and NotFound; every call has a deadline."""

    def bounds(self) -> TopicBounds:
        """First and next offset of each partition, transactions that are still open left out. Raises NotFound."""

    def read(self, partition: int, begin: int, end: int) -> Iterator[Batch]:
        """The records from `begin` up to, not with, `end`.

        Raises KafkaUnavailable when nothing comes for as long as the deadline.
        """

    def fetch(self, partition: int, offsets: Sequence[int]) -> Mapping[int, tuple[bytes | None, bytes | None]]:
        """Offset to key and value, for those that still exist."""

    def close(self) -> None:
        """Close the connections."""


class TopicRecords:
    """`Records` of one topic on a Kafka cluster. One thread at a time.

    `traced`: headers and times are kept, at some 2 us a record.
    """

    def __init__(self, config: Mapping[str, str], topic: str, *, timeout: float = 30.0, traced: bool = False) -> None:
        self._traced = traced
        self._config = dict(config)
        self._topic = topic
        self._timeout = timeout
        self._held: Consumer | None = None

    def bounds(self) -> TopicBounds:
        """First and next offset of each partition. Raises NotFound."""
        with self._errors(f"describing {self._topic}"):
            topic_id, partitions = self._described()
        with self._errors(f"asking for the end of {self._topic}"):
            return TopicBounds(topic_id=topic_id, partitions={number: self._ends(number) for number in partitions})

    def read(self, partition: int, begin: int, end: int) -> Iterator[Batch]:
        """The records from `begin` up to, not with, `end`."""
        if begin >= end:
            return
        consumer, key = self._consumer(), (self._topic, partition)
        offsets = {key: begin}
        with self._errors(f"reading {self._topic}"):
            assign(consumer, offsets)
            try:
                for messages in read_to_end(
                    consumer, offsets, {key: end}, timeout=self._timeout, idle=True, batch=_BATCH, poll=0.5
                ):
                    batch = _batch(messages, end, self._traced)
                    if batch.offsets:
                        yield batch
            finally:
                consumer.unassign()

    def fetch(self, partition: int, offsets: Sequence[int]) -> Mapping[int, tuple[bytes | None, bytes | None]]:
        """Offset to key and value, for those that still exist."""
        return {offset: (key, value) for key, value, offset in picked(self, partition, offsets)}

    def close(self) -> None:
        """Close the connections."""
        if self._held is not None:
            held, self._held = self._held, None
            held.close()

    def _ends(self, partition: int) -> tuple[int, int]:
        end = time.monotonic() + self._timeout
        while True:
            try:
                return watermarks(self._consumer(), self._topic, partition, end)
            except KafkaException as error:
                # A partition that is new, or whose leader has just changed, has one in a moment.
                if error.args[0].code() not in _LEADERLESS or time.monotonic() > end:
                    raise
                time.sleep(0.2)

    def _described(self) -> tuple[str, list[int]]:
        admin = open_client(AdminClient, self._config)
        future = admin.describe_topics(TopicCollection([self._topic]), request_timeout=self._timeout)[self._topic]
        description = future.result(timeout=self._timeout)
        return str(description.topic_id), sorted(part.id for part in description.partitions)

    def _consumer(self) -> Consumer:
        if self._held is None:
            own = {
                "enable.auto.offset.store": False,
                "isolation.level": "read_committed",
                "fetch.message.max.bytes": 1_048_576,
                # By default a full queue is looked at again a second later.
                "fetch.queue.backoff.ms": 5,
                # A fetch that waits for more holds up the next partition's, for one broker is asked once at a time.
                "fetch.wait.max.ms": 10,
                "socket.timeout.ms": int(self._timeout * 1000),
            }
            self._held = open_consumer(self._config, "cdc-platform-verify", own)
        return self._held

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Raises NotFound when the topic is gone, else what `kafka_errors` does."""
        with kafka_errors(what, self._config):
            try:
                yield
            except KafkaException as error:
                if error.args[0].code() in _MISSING:
                    raise NotFound(
                        f"the topic {self._topic} does not exist.",
                        where=servers_of(self._config),
                        cure="`cdc-platform apply` makes it.",
                    ) from error
                raise
            except TimeoutError:
                raise timed_out() from None


def _batch(messages: Sequence[Any], end: int, traced: bool) -> Batch:
    """The records below `end`."""
    if messages[-1].offset() >= end:
        messages = [message for message in messages if message.offset() < end]
    return _taken(messages, traced)


def _taken(messages: Sequence[Any], traced: bool) -> Batch:
    return Batch(
        [message.key() for message in messages],
        [message.value() for message in messages],
        [message.offset() for message in messages],
        [message.headers() or () for message in messages] if traced else (),
        [message.timestamp()[1] for message in messages] if traced else (),
    )


def picked(
    records: Records, partition: int, offsets: Iterable[int]
) -> Iterator[tuple[bytes | None, bytes | None, int]]:
    """Key, value and offset of these records, those that still exist, in the order of their offsets."""
    wanted = set(offsets)
    for begin, end in _ranges(sorted(wanted)):
        for batch in records.read(partition, begin, end):
            for record in zip(batch.keys, batch.values, batch.offsets, strict=True):
                if record[2] in wanted:
                    yield record


def _ranges(offsets: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Neighbouring offsets in one read: a gap of this many records costs less than a new fetch."""
    begin = last = None
    for offset in offsets:
        if begin is None or last is None:
            begin = offset
        elif offset - last > 2_000:
            yield begin, last + 1
            begin = offset
        last = offset
    if begin is not None and last is not None:
        yield begin, last + 1
