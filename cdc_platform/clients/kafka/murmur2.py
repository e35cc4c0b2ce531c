"""The hash by which Java's producer chooses a key's partition.

By hand: librdkafka does not offer it to Python, and kafka-python, which has it, is an extra.
"""

from __future__ import annotations

_MIX = 0x5BD1E995
_SEED = 0x9747B28C
_32_BITS = 0xFFFFFFFF


def murmur2(key: bytes) -> int:
    """MurmurHash2 of the key as an unsigned 32-bit number (`Utils.murmur2` of Kafka, which is signed)."""
    whole = len(key) & ~3
    hashed = _SEED ^ len(key)
    for at in range(0, whole, 4):
        word = int.from_bytes(key[at : at + 4], "little") * _MIX & _32_BITS
        hashed = (hashed * _MIX ^ (word ^ word >> 24) * _MIX) & _32_BITS
    if len(key) > whole:
        hashed = (hashed ^ int.from_bytes(key[whole:], "little")) * _MIX & _32_BITS
    hashed = (hashed ^ hashed >> 13) * _MIX & _32_BITS
    return hashed ^ hashed >> 15


def partition_of(key: bytes, partitions: int) -> int:
    """The partition that Java's default partitioner gives to a key, of a topic with so many."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
