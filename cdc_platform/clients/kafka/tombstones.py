"""Tombstones for single keys of a topic: how a row that the source no longer has leaves the topic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from cdc_platform.clients.kafka.librdkafka import bad_settings, configuration, log, translated
from cdc_platform.errors import CdcError


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstone:
    """The end of one key. `key` is the very bytes that the topic has, `partition` where it has them:
    compaction and consumers take two spellings of a key for two keys.
    """

    partition: int
    key: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def send_tombstones(
    config: Mapping[str, str], topic: str, tombstones: Sequence[Tombstone], *, timeout: float = 60.0
) -> None:
    """Write tombstones, acknowledged by all in-sync replicas.

    Sending one twice changes nothing. Raises KafkaUnavailable, KafkaRejected.
    """
    own = {"acks": "all", "enable.idempotence": True, "linger.ms": 5, "delivery.timeout.ms": int(timeout * 1000)}
    servers = config.get("bootstrap.servers", "(no bootstrap.servers)")
    try:
        producer = Producer(configuration(config, own), logger=log)
    except (KafkaException, CdcError, ValueError, TypeError) as error:
        raise bad_settings(error) from None
    failed: list[KafkaError] = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            failed.append(error)

    what = f"write {len(tombstones)} tombstones to {topic}"
    try:
        for one in tombstones:
            headers: dict[str, str | bytes | None] = dict(one.headers)
            producer.produce(
                topic, key=one.key, value=None, partition=one.partition, headers=headers, on_delivery=delivered
            )
            producer.poll(0)
        left = producer.flush(timeout)
    except (KafkaException, BufferError) as error:
        problem = error if isinstance(error, KafkaException) else KafkaException(KafkaError(KafkaError._QUEUE_FULL))
        raise translated(problem, what, servers) from None
    if failed or left:
        code = failed[0] if failed else KafkaError(KafkaError._TIMED_OUT)
        raise translated(KafkaException(code), what, servers)
