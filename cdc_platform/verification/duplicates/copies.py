"""Which events were sent more than once. Pure, on arrays.

`copies` finds, for every event that is not the first of its identity, the one before it; what was found is kept
as counts by (earlier run, later run, how). Who is to blame is worked out from those (`duplicates`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cdc_platform.verification.duplicates.deliveries import NUMBERS, READ, Deliveries
from cdc_platform.verification.duplicates.transaction_takeovers import Takeover
from cdc_platform.verification.proof.change_events import Words

Indexes = npt.NDArray[np.int64]

# How a copy stands to the one before it.
SAME_PLACE, OTHER_PLACE, SAME_RECORD, READ_AGAIN = range(4)


@dataclass(frozen=True, slots=True)
class Span:
    """One task run in one partition: first and last offset and time (ms), and how many events."""

    shard: str
    run: str
    worker: str
    first: int
    last: int
    begun: int
    ended: int
    events: int


@dataclass(frozen=True, slots=True)
class Pair:
    """Copies in one partition whose earlier one is of run `before`, the later one of run `after` (numbers).

    `how` is one of SAME_PLACE, OTHER_PLACE, SAME_RECORD, READ_AGAIN; offsets and times are the copies'.
    """

    before: int
    after: int
    how: int
    count: int
    first: int
    last: int
    begun: int
    ended: int


@dataclass(frozen=True, slots=True)
class PartitionCounts:
    """What is known of one partition. Spans are by run number; `unsure` are numbers of runs that nothing tells of."""

    partition: int
    spans: Sequence[Span]
    pairs: Sequence[Pair]
    unsure: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Copies:
    """Places in the deliveries that were looked at: the copies, the one before each, and how they relate."""

    before: Indexes
    after: Indexes
    how: npt.NDArray[np.uint8]


def repeated(seen: Deliveries) -> Indexes:
    """Where the deliveries are whose identity was met more than once, by identity."""
    order = np.argsort(seen["key"], kind="stable")
    keys = seen["key"][order]
    same = keys[1:] == keys[:-1]
    if not same.any():
        return np.zeros(0, dtype=np.int64)
    found: Indexes = order[np.append(same, False) | np.append(False, same)]
    return found


@dataclass(frozen=True, slots=True)
class Crossing:
    """Places of events of transactions of which several runs sent events of one identity; the transaction of each."""

    at: Indexes
    transactions: Words

    @classmethod
    def of(cls, seen: Deliveries, again: Indexes, transactions: Words) -> Crossing:
        """Among those `again` (as `repeated` has them). `transactions` has 0 for what was seen earlier."""
        if not len(again):
            return cls(again, np.zeros(0, dtype=np.uint64))
        keys = seen["key"][again]
        starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
        sizes = np.diff(np.append(starts, len(keys)))
        runs = seen["run"][again]
        several = np.minimum.reduceat(runs, starts) != np.maximum.reduceat(runs, starts)
        words = np.maximum.reduceat(transactions[again], starts)
        numbered = (seen["place"][again] & NUMBERS) != 0
        chosen = np.repeat(several & (words != 0), sizes) & numbered
        return cls(again[chosen], np.repeat(words, sizes)[chosen])

    def renumber(self, seen: Deliveries, takeovers: Mapping[int, Takeover]) -> None:
        """Give the events of runs (by number) that took a transaction over in its middle their true numbers."""
        runs = seen["run"][self.at]
        for run, takeover in takeovers.items():
            mine = self.at[(runs == run) & (self.transactions == np.uint64(takeover.transaction))]
            seen["place"][mine] += np.uint64(takeover.events)


def copies(seen: Deliveries, again: Indexes, fresh: npt.NDArray[np.bool_], servers: Servers) -> Copies:
    """The copies among the `fresh` of these deliveries, which hold all earlier ones of their identities.

    Args:
        again: as `repeated` has it.
        servers: events of one identity without a number in their transaction, at several places, are one event where
            the places are of several servers, and several where they are of one (two updates of one row in one
            transaction). Which runs read the same server is learnt from what they share.
    """
    if not len(again):
        return Copies(again, again, again.astype(np.uint8))
    numbers = seen["place"][again] & NUMBERS
    order = again[np.lexsort((seen["offset"][again], numbers, seen["key"][again]))]
    ranked = seen[order]
    numbers = ranked["place"] & NUMBERS
    alike = ranked["key"][1:] == ranked["key"][:-1]
    twin = np.flatnonzero(alike & (numbers[1:] == numbers[:-1]))
    elsewhere = (ranked["place"][twin] != ranked["place"][twin + 1]) & (numbers[twin] == 0)
    if not elsewhere.any():
        before, after = twin, twin + 1
    else:
        starts = np.cumsum(np.append(True, ~alike)) - 1
        odd = np.isin(starts, starts[twin[elsewhere]])
        plain = twin[~odd[twin]]
        servers.learn(ranked, plain)
        groups: dict[int, list[int]] = defaultdict(list)
        for at in np.flatnonzero(odd).tolist():
            groups[int(starts[at])].append(at)
        for group in groups.values():
            servers.learn_group(ranked, group)
        found = [pair for group in groups.values() for pair in _matched(ranked, group, servers)]
        before = np.concatenate([plain, np.array([a for a, _ in found], dtype=np.int64)])
        after = np.concatenate([plain + 1, np.array([b for _, b in found], dtype=np.int64)])
    chosen = fresh[order[after]]
    before, after = before[chosen], after[chosen]
    return Copies(order[before], order[after], _how(ranked, before, after))


class Servers:
    """Which runs read the same server: those that saw one event at one place."""

    def __init__(self, pairs: Iterable[tuple[int, int]] = ()) -> None:
        self._parent: dict[int, int] = {}
        for one, other in pairs:
            self.join(one, other)

    def of(self, run: int) -> int:
        """The server of a run, as the number of one of its runs."""
        while self._parent.get(run, run) != run:
            run = self._parent[run]
        return run

    def join(self, one: int, other: int) -> None:
        """These two runs read the same server."""
        self._parent[self.of(one)] = self.of(other)

    def learn(self, ranked: Deliveries, twins: npt.NDArray[np.int64]) -> None:
        """From neighbours that agree in place; a place of 0 (Postgres, snapshots) says nothing."""
        twins = twins[ranked["place"][twins] != 0]
        pairs = np.unique(np.stack([ranked["run"][twins], ranked["run"][twins + 1]], axis=1), axis=0)
        for one, other in pairs.tolist():
            self.join(one, other)

    def learn_group(self, ranked: Deliveries, group: Sequence[int]) -> None:
        """From the deliveries of one identity."""
        by_place: dict[int, int] = {}
        for at in group:
            run, place = int(ranked["run"][at]), int(ranked["place"][at])
            if place in by_place:
                self.join(by_place[place], run)
            by_place[place] = run


def _matched(ranked: Deliveries, group: Sequence[int], servers: Servers) -> Iterable[tuple[int, int]]:
    """(earlier, later) for the deliveries of one identity that has several places and no numbers.

    The n-th place on one server is the n-th on another.
    """
    events: list[int] = []  # the last sighting of each distinct event
    ranks: dict[int, dict[int, int]] = defaultdict(dict)  # server to place to number of the event
    for at in group:
        server, place = servers.of(int(ranked["run"][at])), int(ranked["place"][at])
        known = ranks[server]
        number = known.setdefault(place, len(known))
        if number < len(events):
            yield events[number], at
            events[number] = at
        else:
            events.append(at)


def _how(ranked: Deliveries, before: Any, after: Any) -> npt.NDArray[np.uint8]:
    one, other = ranked[before], ranked[after]
    how = np.where(one["place"] == other["place"], SAME_PLACE, OTHER_PLACE).astype(np.uint8)
    how[other["kind"] == READ] = READ_AGAIN
    how[(one["run"] == other["run"]) & (one["time"] == other["time"])] = SAME_RECORD
    return how


def counted(seen: Deliveries, found: Copies) -> list[Pair]:
    """Copies as counts by (earlier run, later run, how)."""
    if not len(found.after):
        return []
    columns = np.stack(
        [seen["run"][found.before].astype(np.int64), seen["run"][found.after].astype(np.int64), found.how.astype(int)]
    )
    kinds, place = np.unique(columns, axis=1, return_inverse=True)
    place = place.reshape(-1)
    order = np.argsort(place, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(place[order]) != 0))
    late = seen[found.after][order]
    ends = [ufunc.reduceat(late[name], starts) for name in ("offset", "time") for ufunc in (np.minimum, np.maximum)]
    counts = np.diff(np.append(starts, len(order)))
    return [
        Pair(int(before), int(after), int(how), *(int(part) for part in rest))
        for (before, after, how), *rest in zip(kinds.T.tolist(), counts, *ends, strict=True)
    ]


def merged(pairs: Iterable[Pair]) -> list[Pair]:
    """Counts of the same (earlier run, later run, how) in one."""
    found: dict[tuple[int, int, int], Pair] = {}
    for pair in pairs:
        key = (pair.before, pair.after, pair.how)
        known = found.get(key)
        found[key] = (
            pair
            if known is None
            else Pair(
                *key,
                known.count + pair.count,
                min(known.first, pair.first),
                max(known.last, pair.last),
                min(known.begun, pair.begun),
                max(known.ended, pair.ended),
            )
        )
    return list(found.values())
