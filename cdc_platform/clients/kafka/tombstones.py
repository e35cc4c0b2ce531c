"""Tombstones for single keys of a topic: how a row that the source no longer has leaves the topic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cdc_platform.clients.kafka.producer import OutgoingRecord, RecordSender


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
    records = [
        OutgoingRecord(topic=topic, key=one.key, value=None, partition=one.partition, headers=one.headers)
        for one in tombstones
    ]
    RecordSender(config, timeout=timeout).send(records, f"write {len(records)} tombstones to {topic}")
