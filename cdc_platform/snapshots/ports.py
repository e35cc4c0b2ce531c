"""The outside systems that a snapshot run talks to, beyond those of a pass."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cdc_platform.clients.kafka.notifications import Notification
from cdc_platform.clients.kafka.signals import Signal
from cdc_platform.clients.platform import Platform
from cdc_platform.clients.protocols import StateStore
from cdc_platform.clients.sources.logs import SourceLogs


class Signals(Protocol):
    """Signals to connectors. Raises KafkaUnavailable and KafkaRejected."""

    def send(self, signals: Sequence[Signal]) -> None:
        """Send all."""


class NotificationReader(Protocol):
    """The notification topic, read in steps."""

    def read(self) -> Sequence[Notification]:
        """What is new since the last call. Raises KafkaUnavailable."""

    def close(self) -> None:
        """Close the connection."""


class Histories(Protocol):
    """Schema history topics of binlog connectors.

    Cleared when a connector starts from scratch: records at later positions than the new start would be applied to
    the wrong events. Emptied, not deleted: Debezium takes an empty topic for none (KafkaSchemaHistory.exists).
    """

    def clear_topics(self, names: Collection[str]) -> None:
        """Remove all records of these topics. Raises KafkaUnavailable and KafkaRejected."""


# Topic, and shard ids with the moment from which on their records count, to keys by shard id: those whose last
# record is no tombstone. Raises KafkaUnavailable and KafkaRejected.
LiveKeys = Callable[[str, Mapping[str, datetime]], Mapping[str, int]]


class Rates(Protocol):
    """Byte rates of the connectors' producers. Raises KafkaUnavailable and KafkaRejected."""

    def set_rates(self, rates: Mapping[str, int | None]) -> None:
        """Set bytes a second by `client.id`, checked; None removes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotPorts:
    """Everything outside, as the use cases of this package take it.

    `writer` makes a writer of the state topic of the given name: of two with one name only the newer
    works. `notifications` reads from a moment on.
    """

    platform: Platform
    signals: Signals
    writer: Callable[[str], StateStore]
    notifications: Callable[[datetime], NotificationReader]
    histories: Histories
    sources: SourceLogs
    rates: Rates
    live_keys: LiveKeys
