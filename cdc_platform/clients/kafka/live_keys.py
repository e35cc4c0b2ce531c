"""How many keys of each shard a topic holds, by its records since a moment."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime

import msgspec

from cdc_platform.clients.kafka.consumer import (
    Partition,
    assign,
    offsets_at,
    open_consumer,
    partitions_of,
    read_to_end,
    watermarks,
)
from cdc_platform.clients.kafka.librdkafka import kafka_errors
from cdc_platform.connectors.identity import SHARD_KEY_FIELD
from cdc_platform.model import bounded_json

_BATCH = 10_000


class _Key(msgspec.Struct, rename={"shard": SHARD_KEY_FIELD}):
    shard: str = ""
    payload: msgspec.Raw = msgspec.Raw()


_KEY = msgspec.json.Decoder(_Key)


def live_keys(
    config: Mapping[str, str], topic: str, since: Mapping[str, datetime], *, timeout: float = 60.0
) -> dict[str, int]:
    """Shard id to the number of its keys whose last record is no tombstone.

    Holds a number of 64 bits for each key of these shards, some 60 bytes in memory.

    Args:
        config: a librdkafka configuration; values may be references.
        topic: one table's.
        since: the shards, and from when on their records count; some older ones may count, too.
        timeout: seconds until the first record, and between two.

    Raises:
        KafkaUnavailable, KafkaRejected.
    """
    end = time.monotonic() + timeout
    live: dict[str, set[int]] = {shard: set() for shard in since}
    with kafka_errors(f"counting keys in {topic}", config):
        consumer = open_consumer(config, "cdc-platform-counts", {"isolation.level": "read_committed"})
        try:
            parts = partitions_of(consumer, topic, end)
            begin = int(min(since.values()).timestamp() * 1000)
            starts = offsets_at(consumer, topic, dict.fromkeys(parts, begin), end)
            ends: dict[Partition, int] = {(topic, part): watermarks(consumer, topic, part, end)[1] for part in parts}
            offsets: dict[Partition, int] = {(topic, part): starts.get(part, ends[topic, part]) for part in parts}
            assign(consumer, offsets)
            for batch in read_to_end(consumer, offsets, ends, timeout=timeout, idle=True, batch=_BATCH):
                for message in batch:
                    _take(live, message.key(), message.value())
        finally:
            consumer.close()
    return {shard: len(keys) for shard, keys in live.items()}


def _take(live: dict[str, set[int]], key: bytes | str | None, value: bytes | str | None) -> None:
    shard = _shard(key)
    if shard in live:
        live[shard].discard(hash(key)) if value is None else live[shard].add(hash(key))


def _shard(key: bytes | str | None) -> str:
    """The shard of a record's key; empty for what has none, such as a TRUNCATE."""
    if not key:
        return ""
    try:
        found = bounded_json.decode(_KEY, key)
        # With a schema around it.
        return found.shard or (bounded_json.decode(_KEY, bytes(found.payload)).shard if bytes(found.payload) else "")
    except msgspec.MsgspecError:
        return ""
