"""The hash by which Java's producer chooses a key's partition.

By hand: librdkafka does not offer it to Python, and kafka-python, which has it, is an extra.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_MIX = 0x5BD1E995
_SEED = 0x9747B28C
_32_BITS = 0xFFFFFFFF

# Longer keys are hashed one by one: all keys of a batch are padded to the longest.
_LONG = 1_000


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


def murmur2_of_each(keys: Sequence[bytes]) -> npt.NDArray[np.uint32]:
    """`murmur2` of each key: some fifty times as fast for keys of tens of bytes."""
    sizes = np.fromiter(map(len, keys), dtype=np.int64, count=len(keys))
    if not len(keys) or sizes.max() > _LONG:
        return np.array([murmur2(key) for key in keys], dtype=np.uint32)
    width = int(sizes.max()) // 4 + 1
    padded = b"".join([key.ljust(4 * width, b"\0") for key in keys])
    words = np.ascontiguousarray(np.frombuffer(padded, dtype="<u4").reshape(len(keys), width).T)
    mix, hashed = np.uint32(_MIX), np.uint32(_SEED) ^ sizes.astype(np.uint32)
    whole = sizes // 4
    for at in range(width):
        word = words[at] * mix
        mixed = hashed * mix ^ (word ^ word >> np.uint32(24)) * mix
        hashed = np.where(whole > at, mixed, hashed)
    rest = (hashed ^ words[whole, np.arange(len(keys))]) * mix
    hashed = np.where(sizes & 3, rest, hashed)
    hashed = (hashed ^ hashed >> np.uint32(13)) * mix
    found: npt.NDArray[np.uint32] = hashed ^ hashed >> np.uint32(15)
    return found


def partition_of(key: bytes, partitions: int) -> int:
    """The partition that Java's default partitioner gives to a key, of a topic with so many."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
