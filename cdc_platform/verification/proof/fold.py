"""The fold: of each key's events, those that a comparison can still need.

Pure functions on arrays. Sorted means by shard, key, epoch, seq and the position in
the transaction: the events of a key then stand in the order in which the source
made them. Where its transactions were numbered by several streams (GTID domains, servers'
UUIDs), whose numbers do not compare, they stand in the order of their offsets: a task sends,
and sends again, in the order of the log.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from cdc_platform.verification.proof.change_events import ORIGIN_BITS, OWN, PARTIAL, Events
from cdc_platform.verification.proof.raw_keys import counts_of, in_several_places, of_the_row, starts_of, tails

Mask = npt.NDArray[np.bool_]

# Shard number, streams and seqs of its events to: is it visible at the shard's start?
Sees = Callable[[int, Any, Any], Mask]


def in_order(events: Events, *, numbered_by_stream: bool = False) -> Events:
    """The events sorted, copies of one event made one. `numbered_by_stream`: each stream counts for itself.

    Most events arrive in the source's order, so a stable sort by key does, and
    is several times faster than one by all fields.
    """
    order = np.argsort(events["key"], kind="stable")
    order = order[np.argsort(events["shard"][order], kind="stable")]
    found = events[order]
    if _disorder(found):
        found = found[np.lexsort([found[name] for name in ("seq", "epoch", "key", "shard")])]
    mixed = _of_several_streams(found) if numbered_by_stream else None
    if mixed is None or not mixed.any():
        return _transactions(found)
    both: Events = np.concatenate([_transactions(found[~mixed]), _as_sent(found[mixed])])
    return both[np.lexsort([both["key"], both["shard"]])]


def _of_several_streams(events: Events) -> Mask:
    """For each of the sorted events: were its key's transactions numbered by more than one stream?"""
    starts = starts_of(events)
    if len(starts) == len(events):
        return np.zeros(len(events), dtype=np.bool_)
    stream, numbered = events["stream"].astype(np.int64), events["seq"] > 0
    highest = np.maximum.reduceat(np.where(numbered, stream, -1), starts)
    lowest = np.minimum.reduceat(np.where(numbered, stream, 1 << 32), starts)
    return np.repeat(highest > lowest, counts_of(events, starts))


def _as_sent(events: Events) -> Events:
    """In the order of their offsets; of copies of one event the last."""
    fields = [events[name] for name in ("sub", "seq", "stream", "epoch", "key", "shard")]
    order = np.lexsort([events["offset"], *fields])
    found: Events = events[order[np.append(_changes(fields, order), True)]]
    return found[np.lexsort([found[name] for name in ("offset", "epoch", "key", "shard")])]


def _same_key(events: Events) -> Mask:
    """For each event but the first: has it the shard and key of the one before?"""
    key, shard = events["key"], events["shard"]
    same: Mask = (key[1:] == key[:-1]) & (shard[1:] == shard[:-1])
    return same


def _disorder(events: Events) -> bool:
    epoch, seq = events["epoch"], events["seq"]
    earlier = (epoch[1:] < epoch[:-1]) | ((epoch[1:] == epoch[:-1]) & (seq[1:] < seq[:-1]))
    return bool((_same_key(events) & earlier).any())


def _transactions(events: Events) -> Events:
    """Put events of one key and transaction in order; make copies of one event one, that which came last.

    Within one binlog file they are in the order of their offsets there. A transaction
    that was sent again after a failover stands at other offsets in another file:
    then that file's events count which came last, because a task that sends a transaction
    goes on to its end. An event without a position counts from where it came.
    """
    if len(events) < 2:
        return events
    repeated = _same_key(events)
    for name in ("epoch", "seq"):
        repeated &= events[name][1:] == events[name][:-1]
    if not repeated.any():
        return events
    suspects = np.flatnonzero(np.append(repeated, False) | np.append(False, repeated))
    part = events[suspects]
    origin = np.where(part["sub"] >= OWN, part["sub"], part["sub"] >> np.uint64(ORIGIN_BITS))
    fields = [part[name] for name in ("seq", "epoch", "key", "shard")]
    order = np.lexsort([part["offset"], origin, *fields])
    ends = np.append(_changes([origin, *fields], order), True)
    came = np.empty(len(part), dtype=np.int64)
    last = part["offset"][order][np.flatnonzero(ends)]
    came[order] = np.repeat(last, np.diff(np.append(-1, np.flatnonzero(ends))))
    order = np.lexsort([part["offset"], part["sub"], came, *fields])
    kept = np.append(_changes([part["sub"], came, *fields], order), True)
    events = events.copy()
    events[suspects] = part[order]
    return np.delete(events, suspects[~kept])


def _changes(fields: list[Any], order: Any) -> Mask:
    """For each event in this order but the last: does the next differ in any of the fields?"""
    changed = np.zeros(len(order) - 1, dtype=np.bool_)
    for values in fields:
        ranked = values[order]
        changed |= ranked[1:] != ranked[:-1]
    return changed


def last_of_each_key(events: Events) -> Events:
    """The last event of each key of sorted events."""
    return events[np.append(starts_of(events)[1:], len(events)) - 1] if len(events) else events


def compact(events: Events, sees: Sees) -> Events:
    """Drop, of sorted events, what no comparison at the shard's start or later can need.

    An event goes when it and a later event of its key are both visible at the
    start. One that lacks unchanged values replaces nothing. The last record of a key's
    place stays, whatever it holds: a reader by key ends up with it (`comparison.stale_keys`,
    `raw_keys.leftovers`).
    """
    visible = visible_events(events, sees)
    starts = starts_of(events)
    if len(starts) == len(events):
        return events
    indexes = np.arange(len(events))
    replacing = visible & (events["row"] != PARTIAL) & of_the_row(events)
    last = np.maximum.reduceat(np.where(replacing, indexes, -1), starts)
    replaced: Mask = visible & (indexes < np.repeat(last, counts_of(events, starts)))
    several = in_several_places(events)
    if several.any() or came_late(events):
        replaced &= ~(tails(events) & (several | (events["row"] != PARTIAL)))
    return events[~replaced]


def came_late(events: Events) -> bool:
    """Does any of the sorted events stand in the topic behind the next one of its key?"""
    offset = events["offset"]
    return bool((_same_key(events) & (offset[1:] < offset[:-1])).any())


def visible_events(events: Events, sees: Sees) -> Mask:
    """For each of the sorted events: is it visible at its shard's start?"""
    visible = np.zeros(len(events), dtype=np.bool_)
    if not len(events):
        return visible
    shard = events["shard"]
    edges = np.append(np.flatnonzero(np.append(True, shard[1:] != shard[:-1])), len(events))
    for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        part = slice(begin, end)
        visible[part] = sees(int(shard[begin]), events["stream"][part], events["seq"][part])
    return visible
