"""The state topic's log in memory: what `StateTopic` sends to a broker, byte for byte, and reads back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

from confluent_kafka import KafkaError, Message, TopicPartition

from cdc_platform.clients.kafka.state_topic import StateTopic
from cdc_platform.model.observed import ObservedTopic

TOPIC = "cdc.platform.state"

Records = list[tuple[bytes, bytes | None]]


def _message(at: int, record: tuple[bytes, bytes | None], problem: KafkaError | None = None) -> Message:
    return Message(topic=TOPIC, partition=0, offset=at, key=record[0], value=record[1], error=problem)


class _Admin:
    def __init__(self, *_: Any) -> None:
        pass

    def topics(self, names: list[str]) -> Mapping[str, ObservedTopic]:
        return {
            name: ObservedTopic(name=name, partitions=1, replication=1, config={"cleanup.policy": "compact"})
            for name in names
        }


class _Consumer:
    def __init__(self, records: Records) -> None:
        self._records, self._next = records, 0

    def assign(self, partitions: object) -> None:
        pass

    def get_watermark_offsets(self, partition: object, timeout: float) -> tuple[int, int]:
        return 0, len(self._records)

    def consume(self, count: int, timeout: float) -> list[Message]:
        found = [_message(at, self._records[at]) for at in range(self._next, len(self._records))]
        self._next = len(self._records)
        return [*found, _message(self._next, (b"", None), KafkaError(KafkaError._PARTITION_EOF))]

    def position(self, partitions: object) -> list[TopicPartition]:
        return [TopicPartition(TOPIC, 0, self._next)]

    def close(self) -> None:
        pass


class _Producer:
    """Records are in the log once their transaction is committed."""

    def __init__(self, records: Records) -> None:
        self._records, self._open = records, []  # type: tuple[Records, Records]

    def init_transactions(self, timeout: float) -> None:
        pass

    def begin_transaction(self) -> None:
        self._open = []

    def produce(self, topic: str, key: bytes, value: bytes | None, on_delivery: Callable[..., None]) -> None:
        at = len(self._records) + len(self._open)
        self._open.append((key, value))
        on_delivery(None, _message(at, (key, value)))

    def poll(self, timeout: float) -> None:
        pass

    def flush(self, timeout: float) -> None:
        pass

    def commit_transaction(self, timeout: float) -> None:
        self._records += self._open


@contextmanager
def state_topic(records: Records) -> Iterator[StateTopic]:
    """The real store on a log of these records; what it writes is appended to them."""
    package = "cdc_platform.clients.kafka"
    with (
        mock.patch(f"{package}.state_topic.KafkaAdmin", _Admin),
        mock.patch(f"{package}.consumer.Consumer", lambda *_, **__: _Consumer(records)),
        mock.patch(f"{package}.state_topic.Producer", lambda *_, **__: _Producer(records)),
    ):
        yield StateTopic({"bootstrap.servers": "memory:1"}, TOPIC)
