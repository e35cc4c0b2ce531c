"""Which task runs took over a binlog transaction in its middle, and how many of its events had been sent.

Debezium numbers the events of a transaction from 1 on, and before 3.6.1 does so again when a task starts in the middle
of one (TransactionContext.beginTransaction, called for each GTID event; tried: MariaDB, 3.5.0). The committed offset
from which it starts then holds `transaction_id` and, by table, how many events are behind it
(TransactionContext.store): so the true number of an event is the one it has plus those. An offset between transactions
has no `transaction_id`. Since 3.6.1 a task numbers on (`deliveries.counts_on`; tried: MySQL, 3.6.1), and how it began
is not asked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from cdc_platform.clients.kafka.offset_history import OffsetHistories, WrittenOffset
from cdc_platform.model.topology import Dataset, Engine, Topology
from cdc_platform.verification.continuity.committed_positions import transaction_of
from cdc_platform.verification.continuity.handovers import CLOCKS_MS
from cdc_platform.verification.duplicates.deliveries import transaction_words

_ID = "transaction_id"
_COUNT = "transaction_data_collection_order_"


@dataclass(frozen=True, slots=True)
class Takeover:
    """A run began behind so many events of a transaction (as `transaction_words` has it).

    0 and 0: between two, or it numbers on.
    """

    transaction: int
    events: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StartedRun:
    """A task run to find the beginning of. `at`: its start; `since`: its predecessor's commits are read from then;
    `starts`: of the shard's runs. All in ms since 1970.
    """

    shard: str
    run: str
    at: int
    since: int
    starts: tuple[int, ...] = ()


class Takeovers(Protocol):
    """Knows how task runs began. Raises KafkaUnavailable, KafkaRejected."""

    def find(self, runs: Collection[StartedRun]) -> Mapping[str, Takeover]:
        """Run id to how it began; those of which that is not known are left out."""


class OffsetTakeovers:
    """`Takeovers` of a dataset's shards, by Connect's offsets topics. Each run is asked for once."""

    def __init__(self, offsets: OffsetHistories, topology: Topology, dataset: Dataset) -> None:
        self._offsets = offsets
        self._clusters = [topology.clusters[name] for name in dataset.clusters if name in topology.clusters]
        self._names = {shard.id: shard.name for shard in topology.shards.get(dataset.name, ())}
        self._engine = dataset.engine
        self._known: dict[str, Takeover | None] = {}

    def find(self, runs: Collection[StartedRun]) -> Mapping[str, Takeover]:
        """Run id to how it began."""
        fresh = [run for run in runs if run.run not in self._known and run.shard in self._names]
        written = self._written(fresh)
        for run in fresh:
            commits = written.get(self._names[run.shard], ())
            self._known[run.run] = taken_over(self._engine, commits, run.at, run.starts)
        found = {run.run: self._known.get(run.run) for run in runs}
        return {name: takeover for name, takeover in found.items() if takeover is not None}

    def _written(self, runs: Sequence[StartedRun]) -> Mapping[str, Sequence[WrittenOffset]]:
        windows: dict[str, tuple[int, int]] = {}
        for run in runs:
            since, until = windows.get(self._names[run.shard], (run.since, run.at))
            windows[self._names[run.shard]] = (min(since, run.since), max(until, run.at + CLOCKS_MS))
        found: dict[str, list[WrittenOffset]] = defaultdict(list)
        for cluster in self._clusters if windows else ():
            for name, offsets in self._offsets.read(cluster, windows).items():
                found[name] += offsets
        return {name: sorted(offsets, key=lambda one: one.at) for name, offsets in found.items()}


def taken_over(
    engine: Engine, written: Sequence[WrittenOffset], at: int, starts: Collection[int] = ()
) -> Takeover | None:
    """How a run began that started then (ms), by its connector's offsets in their order. None: it is not known. Pure.

    A run that had itself taken over the transaction has counted from 1, too: where another run began between two
    commits, or the count falls, what was counted before is added.
    """
    before = [one for one in written if one.at <= at + CLOCKS_MS]
    if not before:
        return None
    last = before[-1].offset or {}
    if _ID not in last:
        return Takeover(0, 0)
    stream, number = transaction_of(engine, str(last[_ID]))
    word = transaction_words(engine, np.array([stream], dtype=np.uint32), np.array([number], dtype=np.uint64))
    events = counted = 0
    since: int | None = None
    for one in before:
        if one.offset is None or one.offset.get(_ID) != last[_ID]:
            continue
        count = _sent(one.offset)
        if since is not None and (count < counted or any(since <= born + CLOCKS_MS < one.at for born in starts)):
            events += counted
        since, counted = one.at, count
    return Takeover(int(word[0]), events + counted)


def _sent(offset: Mapping[str, Any]) -> int:
    return sum(int(count) for name, count in offset.items() if name.startswith(_COUNT))
