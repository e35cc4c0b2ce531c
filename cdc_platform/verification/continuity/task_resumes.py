"""Which task runs are new, and did each resume where its predecessor had committed?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from cdc_platform.clients.kafka.offset_history import OffsetHistories
from cdc_platform.clients.platform import Platform
from cdc_platform.model.topology import Dataset, Shard, Table, Topology
from cdc_platform.snapshots.run_records import watermarks
from cdc_platform.verification.continuity.handovers import (
    CLOCKS_MS,
    Break,
    BreakKind,
    Commit,
    LogPositions,
    Resumed,
    Rows,
    Silence,
    commit_of,
    positions_text,
    resumed,
    sent_before,
    span_text,
)
from cdc_platform.verification.continuity.ledger_store import LedgerStore, codes
from cdc_platform.verification.duplicates.causes import run_start
from cdc_platform.verification.duplicates.delivery_store import TopicDeliveries

# Runs that are older when they are first seen are not judged: Connect's topic tells of them no more.
_RUN_MS = 86_400_000
# A run commits first a flush interval (5 s) after its birth, and that may be what tells how it began.
_FIRST_COMMIT_MS = 15_000
# The last sign of a run may be older than its last commit by so much.
BEFORE_MS = 60_000


@dataclass(frozen=True, slots=True)
class _Birth:
    """A task run that was not judged yet, born then (ms), in that silence; `after` is its predecessor's birth."""

    name: str
    at: int
    before: Silence | None
    after: int

    @property
    def sent(self) -> LogPositions | None:
        """How far was sent before it."""
        return None if self.before is None else self.before.sent

    @property
    def since(self) -> int:
        """From when on its predecessor's commits are looked for."""
        return (self.at if self.before is None else min(self.at, self.before.after)) - BEFORE_MS

    @property
    def whole(self) -> bool:
        """True when its predecessor was born so late that all its commits are looked for."""
        return self.after >= self.since + CLOCKS_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumes:
    """Judges the task runs of one table's shards."""

    platform: Platform
    offsets: OffsetHistories
    topology: Topology
    dataset: Dataset
    table: Table
    shards: Mapping[str, Shard]
    now: datetime

    def judge(self, store: LedgerStore, deliveries: TopicDeliveries, sent: Rows) -> list[Break]:
        """The breaks of runs that were not seen before; the others are counted in the shards' books.

        Args:
            sent: how far the shards' transactions were sent since the last time (`SENT`).
        """
        births: dict[str, dict[str, int]] = {}
        for part in deliveries.counts():
            for span in part.spans:
                if span.run:
                    runs = births.setdefault(span.shard, {})
                    runs[span.run] = min(runs.get(span.run, span.begun), run_start(span.run, span.begun))
        number = codes(store.state.shards)
        sent = sent[np.argsort(sent["shard"], kind="stable")]
        touched = {store.state.shards[code] for code in np.unique(sent["shard"]).tolist()}
        oldest = self._ms - _RUN_MS
        fresh: dict[str, list[_Birth]] = {}
        for shard in sorted({*births, *touched}):
            book = store.state.book(shard)
            known = births.get(shard, {})
            new = {run: at for run, at in known.items() if run not in book.runs}
            if new and not book.runs:
                del new[min(new, key=known.__getitem__)]  # the first has no predecessor
            code = number.get(shard, -1)
            begin, end = np.searchsorted(sent["shard"], [code, code + 1]) if code >= 0 else (0, 0)
            silences = book.sent.extend(sent[begin:end], new.values())
            book.runs = list(known)
            if shard in self.shards:
                fresh[shard] = [
                    _Birth(run, at, sent_before(at, book.sent, silences), _before(at, known.values()))
                    for run, at in new.items()
                    if at >= oldest
                ]
        return self._judged(store, {shard: runs for shard, runs in fresh.items() if runs})

    @property
    def _ms(self) -> int:
        return int(self.now.timestamp() * 1000)

    def _judged(self, store: LedgerStore, fresh: Mapping[str, Sequence[_Birth]]) -> list[Break]:
        written = self._written(
            {
                # Its own first commit tells that there is something to read at all.
                self.shards[shard].name: (min(run.since for run in runs), max(run.at for run in runs) + BEFORE_MS)
                for shard, runs in fresh.items()
            }
        )
        anew = self._fresh_starts() if fresh else {}
        found = []
        for shard, runs in fresh.items():
            book = store.state.book(shard)
            for run in runs:
                commits = written.get(self.shards[shard].name, ())
                told = resumed(commits, run.sent, run.at, whole=run.whole)
                if not told.known and run.at > self._ms - _FIRST_COMMIT_MS:
                    book.runs.remove(run.name)  # the next look judges it
                    continue
                gap = self._gap(told)
                if gap is not None and told.since - BEFORE_MS <= anew.get(shard, 0) <= run.at + BEFORE_MS:
                    gap = None  # started anew on purpose: what lies between is out of scope
                book.resumed += told.known and gap is None
                book.unknown += not told.known
                if gap is not None:
                    kind, text = gap
                    found.append(Break(shard=shard, kind=kind, range=text, found_at=self.now, run=run.name))
        return found

    def _gap(self, told: Resumed) -> tuple[BreakKind, str] | None:
        """What a run left out, in the source's terms; None: nothing."""
        engine = self.dataset.engine
        if told.skipped is not None:
            return BreakKind.RESUME, span_text(engine, *told.skipped)
        if told.forgotten is not None:
            return BreakKind.FORGOTTEN, span_text(engine, {}, told.forgotten)
        return None if told.anew is None else (BreakKind.ANEW, positions_text(engine, told.anew))

    def _written(self, windows: Mapping[str, tuple[int, int]]) -> dict[str, list[Commit]]:
        """Connector to what was committed for it."""
        found: dict[str, list[Commit]] = {}
        for name in self.dataset.clusters:
            if name in self.topology.clusters:
                for connector, offsets in self.offsets.read(self.topology.clusters[name], windows).items():
                    commits = [commit_of(self.dataset.engine, one.at, one.offset) for one in offsets]
                    found.setdefault(connector, []).extend(commits)
        return found

    def _fresh_starts(self) -> dict[str, int]:
        """Shard to when its connector was last started anew on purpose (ms)."""
        marks = watermarks(self.platform.state.read(), self.dataset.name)
        return {
            mark.shard: int(mark.since.timestamp() * 1000) for mark in marks.values() if mark.table == self.table.name
        }


def _before(at: int, births: Iterable[int]) -> int:
    """The last birth before that one; 0 when there is none."""
    return max((birth for birth in births if birth < at), default=0)
