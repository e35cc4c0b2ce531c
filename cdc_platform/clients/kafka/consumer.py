"""Consumers without a group: opened, asked for offsets, and read up to given end offsets."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from cdc_platform.clients.kafka.librdkafka import open_client, remaining, timed_out
from cdc_platform.errors import KafkaUnavailable
from cdc_platform.model.topology import EMPTY

# Topic and number of a partition.
Partition = tuple[str, int]

# Called for each record: the method itself costs a third of a call by name.
_error = Message.error


def open_consumer(config: Mapping[str, str], group: str, own: Mapping[str, Any] = EMPTY) -> Consumer:
    """A consumer that commits nothing and reports the end of partitions. Raises SecretUnresolved, SettingsError.

    `group` is only its name: partitions are assigned by hand.
    """
    return open_client(
        Consumer,
        config,
        {
            "group.id": group,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            # What is read is there already: a broker need not wait for more.
            "fetch.wait.max.ms": 50,
            # By default as much as 64 MiB a partition is read ahead.
            "queued.max.messages.kbytes": 8192,
            **own,
        },
    )


def partitions_of(consumer: Consumer, topic: str, end: float) -> list[int]:
    """The numbers of the topic's partitions; none when it does not exist or may not be seen."""
    found = consumer.list_topics(topic, timeout=remaining(end)).topics.get(topic)
    return sorted(found.partitions) if found is not None and found.error is None else []


def watermarks(consumer: Consumer, topic: str, partition: int, end: float) -> tuple[int, int]:
    """First and next offset of a partition, open transactions left out when the consumer leaves them out.

    Raises KafkaException, also on a timeout, for which confluent-kafka returns None.
    """
    found = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=remaining(end))
    if found is None:
        raise timed_out()
    low, high = found
    return int(low), int(high)


def offsets_at(consumer: Consumer, topic: str, times: Mapping[int, int], end: float) -> dict[int, int]:
    """Partition to the offset of its first record at or after a time (ms since 1970); absent when there is none."""
    asked = [TopicPartition(topic, partition, millis) for partition, millis in times.items()]
    found = consumer.offsets_for_times(asked, timeout=remaining(end)) if asked else []
    return {part.partition: part.offset for part in found if part.offset >= 0}


def assign(consumer: Consumer, offsets: Mapping[Partition, int]) -> None:
    """Read these partitions, each from its offset on."""
    consumer.assign([TopicPartition(topic, partition, offset) for (topic, partition), offset in offsets.items()])


def read_to_end(
    consumer: Consumer,
    offsets: MutableMapping[Partition, int],
    ends: Mapping[Partition, int],
    *,
    timeout: float,
    idle: bool = False,
    stop_at_eof: bool = False,
    batch: int = 5_000,
    poll: float = 0.05,
) -> Iterator[list[Message]]:
    """The records of assigned partitions from `offsets` up to `ends`, in batches; some beyond the ends may come too.

    Args:
        offsets: where each assigned partition is read from. Kept up to date before each batch is given out, commit
            markers and aborted records included, which come as no message: a later call can go on from there.
        ends: the offset at which each partition is done.
        timeout: seconds for the whole read; with `idle` for each wait without a record.
        stop_at_eof: a partition is done at its end too, though its end offset is not reached.

    Raises:
        KafkaUnavailable: the ends were not reached in time.
        KafkaException: a partition could not be read.
    """
    deadline = time.monotonic() + timeout
    left = {key for key, end in ends.items() if offsets[key] < end}
    while left:
        if time.monotonic() > deadline:
            raise _not_reached(left, offsets, ends, timeout)
        messages = consumer.consume(min(batch, sum(ends[key] - offsets[key] for key in left)), timeout=poll)
        if idle and messages:
            deadline = time.monotonic() + timeout
        failure: KafkaError | None = None
        done: set[Partition] = set()
        records = messages
        if any(map(_error, messages)):
            records = []
            for message in messages:
                error = message.error()
                if error is None:
                    records.append(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    key = (str(message.topic()), int(message.partition() or 0))
                    offsets[key] = max(offsets.get(key, 0), int(message.offset() or 0))
                    done.add(key)
                else:
                    failure = error
        if records:
            for part in consumer.position([TopicPartition(*key) for key in offsets]):
                offsets[part.topic, part.partition] = max(offsets[part.topic, part.partition], part.offset)
            yield records
        if failure is not None:
            raise KafkaException(failure)
        left = {key for key in left if offsets[key] < ends[key] and not (stop_at_eof and key in done)}


def _not_reached(
    left: set[Partition], offsets: Mapping[Partition, int], ends: Mapping[Partition, int], timeout: float
) -> KafkaUnavailable:
    topic, partition = key = min(left)
    others = f", nor were {len(left) - 1} other partitions" if len(left) > 1 else ""
    return KafkaUnavailable(
        f"partition {partition} was not read to its end within {timeout:.0f} s"
        f" (at offset {offsets[key]} of {ends[key]}){others}.",
        where=f"topic {topic}",
        cure="Check that the brokers are up and that the partition has a leader.",
    )
