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

from cdc_platform.clients.kafka.producer import OutgoingRecord, RecordSender

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
        self._sender = RecordSender(config, timeout=timeout)

    def send(self, signals: Sequence[Signal]) -> None:
        """Send all; each is on the brokers when it returns.

        Raises:
            KafkaUnavailable, KafkaRejected: some may have been sent.
        """
        if signals:
            self._sender.send(map(_record, signals), f"send {len(signals)} signals")


def _record(signal: Signal) -> OutgoingRecord:
    value = msgspec.json.encode({"id": signal.id, "type": signal.type, "data": signal.data})
    return OutgoingRecord(topic=signal.topic, key=signal.shard, value=value)
