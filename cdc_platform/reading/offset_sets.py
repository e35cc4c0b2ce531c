"""Offsets of a topic's partitions, a bit each, in files: as many as there are rows, and memory does not grow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
import numpy.typing as npt

Offsets = npt.NDArray[np.int64]

# Bytes of a file looked at at once: eight offsets each.
_PIECE = 1 << 17


class OffsetSets:
    """A set of offsets for each partition, within first and next offset. Its files go when it is closed."""

    def __init__(self, partitions: Mapping[int, tuple[int, int]], spill: Path) -> None:
        self._begins = {number: begin for number, (begin, _) in partitions.items()}
        self._files: list[IO[bytes]] = []
        self._bits: dict[int, npt.NDArray[np.uint8]] = {}
        self.counts = dict.fromkeys(partitions, 0)
        for number, (begin, end) in partitions.items():
            file: IO[Any] = TemporaryFile(dir=spill)  # noqa: SIM115 -- closed with the set
            size = max(1, (end - begin + 7) // 8)
            file.truncate(size)
            self._files.append(file)
            self._bits[number] = np.memmap(file, dtype=np.uint8, mode="r+", shape=(size,))

    def __enter__(self) -> OffsetSets:
        return self

    def __exit__(self, *error: object) -> None:
        self._bits.clear()
        for file in self._files:
            file.close()

    def add(self, partition: int, offsets: Offsets) -> None:
        """Put in offsets that are not in it yet."""
        at = offsets - self._begins[partition]
        np.bitwise_or.at(self._bits[partition], at >> 3, (1 << (at & 7)).astype(np.uint8))
        self.counts[partition] += len(offsets)

    def among(self, partition: int, offsets: Sequence[int]) -> npt.NDArray[np.bool_]:
        """For each of these offsets: is it in the set?"""
        at = np.asarray(offsets, dtype=np.int64) - self._begins[partition]
        found: npt.NDArray[np.bool_] = (self._bits[partition][at >> 3] >> (at & 7).astype(np.uint8)) & 1 > 0
        return found

    def pieces(self, partition: int) -> Iterator[list[int]]:
        """The offsets of a partition in their order, a piece at a time."""
        bits, begin = self._bits[partition], self._begins[partition]
        for at in range(0, len(bits), _PIECE):
            found = np.flatnonzero(np.unpackbits(bits[at : at + _PIECE], bitorder="little"))
            if len(found):
                yield (found + (begin + 8 * at)).tolist()
