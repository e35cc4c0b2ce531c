"""Before a table is called whole, what arrived is held against the source's own count.

The task that ended a table's scan says how many rows it has read. Where that is just what the source counts, all is
well. Else rows were written meanwhile, or the task was restarted, or rows are missing: then the keys are counted in
the topic, between two counts of the source, for as long as more of them arrive.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime

from cdc_platform.clients.sources.logs import SourceLogs
from cdc_platform.connectors.identity import table_topic
from cdc_platform.errors import CdcError, Unavailable
from cdc_platform.model.topology import Dataset, Table
from cdc_platform.snapshots.ports import LiveKeys
from cdc_platform.snapshots.run_records import RowCount, Run, ShardState
from cdc_platform.snapshots.slice_state import SliceShard
from cdc_platform.snapshots.table_progress import CLOCK_SLACK

_PARALLEL = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Seconds: between the first two tries; how long a topic may lack as many keys as before, a server be silent."""

    between: float = 3.0
    standstill: float = 45.0
    silence: float = 600.0


@dataclass(kw_only=True)
class RowCounter:
    """Counts the rows of a slice's shards, each once, in threads of its own; `close` ends them.

    `seconds` bounds each statement on a source.
    """

    run: Run
    dataset: Dataset
    sources: SourceLogs
    live_keys: LiveKeys
    seconds: int
    free_text: bool = False
    patience: Patience = field(default_factory=Patience)

    def __post_init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=_PARALLEL, thread_name_prefix="counts")
        self._under_way: dict[str, Future[dict[str, RowCount]]] = {}
        self._topics = _TopicKeys(self.live_keys)
        self._closed = threading.Event()

    def counts(self, shard: SliceShard) -> Mapping[str, RowCount] | None:
        """By table; None while they are being counted."""
        future = self._under_way.get(shard.id)
        if future is None:
            future = self._under_way[shard.id] = self._pool.submit(self._count, shard)
        if not future.done():
            return None
        del self._under_way[shard.id]
        return future.result()

    def close(self) -> None:
        """Begin no more; what is under way ends with its statement."""
        self._closed.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _count(self, shard: SliceShard) -> dict[str, RowCount]:
        wanted = [(name, self.dataset.table(table)) for name, table in shard.names.items() if name in shard.tables]
        return {table.name: self._count_table(shard, name, table) for name, table in wanted}

    def _count_table(self, shard: SliceShard, name: str, table: Table) -> RowCount:
        progress = shard.progress.tables[name]
        scanned = progress.scanned or 0
        try:
            rows = self._source(shard, table)
            if rows == scanned:
                return RowCount(read=scanned, low=rows, high=rows)
            return self._in_topic(shard, table, rows)
        except CdcError as error:
            return RowCount(read=max(scanned, progress.rows), uncounted=error.message)

    def _in_topic(self, shard: SliceShard, table: Table, before: int) -> RowCount:
        assert shard.state is not None
        since, topic = _since(shard, shard.state), table_topic(self.dataset, table)
        most, changed, pause = -1, time.monotonic(), self.patience.between
        while True:
            read = self._patiently(lambda: self._topics.count(topic, shard.id, since))
            after = self._source(shard, table)
            count = RowCount(read=read, low=min(before, after), high=max(before, after))
            if read != most:
                most, changed = read, time.monotonic()
            if count.whole or time.monotonic() - changed > self.patience.standstill or self._closed.is_set():
                return count
            before = after
            self._closed.wait(pause)
            pause *= 2  # each look reads the topic from the beginning of the snapshot on

    def _source(self, shard: SliceShard, table: Table) -> int:
        condition = self.run.request.filter(self.dataset.engine, shard.id, free_text=self.free_text)
        count = self.sources.count_rows
        return self._patiently(lambda: count(self.dataset, shard.spec, table, condition, self.seconds))

    def _patiently(self, ask: Callable[[], int]) -> int:
        end = time.monotonic() + self.patience.silence
        while True:
            try:
                return ask()
            except Unavailable:
                if time.monotonic() > end or self._closed.wait(self.patience.between):
                    raise


def _since(shard: SliceShard, state: ShardState) -> datetime:
    """From when on records are of this snapshot: an initial one may be older than the run that adopts it."""
    return min(state.began, shard.progress.started or state.began) - CLOCK_SLACK


@dataclass(slots=True, eq=False)
class _Asked:
    shard: str
    since: datetime
    keys: int | None = None


class _TopicKeys:
    """Reads one topic at a time, for all shards that wait for it."""

    def __init__(self, live_keys: LiveKeys) -> None:
        self._live_keys = live_keys
        self._waiting: dict[str, list[_Asked]] = {}
        self._guard = threading.Lock()
        self._reading = threading.Lock()

    def count(self, topic: str, shard: str, since: datetime) -> int:
        """The shard's keys in the topic now."""
        own = _Asked(shard, since)
        with self._guard:
            self._waiting.setdefault(topic, []).append(own)
        with self._reading:
            if own.keys is None:
                with self._guard:
                    asked = self._waiting.pop(topic, [])
                together = asked if own in asked else [own, *asked]
                found = self._live_keys(topic, {one.shard: one.since for one in together})
                for one in together:
                    one.keys = found[one.shard]
        assert own.keys is not None
        return own.keys
