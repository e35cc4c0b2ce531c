"""Windows of a shard's history: between two boundaries, each a moment and the source's position asked for after it.

A change belongs to the window in which its transaction became visible at the source: the first boundary whose position
sees it ends that window. Clocks say only when a boundary is asked for; they decide about no change. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import msgspec
import numpy as np
import numpy.typing as npt

from cdc_platform.errors import TopologyError
from cdc_platform.model.positions import Committed, Position, parse_position
from cdc_platform.model.topology import Dataset, Engine
from cdc_platform.verification.policy_values import Count, read_policy

# Boundaries that are remembered of a shard: eight days of hours.
KEPT = 192

# In `windows_of`: not yet ended, and of no window (rows that a snapshot read, changes before the first boundary).
OPEN, NONE = -1, 0

_INITIAL = "initial snapshot"  # as `Committed.busy` has it


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowPolicy:
    """The dataset's block `windows`: how long one is, in `minutes`; `since`: the first day that Dagster has them of."""

    minutes: Count = 60
    since: str = "2026-01-01"

    @classmethod
    def of(cls, dataset: Dataset) -> WindowPolicy | None:
        """The dataset's policy; None when it has no windows. Raises TopologyError."""
        if not dataset.windows:
            return None
        found = read_policy(cls, dataset.windows, dataset.name, "windows")
        where = f"dataset {dataset.name}"
        hours, rest = divmod(found.minutes, 60)
        if 60 % found.minutes and (rest or 24 % hours):
            raise TopologyError(
                f"windows of {found.minutes} minutes do not divide an hour or a day.",
                where=where,
                field="windows.minutes",
                cure="Take a divisor of 60, or hours that divide a day: 5, 15, 60, 360, 1440.",
            )
        try:
            date.fromisoformat(found.since)
        except ValueError:
            raise TopologyError(
                f"{found.since!r} is not a date.", where=where, field="windows.since", cure="Write it as 2026-01-31."
            ) from None
        return found

    @property
    def seconds(self) -> int:
        """The length of a window; boundaries are its multiples since 1970 UTC."""
        return self.minutes * 60


class Marks(msgspec.Struct, frozen=True, kw_only=True):
    """The boundaries of one shard: moment (seconds since 1970) to position, in order.

    `first` is the shard's first boundary: what is before it belongs to the window that ends there. `seconds`: the
    length of a window when they were made. `complete`: the last boundary known to be complete.
    """

    first: int
    seconds: int
    complete: int = 0
    positions: dict[int, str] = {}

    @property
    def last(self) -> int:
        """The newest boundary; the one before the first when there is none."""
        return max(self.positions, default=self.first - self.seconds)


def next_boundary(now: float, seconds: int) -> int:
    """The first boundary after now."""
    return (int(now) // seconds + 1) * seconds


def due(marks: Marks, now: float) -> list[int]:
    """The boundaries that have passed and have no position. One position is asked for all of them."""
    last = int(now) // marks.seconds * marks.seconds
    begin = max(marks.last + marks.seconds, marks.first)
    return list(range(max(begin, last - (KEPT - 1) * marks.seconds), last + 1, marks.seconds))


def marked(engine: Engine, marks: Marks, boundaries: Sequence[int], position: Position) -> Marks | None:
    """The marks with this position for the boundaries, the oldest forgotten. None: it is behind the last one.

    Positions of one source only grow. One that does not cover the last is of a server that lacks transactions.
    """
    if marks.positions and not position.covers(parse_position(engine, marks.positions[marks.last])):
        return None
    positions = {**marks.positions, **dict.fromkeys(boundaries, str(position))}
    return msgspec.structs.replace(marks, positions=dict(sorted(positions.items())[-KEPT:]))


def complete_up_to(engine: Engine, marks: Marks, committed: Committed | None) -> int:
    """The last boundary up to which the connector has handed everything to Kafka.

    Without one the boundary before the shard's first: no window before that waits for it.
    """
    found = max(marks.complete, marks.first - marks.seconds)
    if committed is None or committed.busy == _INITIAL:
        return found
    for boundary, text in sorted(marks.positions.items()):
        if boundary > found:
            if not committed.reached(parse_position(engine, text)):
                break
            found = boundary
    return found


def windows_of(
    engine: Engine, marks: Marks, stream: npt.NDArray[np.uint32], seq: npt.NDArray[np.uint64]
) -> npt.NDArray[np.int64]:
    """For each event the boundary that ends its window, OPEN, or NONE for rows that a snapshot read.

    Where boundaries have been forgotten, all that is before the oldest known one is said to end there.
    """
    found = np.full(len(seq), OPEN, dtype=np.int64)
    for boundary, text in sorted(marks.positions.items(), reverse=True):
        found[parse_position(engine, text).sees(stream, seq)] = boundary
    found[seq == 0] = NONE
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Completeness:
    """All shards of a dataset are complete up to `boundary`; None: a shard's topology cannot be read.

    `laggards`: the shards that hold it up, with the reason.
    """

    boundary: int | None
    laggards: Mapping[str, str]


def completeness(
    reached: Mapping[str, int], problems: Mapping[str, str], unknown: Collection[str] = ()
) -> Completeness:
    """The minimum over the shards.

    Args:
        reached: each shard's `complete_up_to`.
        problems: why a shard has no position for a boundary that has passed, or its connector was not asked.
        unknown: shards whose topology cannot be read: whether they have changes is not known.
    """
    if unknown or not reached:
        return Completeness(boundary=None, laggards=dict.fromkeys(sorted(unknown), "its topology cannot be read"))
    furthest = max(reached.values())
    laggards = {
        shard: problems.get(shard, "its connector has not committed the boundary's position yet")
        for shard, at in sorted(reached.items())
        if at < furthest or shard in problems
    }
    return Completeness(boundary=min(reached.values()), laggards=laggards)


def ended(first: int, until: int | None, seconds: int) -> list[int]:
    """The windows, by their begin, between a dataset's first boundary and the one it is complete up to.

    The oldest ones, whose positions are forgotten, are left out.
    """
    return [] if until is None else list(range(max(first, until - (KEPT - 1) * seconds), until, seconds))
