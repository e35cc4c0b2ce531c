"""A partition's deliveries on disk, extended batch by batch: each is compared with all that was delivered before.

A directory holds sorted runs of deliveries and `state.json`, which names them, the counts so far and the
offset to go on from; it is replaced as a whole. A new event is looked up among the old only when it could be one
of them: when its place in the source is not behind all that was seen of its shard.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from cdc_platform.verification.continuity.transaction_counts import count_transactions
from cdc_platform.verification.duplicates.causes import run_start
from cdc_platform.verification.duplicates.copies import (
    SAME_PLACE,
    Crossing,
    Pair,
    Servers,
    Span,
    copies,
    counted,
    merged,
    repeated,
)
from cdc_platform.verification.duplicates.deliveries import DELIVERY, READ, Deliveries, TaskRuns
from cdc_platform.verification.duplicates.transaction_takeovers import StartedRun, Takeover, Takeovers
from cdc_platform.verification.proof.change_events import Words
from cdc_platform.verification.storage import sorted_files as runs

# As long as the topics keep all events. A copy of something older is not found.
HORIZON_MS = 7 * 86_400_000

# A run's predecessor may have committed so long before its own last sign.
_BEFORE_MS = 60_000
# Where no predecessor is known.
_LONG_BEFORE_MS = 3_600_000

# Of the form of what is kept: another is read anew.
VERSION = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionState:
    """What is known of one partition. `high` maps a shard to stream to the greatest position seen; events up to
    `handed_over` (ms) may have gone to the ledger already. `takeovers` tells by the run's number how it began,
    `unsure` are runs of which nothing tells; the others were not asked for.
    """

    next_offset: int = 0
    begin: int = 0
    files: tuple[str, ...] = ()
    serial: int = 0
    events: int = 0
    strangers: int = 0
    newest: int = 0
    spans: tuple[Span, ...] = ()
    pairs: tuple[Pair, ...] = ()
    high: dict[str, dict[int, int]] = field(default_factory=dict)
    tallies: tuple[str, ...] = ()
    handed_over: int = 0
    takeovers: dict[int, Takeover] = field(default_factory=dict)
    unsure: tuple[int, ...] = ()
    version: int = VERSION


class DeliveryWriter:
    """Takes deliveries in, batch by batch."""

    def __init__(self, directory: Path, state: PartitionState, takeovers: Takeovers | None) -> None:
        self._dir = directory
        self._state = state
        self._takeovers = takeovers
        self.runs = TaskRuns.of([(span.shard, span.run, span.worker) for span in state.spans])
        self._parts: list[Deliveries] = []
        self._streams: list[Words] = []
        self._transactions: list[Words] = []
        self._next = state.next_offset
        self.held = 0

    def hold(self, found: Deliveries, streams: Words, transactions: Words, next_offset: int, strangers: int) -> None:
        """Keep a batch until the next flush."""
        self._parts.append(found)
        self._streams.append(streams)
        self._transactions.append(transactions)
        self.held += len(found)
        self._next = next_offset
        self._state = replace(self._state, strangers=self._state.strangers + strangers)

    def flush(self, next_offset: int | None = None) -> None:
        """Compare what is held with itself and what was seen before, then make it the state."""
        state = self._state
        fresh = np.concatenate([np.zeros(0, dtype=DELIVERY), *self._parts])
        streams = np.concatenate([np.zeros(0, dtype=np.uint64), *self._streams])
        transactions = np.concatenate([np.zeros(0, dtype=np.uint64), *self._transactions])
        self._parts, self._streams, self._transactions, self.held = [], [], [], 0
        suspects, high = self._above(fresh, streams)
        old = self._known(np.unique(fresh["key"][suspects]))
        seen = np.concatenate([old, fresh])
        servers = Servers((pair.before, pair.after) for pair in state.pairs if pair.how == SAME_PLACE)
        again = repeated(seen)
        spans = tuple(_spans(self.runs, state.spans, fresh))
        takeovers, unsure = self._renumbered(seen, again, transactions, spans)
        found = copies(seen, again, np.arange(len(seen)) >= len(old), servers)
        serial = state.serial + 1
        files = list(state.files)
        if len(fresh):
            files.append(self._write(serial, len(files), iter([fresh[np.argsort(fresh["key"], kind="stable")]])))
        newest = max(state.newest, int(fresh["time"].max()) if len(fresh) else 0)
        tallies = count_transactions(fresh, transactions)
        names = list(state.tallies)
        if len(tallies):
            names.append(self._write(serial, 0, iter([tallies]), suffix=f"-t{newest}"))
        files = self._thinned(files, serial, state.begin, newest - HORIZON_MS)
        self._state = replace(
            state,
            next_offset=self._next if next_offset is None else next_offset,
            files=tuple(files),
            serial=serial,
            events=state.events + len(fresh),
            newest=newest,
            spans=spans,
            pairs=tuple(merged([*state.pairs, *counted(seen, found)])),
            high=high,
            takeovers=takeovers,
            unsure=unsure,
            # Nobody has kept the ledger for so long: it begins anew.
            tallies=tuple(name for name in names if newest_of(name) >= newest - HORIZON_MS),
        )
        self._save()

    def _above(self, fresh: Deliveries, streams: Words) -> tuple[npt.NDArray[np.bool_], dict[str, dict[int, int]]]:
        """Which of the events may have been seen before, and the new high-water marks."""
        high = {shard: dict(marks) for shard, marks in self._state.high.items()}
        if not len(fresh):
            return np.zeros(0, dtype=np.bool_), high
        shards: dict[str, int] = {}
        of_run = np.array([shards.setdefault(name[0], len(shards)) for name in self.runs.names], dtype=np.uint64)
        names = list(shards)
        lanes = (of_run[fresh["run"]] << np.uint64(32)) | streams
        found, lane = np.unique(lanes, return_inverse=True)
        lane = lane.reshape(-1)
        marks = np.zeros(len(found), dtype=np.uint64)
        np.maximum.at(marks, lane, np.ascontiguousarray(fresh["seq"]))
        before = np.zeros(len(found), dtype=np.uint64)
        for at, (word, mark) in enumerate(zip(found.tolist(), marks.tolist(), strict=True)):
            own = high.setdefault(names[word >> 32], {})
            stream = word & 0xFFFFFFFF
            before[at] = own.get(stream, 0)
            own[stream] = max(own.get(stream, 0), mark)
        suspects: npt.NDArray[np.bool_] = (fresh["seq"] <= before[lane]) | (fresh["kind"] == READ)
        return suspects, high

    def _renumbered(
        self, seen: Deliveries, again: npt.NDArray[np.int64], transactions: Words, spans: Sequence[Span]
    ) -> tuple[dict[int, Takeover], tuple[int, ...]]:
        """Gives true numbers to events of transactions that were taken over; what is known now of runs' beginnings."""
        known, unsure = dict(self._state.takeovers), set(self._state.unsure)
        if self._takeovers is None:
            return known, ()
        earlier = np.zeros(len(seen) - len(transactions), dtype=np.uint64)
        crossing = Crossing.of(seen, again, np.concatenate([earlier, transactions]))
        asked = {code for code in np.unique(seen["run"][crossing.at]).tolist() if spans[code].run}
        asked -= known.keys() | unsure
        if asked:
            questions = {code: _started(spans, code) for code in asked}
            found = self._takeovers.find(list(questions.values()))
            known |= {code: found[one.run] for code, one in questions.items() if one.run in found}
            # One that has no predecessor here has taken nothing over here.
            unsure |= {code for code, one in questions.items() if one.run not in found and min(one.births) < one.at}
        crossing.renumber(seen, {code: takeover for code, takeover in known.items() if takeover.events})
        return known, tuple(sorted(unsure))

    def _known(self, keys: Words) -> Deliveries:
        """The earlier deliveries with these (sorted) identities, as far as the topic still has them."""
        parts = [np.zeros(0, dtype=DELIVERY)]
        if len(keys):
            for name in self._state.files:
                rows = runs.read(self._dir / name, DELIVERY)
                column = rows["key"]
                first = np.searchsorted(column, keys, side="left")
                count = np.searchsorted(column, keys, side="right") - first
                if count.any():
                    places = np.repeat(first - np.append(0, np.cumsum(count)[:-1]), count) + np.arange(count.sum())
                    parts.append(np.array(rows[places]))
        found = np.concatenate(parts)
        return found[found["offset"] >= self._state.begin]

    def _thinned(self, files: list[str], serial: int, begin: int, oldest: int) -> list[str]:
        """Merge the newest files while they are at least half as long as the one before."""

        def combine(rows: Deliveries) -> Deliveries:
            rows = rows[(rows["offset"] >= begin) & (rows["time"] >= oldest)]
            return rows[np.argsort(rows["key"], kind="stable")]

        while len(files) > 1:
            older, newer = files[-2:]
            if 2 * (self._dir / newer).stat().st_size < (self._dir / older).stat().st_size:
                break
            parts = [runs.read(self._dir / name, DELIVERY) for name in (older, newer)]
            del files[-2:]
            # Named by what it replaces too: both may have been of this serial.
            files.append(self._write(serial, len(files), runs.merged(parts, combine), suffix=f"-{older}"[-12:]))
        return files

    def _write(self, serial: int, number: int, pieces: Iterator[Deliveries], suffix: str = "") -> str:
        fresh = self._dir / "run.new"
        with fresh.open("wb") as stream:
            for piece in pieces:
                piece.tofile(stream)
        name = f"run-{serial}-{number}{suffix}" if suffix else f"run-{serial}-{number}"
        while (self._dir / name).exists():
            name += "m"
        fresh.replace(self._dir / name)
        return name

    def _save(self) -> None:
        save_state(self._dir, self._state)


def save_state(directory: Path, state: PartitionState) -> None:
    fresh = directory / "state.json.new"
    with fresh.open("wb") as stream:
        stream.write(msgspec.json.encode(state))
        stream.flush()
        os.fsync(stream.fileno())
    fresh.replace(directory / "state.json")
    kept = {*state.files, *state.tallies, "state.json", "lock"}
    for path in directory.iterdir():
        if path.name not in kept:
            path.unlink(missing_ok=True)


def newest_of(name: str) -> int:
    """The time (ms) of the newest event of a file of tallies, which its name tells."""
    return int(name.rpartition("-t")[2])


def _spans(known: TaskRuns, before: Sequence[Span], fresh: Deliveries) -> Iterator[Span]:
    """The runs with what these events add to them."""
    count = len(known.names)
    last = np.full((2, count), -1, dtype=np.int64)
    first = np.full((2, count), np.iinfo(np.int64).max, dtype=np.int64)
    # ufunc.at is slow on what is not aligned.
    senders = fresh["run"].astype(np.intp)
    for row, name in enumerate(("offset", "time")):
        values = np.ascontiguousarray(fresh[name])
        np.minimum.at(first[row], senders, values)
        np.maximum.at(last[row], senders, values)
    events = np.bincount(senders, minlength=count)
    for code, (shard, run, worker) in enumerate(known.names):
        old = before[code] if code < len(before) else None
        if old is not None and not events[code]:
            yield old
            continue
        found = Span(
            shard,
            run,
            worker,
            first=int(first[0, code]),
            last=int(last[0, code]),
            begun=int(first[1, code]),
            ended=int(last[1, code]),
            events=int(events[code]),
        )
        yield found if old is None else _joined(old, found)


def _started(spans: Sequence[Span], code: int) -> StartedRun:
    """The question how a run began."""
    span = spans[code]
    own = [one for one in spans if one.shard == span.shard and one.run]
    at = run_start(span.run, span.begun)
    before = [min(one.ended, at) for one in own if one.run != span.run and run_start(one.run, one.begun) < at]
    return StartedRun(
        shard=span.shard,
        run=span.run,
        at=at,
        since=max(before) - _BEFORE_MS if before else at - _LONG_BEFORE_MS,
        births=tuple(sorted({run_start(one.run, one.begun) for one in own})),
    )


def _joined(old: Span, new: Span) -> Span:
    return replace(
        new,
        first=min(old.first, new.first),
        last=max(old.last, new.last),
        begun=min(old.begun, new.begun),
        ended=max(old.ended, new.ended),
        events=old.events + new.events,
    )
