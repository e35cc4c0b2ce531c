"""Change events as rows of an array: what is left of an event once it is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# One event. `shard` is a number within one fold (`Decoder.shards`). `stream`,
# `seq` and `sub` are its position in the source's log: GTID domain, sequence
# number, and position in the transaction; or transaction id, LSN and 0. `row` is
# the digest of the canonical row. Rows that a snapshot read have no position of
# their own: they take that of the last event before them (`event_positions.py`).
# `raw` tells the spellings of a key apart: the hash of its bytes by which producers
# choose the partition, and above it OLD_KEY.
EVENT = np.dtype(
    [
        ("shard", "u2"),
        ("epoch", "u2"),
        ("stream", "u4"),
        ("key", "u8"),
        ("seq", "u8"),
        ("sub", "u8"),
        ("offset", "i8"),
        ("row", "u8"),
        ("raw", "u4"),
    ]
)

Events = npt.NDArray[np.void]
Words = npt.NDArray[np.uint64]

# Values of `row` that are not digests.
ABSENT = np.uint64(0)
PARTIAL = np.uint64(1)
UNKNOWN = np.uint64(2)
_RESERVED = np.uint64(3)

# A bit of `raw`: the record's key lacks columns of the table's key (it is from before the key was changed), or is no
# key of any shard. Such a key is known by the digest of its bytes.
OLD_KEY = np.uint32(1 << 31)

# No sequence number or LSN of a server comes to this one, at a gigabyte a second in two years.
NO_POSITION = np.uint64(1 << 56)

# The shard of records whose key names none. No id of a shard has this form.
NO_SHARD = "?"

# `sub` of a streamed event holds above these bits which binlog file it came from
# (offsets in two files do not compare), below them its offset in the file. `OWN`
# marks an event that has no position of its own; below it stands its Kafka offset.
ORIGIN_BITS = 56
OWN = np.uint64(1 << 63)

# What an event is, until its position is worked out.
STREAMED, READ, SNAPSHOT, DELETED, TOMBSTONE = range(5)

# An odd constant: multiplying by it modulo 2^64 is a bijection that spreads
# neighbouring integer keys over the whole range, so that ranges of it are even.
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_GATHER = np.uint64(pow(0x9E3779B97F4A7C15, -1, 1 << 64))


@dataclass(frozen=True, slots=True)
class UnreadableRecord:
    """A record that could not be taken in. `shard` is NO_SHARD when not even its key could be read.

    A `keyless` one is a row of no key: a TRUNCATE, by what it says of its shard, or what a stranger sent.
    """

    partition: int
    offset: int
    shard: str | None
    reason: str
    keyless: bool = False

    def sentence(self, topic: str) -> str:
        """Where it is, and what is wrong with it."""
        return f"record {self.offset} of partition {self.partition} of {topic}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Decoded:
    """A batch after decoding: `events` without epochs, what each is (`kinds`), and records that could not be read."""

    events: Events
    kinds: npt.NDArray[np.uint8]
    unreadable: Sequence[UnreadableRecord]


def spread(keys: Words) -> Words:
    """Integer keys as the fold stores them."""
    return keys * _SPREAD


def gathered(keys: Words) -> Words:
    """The inverse of `spread`."""
    return keys * _GATHER


def digests(words: Words) -> Words:
    """Digests of rows, moved off the reserved values."""
    return np.where(words < _RESERVED, words + _RESERVED, words)


# A partition's number stands above the offset where events of many partitions meet.
OFFSET_BITS = 47


def packed(partition: int, offset: int) -> int:
    """Partition and offset in one number."""
    return (partition << OFFSET_BITS) | offset


def location_text(offset: int) -> str:
    """A packed offset, for operators."""
    partition, offset = divmod(offset, 1 << OFFSET_BITS)
    return f"partition {partition}, offset {offset}"


def partition_offsets(rows: npt.NDArray[np.void], column: str = "offset") -> list[tuple[int, int]]:
    """Partition and offset of each row, packed in that column."""
    return [divmod(offset, 1 << OFFSET_BITS) for offset in rows[column].tolist()]
