"""Records of one topic as they stand in its partitions: ranges in bulk, single ones by offset."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient

from cdc_platform.clients.kafka.librdkafka import bad_settings, configuration, log, translated
from cdc_platform.errors import CdcError, KafkaUnavailable, NotFound

# Records a call: enough that the call itself costs nothing, few enough to stay in the processor's cache.
_BATCH = 1_000

_LEADERLESS = {KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE}

T = TypeVar("T")


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
        self._servers = config.get("bootstrap.servers", "(no bootstrap.servers)")
        self._held: Consumer | None = None

    def bounds(self) -> TopicBounds:
        """First and next offset of each partition. Raises NotFound."""
        topic_id, partitions = self._call(f"describing {self._topic}", self._described)
        found: dict[int, tuple[int, int]] = {}
        for partition in partitions:
            found[partition] = self._call(f"asking for the end of {self._topic}", partial(self._ends, partition))
        return TopicBounds(topic_id=topic_id, partitions=found)

    def read(self, partition: int, begin: int, end: int) -> Iterator[Batch]:
        """The records from `begin` up to, not with, `end`."""
        if begin >= end:
            return
        consumer = self._consumer()
        place = TopicPartition(self._topic, partition, begin)
        self._call(f"reading {self._topic}", lambda: consumer.assign([place]))
        try:
            at, quiet = begin, time.monotonic()
            while at < end:
                messages = self._call(
                    f"reading {self._topic}", partial(consumer.consume, min(_BATCH, end - at), timeout=0.5)
                )
                batch, at = self._call(f"reading {self._topic}", partial(_batch, messages, at, end, self._traced))
                if messages:
                    quiet = time.monotonic()
                elif time.monotonic() - quiet > self._timeout:
                    raise KafkaUnavailable(
                        f"partition {partition} of {self._topic} gave nothing for {self._timeout:.0f} s"
                        f" between the offsets {at} and {end}.",
                        where=self._servers,
                        cure="See that the partition has a leader.",
                    )
                if batch.offsets:
                    yield batch
        finally:
            consumer.unassign()

    def fetch(self, partition: int, offsets: Sequence[int]) -> Mapping[int, tuple[bytes | None, bytes | None]]:
        """Offset to key and value, for those that still exist."""
        found: dict[int, tuple[bytes | None, bytes | None]] = {}
        for begin, end in _ranges(sorted(set(offsets))):
            wanted = set(offsets)
            for batch in self.read(partition, begin, end):
                for key, value, offset in zip(batch.keys, batch.values, batch.offsets, strict=True):
                    if offset in wanted:
                        found[offset] = (key, value)
        return found

    def close(self) -> None:
        """Close the connections."""
        if self._held is not None:
            held, self._held = self._held, None
            held.close()

    def _ends(self, partition: int) -> tuple[int, int]:
        place, end = TopicPartition(self._topic, partition), time.monotonic() + self._timeout
        while True:
            try:
                low, high = self._consumer().get_watermark_offsets(place, timeout=self._timeout)
                return int(low), int(high)
            except KafkaException as error:
                # A partition that is new, or whose leader has just changed, has one in a moment.
                if error.args[0].code() not in _LEADERLESS or time.monotonic() > end:
                    raise
                time.sleep(0.2)

    def _described(self) -> tuple[str, list[int]]:
        admin = AdminClient(configuration(self._config, {}), logger=log)
        future = admin.describe_topics(TopicCollection([self._topic]), request_timeout=self._timeout)[self._topic]
        description = future.result(timeout=self._timeout)
        return str(description.topic_id), sorted(part.id for part in description.partitions)

    def _consumer(self) -> Consumer:
        if self._held is None:
            extra: dict[str, Any] = {
                "group.id": "cdc-platform-verify",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                # Bounds what waits in the client; the default is as much as 64 MiB a partition.
                "queued.max.messages.kbytes": 8_192,
                "fetch.message.max.bytes": 1_048_576,
                # By default a full queue is looked at again a second later.
                "fetch.queue.backoff.ms": 5,
                # What is read is there already. A fetch that waits for more (500 ms by default) holds up the
                # next partition's, for one broker is asked once at a time.
                "fetch.wait.max.ms": 10,
                "socket.timeout.ms": int(self._timeout * 1000),
            }
            try:
                self._held = Consumer(configuration(self._config, extra), logger=log)
            except (KafkaException, CdcError, ValueError, TypeError) as error:
                raise bad_settings(error) from None
        return self._held

    def _call(self, what: str, call: Callable[[], T]) -> T:
        try:
            return call()
        except KafkaException as error:
            code = error.args[0].code() if error.args and isinstance(error.args[0], KafkaError) else None
            if code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION):
                raise NotFound(
                    f"the topic {self._topic} does not exist.",
                    where=self._servers,
                    cure="`cdc-platform apply` makes it.",
                ) from error
            raise translated(error, what, self._servers) from error
        except TimeoutError as error:
            raise translated(error, what, self._servers) from error


def _batch(messages: Sequence[Any], at: int, end: int, traced: bool) -> tuple[Batch, int]:
    """The records below `end`, and the offset to go on from."""
    if messages:
        batch, last = _taken(messages, traced), messages[-1].offset()
        # An error has no key, and seldom has a record none.
        if last < end and (None not in batch.keys or all(message.error() is None for message in messages)):
            return batch, last + 1
    chosen = []
    for message in messages:
        error = message.error()
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF:
                at = max(at, int(message.offset()))
                continue
            raise KafkaException(error)
        at = max(at, message.offset() + 1)
        if message.offset() < end:
            chosen.append(message)
    return _taken(chosen, traced), at


def _taken(messages: Sequence[Any], traced: bool) -> Batch:
    return Batch(
        [message.key() for message in messages],
        [message.value() for message in messages],
        [message.offset() for message in messages],
        [message.headers() or () for message in messages] if traced else (),
        [message.timestamp()[1] for message in messages] if traced else (),
    )


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
