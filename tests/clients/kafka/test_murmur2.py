"""The partition of a key, as Java's producer chooses it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.partitioner.default import murmur2 as theirs

from cdc_platform.clients.kafka.murmur2 import murmur2, murmur2_of_each, partition_of


@pytest.mark.parametrize(
    ("key", "hashed"),
    [
        # Kafka's own test, UtilsTest.testMurmur2.
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_the_hash_is_kafkas(key: bytes, hashed: int) -> None:
    assert murmur2(key) == hashed & 0xFFFFFFFF


@given(st.binary(max_size=40))
def test_the_hash_is_that_of_another_client(key: bytes) -> None:
    assert murmur2(key) == theirs(key) & 0xFFFFFFFF


@given(st.lists(st.binary(max_size=40)))
def test_many_keys_hash_as_each_does(keys: list[bytes]) -> None:
    assert murmur2_of_each(keys).tolist() == [murmur2(key) for key in keys]


def test_a_long_key_among_many_hashes_as_alone() -> None:
    keys = [b"a", b"b" * 5_000, b""]
    assert murmur2_of_each(keys).tolist() == [murmur2(key) for key in keys]


def test_a_negative_hash_gives_a_partition_of_the_topic() -> None:
    assert partition_of(b"21", 25) == (-973932308 & 0x7FFFFFFF) % 25
