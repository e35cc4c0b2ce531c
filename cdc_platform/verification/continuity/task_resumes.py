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
from cdc_platform.verification.continuity.breaks import Break, BreakKind
from cdc_platform.verification.continuity.committed_positions import (
    Commit,
    LogPositions,
    commit_of,
    positions_text,
    span_text,
)
from cdc_platform.verification.continuity.handovers import CLOCKS_MS, Resumed, Silence, resumed, sent_before
from cdc_platform.verification.continuity.ledger_store import LedgerStore, codes
from cdc_platform.verification.continuity.transaction_balance import Rows
from cdc_platform.verification.duplicates.causes import run_start
from cdc_platform.verification.duplicates.delivery_store import TopicDeliveries

# Runs that are older when they are first read of are not judged: Connect's topic no longer has their commits.
_RUN_MS = 86_400_000
# A run commits first a flush interval (5 s) after its start, and that may be what shows how it began.
_FIRST_COMMIT_MS = 15_000
# The last event of a run may be older than its last commit by so much.
BEFORE_MS = 60_000


@dataclass(frozen=True, slots=True)
class _Start:
    """A task run that was not judged yet, started then (ms), in that silence; `after` is its predecessor's start."""

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
        """True when its predecessor started so late that all its commits are looked for."""
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
        """The breaks of runs that were not judged before; the others are counted in the shards' ledgers.

        Args:
            sent: how far the shards' transactions were sent since the last time (`SENT`).
        """
        starts: dict[str, dict[str, int]] = {}
        for part in deliveries.counts():
            for span in part.spans:
                if span.run:
                    runs = starts.setdefault(span.shard, {})
                    runs[span.run] = min(runs.get(span.run, span.begun), run_start(span.run, span.begun))
        number = codes(store.state.shards)
        sent = sent[np.argsort(sent["shard"], kind="stable")]
        touched = {store.state.shards[code] for code in np.unique(sent["shard"]).tolist()}
        oldest = self._ms - _RUN_MS
        fresh: dict[str, list[_Start]] = {}
        for shard in sorted({*starts, *touched}):
            ledger = store.state.ledger(shard)
            known = starts.get(shard, {})
            new = {run: at for run, at in known.items() if run not in ledger.runs}
            if new and not ledger.runs:
                del new[min(new, key=known.__getitem__)]  # the first has no predecessor
            code = number.get(shard, -1)
            begin, end = np.searchsorted(sent["shard"], [code, code + 1]) if code >= 0 else (0, 0)
            silences = ledger.sent.extend(sent[begin:end], new.values())
            ledger.runs = list(known)
            if shard in self.shards:
                fresh[shard] = [
                    _Start(run, at, sent_before(at, ledger.sent, silences), _before(at, known.values()))
                    for run, at in new.items()
                    if at >= oldest
                ]
        return self._judged(store, {shard: runs for shard, runs in fresh.items() if runs})

    @property
    def _ms(self) -> int:
        return int(self.now.timestamp() * 1000)

    def _judged(self, store: LedgerStore, fresh: Mapping[str, Sequence[_Start]]) -> list[Break]:
        written = self._written(
            {
                # Its own first commit shows that there is something to read at all.
                self.shards[shard].name: (min(run.since for run in runs), max(run.at for run in runs) + BEFORE_MS)
                for shard, runs in fresh.items()
            }
        )
        from_scratch = self._fresh_starts() if fresh else {}
        found = []
        for shard, runs in fresh.items():
            ledger = store.state.ledger(shard)
            for run in runs:
                commits = written.get(self.shards[shard].name, ())
                resume = resumed(commits, run.sent, run.at, whole=run.whole)
                if not resume.known and run.at > self._ms - _FIRST_COMMIT_MS:
                    ledger.runs.remove(run.name)  # the next check judges it
                    continue
                gap = self._gap(resume)
                if gap is not None and resume.since - BEFORE_MS <= from_scratch.get(shard, 0) <= run.at + BEFORE_MS:
                    gap = None  # started from scratch on purpose: what lies between is out of scope
                ledger.resumed += resume.known and gap is None
                ledger.unknown += not resume.known
                if gap is not None:
                    kind, text = gap
                    found.append(Break(shard=shard, kind=kind, range=text, found_at=self.now, run=run.name))
        return found

    def _gap(self, resume: Resumed) -> tuple[BreakKind, str] | None:
        """What a run left out, in the source's terms; None: nothing."""
        engine = self.dataset.engine
        if resume.skipped is not None:
            return BreakKind.RESUME, span_text(engine, *resume.skipped)
        if resume.forgotten is not None:
            return BreakKind.FORGOTTEN, span_text(engine, {}, resume.forgotten)
        return (
            None
            if resume.from_scratch is None
            else (BreakKind.FROM_SCRATCH, positions_text(engine, resume.from_scratch))
        )

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
        """Shard to when its connector was last started from scratch on purpose (ms)."""
        marks = watermarks(self.platform.state.read(), self.dataset.name)
        return {
            mark.shard: int(mark.since.timestamp() * 1000) for mark in marks.values() if mark.table == self.table.name
        }


def _before(at: int, starts: Iterable[int]) -> int:
    """The last start before that one; 0 when there is none."""
    return max((start for start in starts if start < at), default=0)
