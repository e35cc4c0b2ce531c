"""What the proof needs of a source: positions, chunks of (key, hash), single rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from cdc_platform.canonical.columns import Shape
from cdc_platform.model.positions import Committed, Position

Words = npt.NDArray[np.uint64]

# A column's name to: do events carry it?
Captured = Callable[[str], bool]

# The key columns' values as text that the source reads back exactly.
Key = tuple[str, ...]


def every_column(name: str) -> bool:
    """All columns are captured."""
    return bool(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What a table is, and why it could not be proven.

    `shape` is None when the table cannot be proven at all; `problems` says why.
    `rows` is the server's estimate. `left_out` names columns that no event
    carries (generated ones in Postgres, those the dataset excludes). `warnings`
    are of columns that the capture may get wrong (`canonical/column_hazards.py`).
    """

    shape: Shape | None
    problems: tuple[str, ...] = ()
    rows: int = 0
    left_out: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Rows read by one statement, and the positions between which it ran.

    `keys` and `rows` are 64-bit numbers (see canonical/): the row is what some
    position in [low, high] shows, each row of the slice the same one.
    """

    keys: Words
    rows: Words
    low: Position
    high: Position


class Source(Protocol):
    """One server of a shard. Raises SourceUnavailable and SourceRejected; every call has a deadline."""

    def inspect(self) -> Inspection:
        """The table's shape and what stands against a proof."""

    def prepared(self) -> tuple[str, ...] | None:
        """Transactions that were logged, but not committed yet: prepared by XA. Their rows may be in the topic.

        None where the server does not tell them to this user.
        """

    def position(self) -> Position:
        """Where the source is now: all that was committed before the call is at or before it."""

    def beyond(self, committed: Committed) -> Committed:
        """What a connector committed, and with it what follows there without a change of any row.

        A connector of MariaDB or MySQL commits a DDL statement only with the transaction
        after it, which on an idle server may be long in coming.
        """

    def chunk_end(self, after: Key | None, rows: int) -> Key | None:
        """The key of the `rows`-th row behind `after`; None when there are fewer."""

    def read_chunk(self, after: Key | None, until: Key | None) -> Slice:
        """All rows with a key above `after` up to `until`, None being open."""

    def read_keys(self, keys: Sequence[Key]) -> Slice:
        """The rows of these keys, as far as they exist."""

    def find(self, after: Key | None, until: Key | None, keys: Sequence[int]) -> Mapping[int, Key]:
        """64-bit key to key, for those of a chunk that are asked for and exist."""

    def tokens(self, keys: Sequence[Key]) -> Mapping[Key, Mapping[str, bytes]]:
        """Key to column to canonical token, for the rows that exist."""

    def another(self) -> Source:
        """The same table by a connection of its own, for another thread; it need not be inspected again."""

    def close(self) -> None:
        """Close the connection."""
