"""Signals to connectors: records in the signal topics.

A signal is a record in partition 0 of the shard's signal topic with key
`topic.prefix` (Debezium: KafkaSignalChannel). All shards of a signal topic read
it, and each takes what bears its own key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from cdc_platform.clients.kafka.librdkafka import bad_settings, configuration, log, translated
from cdc_platform.errors import CdcError, KafkaUnavailable

PAUSE = "pause-snapshot"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """One signal. `shard` is `<dataset>.<shard>`; `id` comes back in Debezium's log."""

    topic: str
    shard: str
    id: str
    type: str
    data: Mapping[str, Any]


class SignalTopics:
    """Sends signals. Safe to call from many threads; nothing is connected before the first call.

    Args:
        config: a librdkafka configuration; values may be references.
        timeout: seconds for each call as a whole.
    """

    def __init__(self, config: Mapping[str, str], *, timeout: float = 30.0) -> None:
        self._config = dict(config)
        self._timeout = timeout
        self._servers = config.get("bootstrap.servers", "(no bootstrap.servers)")
        self._producer: Producer | None = None

    def send(self, signals: Sequence[Signal]) -> None:
        """Send all; each is on the brokers when it returns.

        Raises:
            KafkaUnavailable, KafkaRejected: some may have been sent.
        """
        if not signals:
            return
        problems: list[KafkaError] = []

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                problems.append(error)

        producer = self._connected()
        try:
            for signal in signals:
                value = msgspec.json.encode({"id": signal.id, "type": signal.type, "data": signal.data})
                producer.produce(signal.topic, key=signal.shard, value=value, partition=0, on_delivery=delivered)
        except (KafkaException, BufferError) as error:
            raise translated(error, f"send {len(signals)} signals", self._servers) from None
        left = producer.flush(self._timeout)
        if problems:
            raise translated(KafkaException(problems[0]), f"send {len(signals)} signals", self._servers)
        if left:
            raise KafkaUnavailable(f"{left} signals were not taken in time.", where=f"Kafka {self._servers}")

    def _connected(self) -> Producer:
        if self._producer is None:
            own = {
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": 5,
                "delivery.timeout.ms": int(self._timeout * 1000),
            }
            try:
                self._producer = Producer(configuration(self._config, own), logger=log)
            except (KafkaException, CdcError, ValueError, TypeError) as error:
                raise bad_settings(error) from None
        return self._producer
