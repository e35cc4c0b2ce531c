"""Sorted arrays on disk: written once, read in slices, merged piece by piece.

A file holds records of one size, sorted by key (and by shard before it where there is one). Nothing here holds
more than a piece in memory.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cdc_platform.verification.storage.state_directory import sync

Rows = npt.NDArray[np.void]

# Records that a merge holds of each side at once.
_PIECE = 250_000

_END = (1 << 16, 0)


def write(path: Path, pieces: Iterable[npt.NDArray[Any]]) -> None:
    """Write arrays as one file; it is on disk when this returns."""
    with path.open("wb") as stream:
        for piece in pieces:
            piece.tofile(stream)
        sync(stream)


def read(path: Path, dtype: np.dtype[Any]) -> Rows:
    """Map a file into memory."""
    if path.stat().st_size == 0:
        return np.zeros(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r")


def worth_merging(directory: Path, older: str, newer: str) -> bool:
    """Is the newer file at least half as long as the older?

    Merged only then, few files remain, and each record is written again only a few times.
    """
    return 2 * (directory / newer).stat().st_size >= (directory / older).stat().st_size


class _Keys(Sequence[tuple[int, int]]):
    """Records as the sequence of their (shard, key), for bisection."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._sharded = "shard" in (rows.dtype.names or ())

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, at: Any) -> Any:
        row = self._rows[at]
        return (int(row["shard"]) if self._sharded else 0), int(row["key"])


def between(rows: Rows, first: tuple[int, int], end: tuple[int, int]) -> Rows:
    """The records from (shard, key) `first` up to, not with, `end`."""
    keys = _Keys(rows)
    begin = bisect.bisect_left(keys, first)
    return rows[begin : bisect.bisect_left(keys, end, lo=begin)]


def picked(rows: Rows, only: npt.NDArray[np.uint64]) -> Rows:
    """Those of the records whose key is among `only`; looked for piece by piece."""
    pieces = (rows[at : at + _PIECE] for at in range(0, len(rows), _PIECE))
    found = [piece[np.isin(piece["key"], only)] for piece in pieces]
    return np.concatenate(found) if found else rows[:0]


def merged(parts: Sequence[Rows], combine: Callable[[Rows], Rows]) -> Iterator[Rows]:
    """The files in one, piece by piece; `combine` orders and thins a piece that holds whole keys."""
    longest = max(parts, key=len)
    first = (0, 0)
    at = _PIECE
    while True:
        keys = _Keys(longest)
        end = keys[at] if at < len(longest) else _END
        pieces = [between(part, first, end) for part in parts]
        if any(len(piece) for piece in pieces):
            yield combine(np.concatenate(pieces))
        if end == _END:
            return
        first = end
        at += _PIECE
