"""Producers: records that are on all in-sync replicas when the call returns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from cdc_platform.clients.kafka.librdkafka import kafka_errors, open_client, timed_out

Delivered = Callable[[KafkaError | None, Message], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingRecord:
    """A record for one partition of a topic. A value of None is a tombstone."""

    topic: str
    key: bytes | str
    value: bytes | None
    partition: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)


class RecordSender:
    """Sends records. Safe to call from many threads; nothing is connected before the first call.

    Args:
        config: a librdkafka configuration; values may be references.
        timeout: seconds for each call as a whole.
    """

    def __init__(self, config: Mapping[str, str], *, timeout: float) -> None:
        self._config = dict(config)
        self._timeout = timeout
        self._producer: Producer | None = None

    def send(self, records: Iterable[OutgoingRecord], what: str) -> None:
        """Send all; `what` names them in errors.

        Raises:
            KafkaUnavailable, KafkaRejected: some may have been sent.
            SecretUnresolved, SettingsError: nothing was sent.
        """
        problems: list[KafkaError] = []

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                problems.append(error)

        producer, end = self._opened(), time.monotonic() + self._timeout
        with kafka_errors(what, self._config):
            for record in records:
                produce(
                    producer,
                    record.topic,
                    record.key,
                    record.value,
                    end=end,
                    delivered=delivered,
                    partition=record.partition,
                    headers=dict(record.headers),
                )
            left = producer.flush(self._timeout)
            if problems:
                raise KafkaException(problems[0])
            if left:
                raise timed_out()

    def _opened(self) -> Producer:
        if self._producer is None:
            own = {
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": 5,
                "delivery.timeout.ms": int(self._timeout * 1000),
            }
            self._producer = open_client(Producer, self._config, own)
        return self._producer


def produce(
    producer: Producer,
    topic: str,
    key: bytes | str,
    value: bytes | None,
    *,
    end: float,
    delivered: Delivered,
    **more: object,
) -> None:
    """Queue one record, waiting until `end` for room in the queue. Raises KafkaException."""
    while True:
        try:
            producer.produce(topic, key=key, value=value, on_delivery=delivered, **more)  # type: ignore[arg-type]
            producer.poll(0)
            return
        except BufferError:
            if time.monotonic() > end:
                raise timed_out() from None
            producer.poll(0.1)
