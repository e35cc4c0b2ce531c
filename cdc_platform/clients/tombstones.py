"""Tombstones for single keys of a topic: how a row that the source no longer has leaves the topic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from cdc_platform.clients.kafka_errors import bad_settings, configuration, log, translated
from cdc_platform.errors import CdcError


def send_tombstones(
    config: Mapping[str, str], topic: str, keys: Sequence[tuple[int, bytes]], *, timeout: float = 60.0
) -> None:
    """Write a tombstone for each (partition, key), acknowledged by all in-sync replicas.

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

    what = f"write {len(keys)} tombstones to {topic}"
    try:
        for partition, key in keys:
            producer.produce(topic, key=key, value=None, partition=partition, on_delivery=delivered)
            producer.poll(0)
        left = producer.flush(timeout)
    except (KafkaException, BufferError) as error:
        problem = error if isinstance(error, KafkaException) else KafkaException(KafkaError(KafkaError._QUEUE_FULL))
        raise translated(problem, what, servers) from None
    if failed or left:
        code = failed[0] if failed else KafkaError(KafkaError._TIMED_OUT)
        raise translated(KafkaException(code), what, servers)
