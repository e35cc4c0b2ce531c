"""Which events were sent more than once. Pure, on arrays.

`copies` finds, for every event that is not the first of its identity, the one before it; what was found is kept
as counts by (earlier run, later run, how). Their causes are worked out from those (`causes.py`).
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
SAME_POSITION, OTHER_POSITION, SAME_RECORD, READ_AGAIN = range(4)


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

    `how` is one of SAME_POSITION, OTHER_POSITION, SAME_RECORD, READ_AGAIN; offsets and times are the copies'.
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
    """What is known of one partition. Spans are by run number; `unsure` numbers runs whose beginning is not known."""

    partition: int
    spans: Sequence[Span]
    pairs: Sequence[Pair]
    unsure: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Copies:
    """Indexes of the deliveries that were compared: the copies, the one before each, and how they relate."""

    before: Indexes
    after: Indexes
    how: npt.NDArray[np.uint8]


def repeated(deliveries: Deliveries) -> Indexes:
    """The indexes of deliveries whose identity came more than once, by identity."""
    order = np.argsort(deliveries["key"], kind="stable")
    keys = deliveries["key"][order]
    same = keys[1:] == keys[:-1]
    if not same.any():
        return np.zeros(0, dtype=np.int64)
    found: Indexes = order[np.append(same, False) | np.append(False, same)]
    return found


@dataclass(frozen=True, slots=True)
class Crossing:
    """Indexes of events of transactions of which several runs sent events of one identity; the transaction of each."""

    at: Indexes
    transactions: Words

    @classmethod
    def of(cls, deliveries: Deliveries, again: Indexes, transactions: Words) -> Crossing:
        """Among those `again` (as `repeated` has them). `transactions` has 0 for what was delivered earlier."""
        if not len(again):
            return cls(again, np.zeros(0, dtype=np.uint64))
        keys = deliveries["key"][again]
        starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
        sizes = np.diff(np.append(starts, len(keys)))
        runs = deliveries["run"][again]
        several = np.minimum.reduceat(runs, starts) != np.maximum.reduceat(runs, starts)
        words = np.maximum.reduceat(transactions[again], starts)
        numbered = (deliveries["position"][again] & NUMBERS) != 0
        chosen = np.repeat(several & (words != 0), sizes) & numbered
        return cls(again[chosen], np.repeat(words, sizes)[chosen])

    def renumber(self, deliveries: Deliveries, takeovers: Mapping[int, Takeover]) -> None:
        """Give the events of runs (by number) that took a transaction over in its middle their true numbers."""
        runs = deliveries["run"][self.at]
        for run, takeover in takeovers.items():
            chosen = self.at[(runs == run) & (self.transactions == np.uint64(takeover.transaction))]
            deliveries["position"][chosen] += np.uint64(takeover.events)


def copies(deliveries: Deliveries, again: Indexes, fresh: npt.NDArray[np.bool_], servers: Servers) -> Copies:
    """The copies among the `fresh` of these deliveries, which hold all earlier ones of their identities.

    Args:
        again: as `repeated` has it.
        servers: events of one identity without a number in their transaction, at several positions, are one event
            where the positions are of several servers, and several where they are of one (two updates of one row in
            one transaction). Which runs read the same server is learnt from what they share.
    """
    if not len(again):
        return Copies(again, again, again.astype(np.uint8))
    numbers = deliveries["position"][again] & NUMBERS
    order = again[np.lexsort((deliveries["offset"][again], numbers, deliveries["key"][again]))]
    ranked = deliveries[order]
    numbers = ranked["position"] & NUMBERS
    alike = ranked["key"][1:] == ranked["key"][:-1]
    twin = np.flatnonzero(alike & (numbers[1:] == numbers[:-1]))
    elsewhere = (ranked["position"][twin] != ranked["position"][twin + 1]) & (numbers[twin] == 0)
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
    """Which runs read the same server: those that read one event at one position."""

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

    def learn(self, ranked: Deliveries, pairs: npt.NDArray[np.int64]) -> None:
        """From neighbours of equal position; a position of 0 (Postgres, snapshots) says nothing."""
        pairs = pairs[ranked["position"][pairs] != 0]
        runs = np.unique(np.stack([ranked["run"][pairs], ranked["run"][pairs + 1]], axis=1), axis=0)
        for one, other in runs.tolist():
            self.join(one, other)

    def learn_group(self, ranked: Deliveries, group: Sequence[int]) -> None:
        """From the deliveries of one identity."""
        by_position: dict[int, int] = {}
        for at in group:
            run, position = int(ranked["run"][at]), int(ranked["position"][at])
            if position in by_position:
                self.join(by_position[position], run)
            by_position[position] = run


def _matched(ranked: Deliveries, group: Sequence[int], servers: Servers) -> Iterable[tuple[int, int]]:
    """(earlier, later) for the deliveries of one identity that has several positions and no numbers.

    The n-th position on one server is the n-th on another.
    """
    events: list[int] = []  # the last delivery of each distinct event
    ranks: dict[int, dict[int, int]] = defaultdict(dict)  # server to position to number of the event
    for at in group:
        server, position = servers.of(int(ranked["run"][at])), int(ranked["position"][at])
        known = ranks[server]
        number = known.setdefault(position, len(known))
        if number < len(events):
            yield events[number], at
            events[number] = at
        else:
            events.append(at)


def _how(ranked: Deliveries, before: Any, after: Any) -> npt.NDArray[np.uint8]:
    one, other = ranked[before], ranked[after]
    how = np.where(one["position"] == other["position"], SAME_POSITION, OTHER_POSITION).astype(np.uint8)
    how[other["kind"] == READ] = READ_AGAIN
    how[(one["run"] == other["run"]) & (one["time"] == other["time"])] = SAME_RECORD
    return how


def counted(deliveries: Deliveries, found: Copies) -> list[Pair]:
    """Copies as counts by (earlier run, later run, how)."""
    if not len(found.after):
        return []
    runs = deliveries["run"].astype(np.int64)
    columns = np.stack([runs[found.before], runs[found.after], found.how.astype(int)])
    kinds, kind_of = np.unique(columns, axis=1, return_inverse=True)
    kind_of = kind_of.reshape(-1)
    order = np.argsort(kind_of, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(kind_of[order]) != 0))
    late = deliveries[found.after][order]
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
