"""Keys of shards whose last record in a topic is no tombstone."""

from __future__ import annotations

from cdc_platform.clients.kafka.live_keys import _take


def test_keys_count_once_and_until_they_are_deleted() -> None:
    live: dict[str, set[int]] = {"00000": set(), "00001": set()}
    for key, value in [
        (b'{"id":1,"shard":"00000"}', b"{}"),
        (b'{"id":1,"shard":"00000"}', b"{}"),
        (b'{"id":2,"shard":"00000"}', b"{}"),
        (b'{"id":2,"shard":"00000"}', None),
        (b'{"id":3,"payload":"x","shard":"00000"}', b"{}"),
        (b'{"schema":{},"payload":{"id":1,"shard":"00001"}}', b"{}"),
        (b'{"id":1,"shard":"00009"}', b"{}"),  # not asked for
        (None, b"{}"),  # a TRUNCATE
        (b"[" * 100_000, b"{}"),
    ]:
        _take(live, key, value)
    assert {shard: len(keys) for shard, keys in live.items()} == {"00000": 2, "00001": 1}
