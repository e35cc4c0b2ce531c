"""The fold: of each key's events, those that a comparison can still need.

Pure functions on arrays. Sorted means by shard, key, epoch, seq and offset: the
events of a key then stand in the order in which the source made them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from cdc_platform.verification.events import PARTIAL, Events

Mask = npt.NDArray[np.bool_]

# Shard number, streams and seqs of its events to: is it visible at the shard's fence?
Sees = Callable[[int, Any, Any], Mask]


def in_order(events: Events) -> Events:
    """The events sorted, repeats dropped.

    Most events arrive in the source's order, so a stable sort by key does, and
    is several times faster than one by all fields.
    """
    order = np.argsort(events["key"], kind="stable")
    order = order[np.argsort(events["shard"][order], kind="stable")]
    found = events[order]
    if _disorder(found):
        found = found[np.lexsort([found[name] for name in ("offset", "seq", "epoch", "key", "shard")])]
    return _without_repeats(found)


def _same_key(events: Events) -> Mask:
    """For each event but the first: has it the shard and key of the one before?"""
    key, shard = events["key"], events["shard"]
    same: Mask = (key[1:] == key[:-1]) & (shard[1:] == shard[:-1])
    return same


def _disorder(events: Events) -> bool:
    same = _same_key(events)
    epoch, seq, offset = events["epoch"], events["seq"], events["offset"]
    earlier = (epoch[1:] < epoch[:-1]) | (
        (epoch[1:] == epoch[:-1]) & ((seq[1:] < seq[:-1]) | ((seq[1:] == seq[:-1]) & (offset[1:] < offset[:-1])))
    )
    return bool((same & earlier).any())


def _without_repeats(events: Events) -> Events:
    """Copies of one event (same key, same place in the source) made one: where the first stood, with the last's row.

    Within a transaction the order is that of first arrival: places in a binlog
    differ from server to server, and a copy sent after a failover has others.
    Copies are equal unless somebody changed one; then who reads the topic sees the last.
    """
    if len(events) < 2:
        return events
    twins = (
        _same_key(events) & (events["epoch"][1:] == events["epoch"][:-1]) & (events["seq"][1:] == events["seq"][:-1])
    )
    if not twins.any():
        return events
    suspects = np.flatnonzero(np.append(twins, False) | np.append(False, twins))
    part = events[suspects]
    order = np.lexsort([part[name] for name in ("offset", "sub", "seq", "epoch", "key", "shard")])
    ranked = part[order]
    again = _same_key(ranked)
    for name in ("epoch", "seq", "sub"):
        again &= ranked[name][1:] == ranked[name][:-1]
    if not again.any():
        return events
    group = np.cumsum(np.append(True, ~again)) - 1
    firsts = np.flatnonzero(np.append(True, ~again))
    lasts = np.append(firsts[1:], len(ranked)) - 1
    ranked["row"] = ranked["row"][lasts][group]
    events = events.copy()
    events[suspects[order]] = ranked
    return np.delete(events, suspects[order[1:][again]])


def starts_of(events: Events) -> npt.NDArray[np.int64]:
    """Where each key begins in sorted events."""
    if not len(events):
        return np.zeros(0, dtype=np.int64)
    return np.flatnonzero(np.append(True, ~_same_key(events)))


def settle(events: Events, sees: Sees) -> Events:
    """Drop, of sorted events, what no comparison at the fence or later can need.

    An event goes when it and a later event of its key are both visible at the
    fence. One that lacks unchanged values replaces nothing.
    """
    visible = visible_events(events, sees)
    starts = starts_of(events)
    if len(starts) == len(events):
        return events
    places = np.arange(len(events))
    last = np.maximum.reduceat(np.where(visible & (events["row"] != PARTIAL), places, -1), starts)
    last = np.repeat(last, np.diff(np.append(starts, len(events))))
    return events[~(visible & (places < last))]


def visible_events(events: Events, sees: Sees) -> Mask:
    """For each of the sorted events: does its shard's fence see it?"""
    visible = np.zeros(len(events), dtype=np.bool_)
    if not len(events):
        return visible
    shard = events["shard"]
    edges = np.append(np.flatnonzero(np.append(True, shard[1:] != shard[:-1])), len(events))
    for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        part = slice(begin, end)
        visible[part] = sees(int(shard[begin]), events["stream"][part], events["seq"][part])
    return visible
