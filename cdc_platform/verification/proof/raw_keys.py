"""What readers by key see: those that keep the last record of each key's bytes in each partition, as compaction does.

One row may stand in a topic under several of these places: its key is spelled otherwise by a snapshot than by the
stream, was changed, or moved as partitions were added. Pure functions on sorted arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cdc_platform.model.positions import Position
from cdc_platform.verification.proof.change_events import ABSENT, OFFSET_BITS, OWN, Events

Mask = npt.NDArray[np.bool_]


def places(events: Events) -> npt.NDArray[np.uint64]:
    """Of each event, partition and bytes of its key, in one number."""
    found: npt.NDArray[np.uint64] = (events["offset"] >> OFFSET_BITS).astype(np.uint64) << np.uint64(32)
    found |= events["raw"]
    return found


def starts_of(events: Events) -> npt.NDArray[np.int64]:
    """Where each key begins in sorted events."""
    if not len(events):
        return np.zeros(0, dtype=np.int64)
    key, shard = events["key"], events["shard"]
    return np.flatnonzero(np.append(True, (key[1:] != key[:-1]) | (shard[1:] != shard[:-1])))


def counts_of(events: Events, starts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How many events each key has."""
    return np.diff(np.append(starts, len(events)))


def in_several_places(events: Events) -> Mask:
    """For each event: has its key events in more than one place?"""
    starts = starts_of(events)
    if len(starts) == len(events):
        return np.zeros(len(events), dtype=np.bool_)
    found = places(events)
    several = np.maximum.reduceat(found, starts) != np.minimum.reduceat(found, starts)
    return np.repeat(several, counts_of(events, starts))


def tails(events: Events) -> Mask:
    """For each event: is it the last record of its key's place?"""
    fields: list[Any] = [places(events), events["key"], events["shard"]]
    order = np.lexsort([events["offset"], *fields])
    last = np.ones(len(events), dtype=np.bool_)
    last[:-1] = np.logical_or.reduce([values[order][1:] != values[order][:-1] for values in fields])
    found = np.zeros(len(events), dtype=np.bool_)
    found[order] = last
    return found


def of_the_row(events: Events) -> Mask:
    """False for tombstones that end a place which the row had left by then: they say nothing of the row."""
    lone: Mask = (events["row"] == ABSENT) & (events["sub"] >= OWN)
    if not lone.any():
        return np.ones(len(events), dtype=np.bool_)
    starts = starts_of(events)
    before = np.maximum.accumulate(np.where(lone, -1, np.arange(len(events))))
    found = places(events)
    follows = before >= np.repeat(starts, counts_of(events, starts))
    right: Mask = ~lone | ~follows | (found == found[before])
    return right


def live(events: Events) -> Events:
    """The last record of each place, where it holds a row."""
    found: Events = events[tails(events) & (events["row"] != ABSENT)]
    return found


def leftovers(events: Events, until: Position) -> Events:
    """Records that readers by key take for a row, while the row has gone on in another place or was deleted there.

    What came after `until` may still be on its way, and does not count.
    """
    part: Events = events[in_several_places(events)]
    if not len(part):
        return part
    starts = starts_of(part)
    index, found = np.arange(len(part)), places(part)
    known = until.sees(part["stream"], part["seq"]) & of_the_row(part)
    newest = np.repeat(np.maximum.reduceat(np.where(known, index, -1), starts), counts_of(part, starts))
    passed = (index < newest) & (found != found[newest])
    left: Events = part[passed & tails(part) & (part["row"] != ABSENT)]
    return left
