"""Signals to connectors: records in the signal topics, each sent once.

A signal is a record in partition 0 of the shard's signal topic with key
`topic.prefix` (Debezium: KafkaSignalChannel). Nobody but the topic knows
whether it was sent: so it is looked up there. The sender is transactional
only to be fenced (KIP-98): after `take_over` nothing of an older sender with the
same name can arrive any more, and what is not in the topic then never will be.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from cdc_platform.clients.kafka_errors import bad_settings, configuration, log, translated
from cdc_platform.errors import CdcError, KafkaUnavailable

_TRANSACTION_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """One signal. `shard` is `<dataset>.<shard>`; `id` is unique, and comes back in the notifications."""

    topic: str
    shard: str
    id: str
    type: str
    data: Mapping[str, Any]


class _Sent(msgspec.Struct):
    id: str


class SignalTopics:
    """Sends signals and tells which were sent. Not for several threads.

    Args:
        config: a librdkafka configuration; values may be references.
        name: of the sender; a newer one of the same name fences an older.
        timeout: seconds for each call as a whole.
    """

    def __init__(self, config: Mapping[str, str], name: str, *, timeout: float = 30.0) -> None:
        self._config = dict(config)
        self._name = name
        self._timeout = timeout
        self._servers = config.get("bootstrap.servers", "(no bootstrap.servers)")
        self._producer: Producer | None = None

    def take_over(self) -> None:
        """Become the sender of this name; whoever was it before is fenced.

        Raises:
            KafkaUnavailable, KafkaRejected.
        """
        own = {
            "transactional.id": self._name,
            "transaction.timeout.ms": int(_TRANSACTION_SECONDS * 1000),
            "linger.ms": 5,
        }
        try:
            producer = Producer(configuration(self._config, own), logger=log)
        except (KafkaException, CdcError, ValueError, TypeError) as error:
            raise bad_settings(error) from None
        try:
            producer.init_transactions(self._timeout)
        except KafkaException as error:
            producer.poll(0)
            raise translated(error, f"become signal sender {self._name}", self._servers) from None
        self._producer = producer

    def sent(self, topics: Collection[str], since: datetime) -> Mapping[str, datetime]:
        """Id to time of each signal in these topics from `since` on.

        Reads what Debezium reads: aborted transactions too. A topic that does not exist holds nothing.

        Raises:
            KafkaUnavailable: not all could be read in time.
        """
        if not topics:
            return {}
        own = {
            "group.id": f"{self._name}-reader",
            "enable.auto.commit": False,
            "isolation.level": "read_uncommitted",
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 50,
        }
        end = time.monotonic() + self._timeout
        try:
            consumer = Consumer(configuration(self._config, own), logger=log)
        except (KafkaException, CdcError, ValueError, TypeError) as error:
            raise bad_settings(error) from None
        try:
            return _read_sent(consumer, topics, since, end)
        except KafkaException as error:
            raise translated(error, "read signals", self._servers) from None
        finally:
            consumer.close()

    def send(self, signals: Sequence[Signal]) -> None:
        """Send all. Raises Fenced (a newer sender has taken over), KafkaUnavailable (look what was `sent`)."""
        if not signals:
            return
        if self._producer is None:
            self.take_over()
        producer = self._producer
        assert producer is not None
        try:
            producer.begin_transaction()
            for signal in signals:
                producer.produce(signal.topic, key=signal.shard, value=_encoded(signal), partition=0)
            producer.commit_transaction(self._timeout)
        except (KafkaException, BufferError) as error:
            self._producer = None
            problem = error if isinstance(error, KafkaException) else KafkaException(KafkaError(KafkaError._QUEUE_FULL))
            raise translated(problem, f"send {len(signals)} signals", self._servers) from None

    def close(self) -> None:
        """Forget the producer. An open transaction is left to its time-out or the next sender."""
        self._producer = None


def _encoded(signal: Signal) -> bytes:
    return msgspec.json.encode({"id": signal.id, "type": signal.type, "data": signal.data})


def _read_sent(consumer: Consumer, topics: Collection[str], since: datetime, end: float) -> dict[str, datetime]:
    at = int(since.timestamp() * 1000)
    known = consumer.list_topics(timeout=max(0.1, end - time.monotonic())).topics
    asked = [TopicPartition(topic, 0, at) for topic in sorted(set(topics)) if topic in known]
    starts = consumer.offsets_for_times(asked, timeout=max(0.1, end - time.monotonic())) if asked else []
    # A negative offset says that nothing is newer than `since`.
    waiting = {part.topic: part for part in starts if part.offset >= 0}
    found: dict[str, datetime] = {}
    consumer.assign(list(waiting.values()))
    while waiting:
        if time.monotonic() > end:
            raise KafkaUnavailable(f"signals: {len(waiting)} topics could not be read to their end in time.")
        for message in consumer.consume(num_messages=5000, timeout=0.1):
            error = message.error()
            if error is None:
                _note(message, found)
            elif error.code() == KafkaError._PARTITION_EOF:
                waiting.pop(message.topic() or "", None)
            else:
                raise KafkaException(error)
    return found


def _note(message: Message, found: dict[str, datetime]) -> None:
    try:
        sent = msgspec.json.decode(message.value() or b"", type=_Sent)
    except msgspec.MsgspecError:
        return  # a stranger's record: no signal of ours
    found.setdefault(sent.id, datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC))
