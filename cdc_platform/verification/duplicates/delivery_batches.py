"""A partition's deliveries on disk, extended batch by batch: each is compared with all that was delivered before.

A directory holds sorted files of deliveries and the state, which names them, the counts so far and the
offset to go on from. A new event is looked up among the old only when it could be one
of them: when its position in the source is not behind all that was delivered of its shard.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import structs

from cdc_platform.verification.continuity.transaction_counts import count_transactions
from cdc_platform.verification.duplicates.causes import run_start
from cdc_platform.verification.duplicates.copies import (
    SAME_POSITION,
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
from cdc_platform.verification.storage import sorted_files
from cdc_platform.verification.storage.state_directory import StateDirectory

# As long as the topics keep all events. A copy of something older is not found.
HORIZON_MS = 7 * 86_400_000

# A run's predecessor may have committed so long before the last event that it sent.
_BEFORE_MS = 60_000
# Where no predecessor is known.
_LONG_BEFORE_MS = 3_600_000

# Of the state and its files. In files of 6 a run may have the bit TOGETHER, which releases that write 5 take for a
# number; files of 5 without it mean the same here.
VERSION = 6
OLDER = (5,)


class PartitionState(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    rename={"unreadable": "strangers", "transaction_counts": "tallies"},
):
    """What is known of one partition. `high` maps a shard to stream to the greatest position delivered; events up to
    `handed_over` (ms) may have gone to the ledger already. `takeovers` says by the run's number how it began,
    `unsure` are runs of which that is not known; the others were not asked for.
    """

    next_offset: int = 0
    begin: int = 0
    files: tuple[str, ...] = ()
    serial: int = 0
    events: int = 0
    unreadable: int = 0
    newest: int = 0
    spans: tuple[Span, ...] = ()
    pairs: tuple[Pair, ...] = ()
    high: dict[str, dict[int, int]] = {}
    transaction_counts: tuple[str, ...] = ()
    handed_over: int = 0
    takeovers: dict[int, Takeover] = {}
    unsure: tuple[int, ...] = ()
    version: int = VERSION


class DeliveryWriter:
    """Takes deliveries in, batch by batch."""

    def __init__(self, directory: StateDirectory, state: PartitionState, takeovers: Takeovers | None) -> None:
        self._directory, self._path = directory, directory.path
        self._state = state
        self._takeovers = takeovers
        self.runs = TaskRuns.of([(span.shard, span.run, span.worker) for span in state.spans])
        self._parts: list[Deliveries] = []
        self._streams: list[Words] = []
        self._transactions: list[Words] = []
        self._next = state.next_offset
        self.unsaved = 0

    def add(self, found: Deliveries, streams: Words, transactions: Words, next_offset: int, unreadable: int) -> None:
        """Keep a batch until the next flush."""
        self._parts.append(found)
        self._streams.append(streams)
        self._transactions.append(transactions)
        self.unsaved += len(found)
        self._next = next_offset
        self._state = structs.replace(self._state, unreadable=self._state.unreadable + unreadable)

    def flush(self, next_offset: int | None = None) -> None:
        """Compare what was added with itself and with what was delivered before, then make it the state."""
        state = self._state
        fresh = np.concatenate([np.zeros(0, dtype=DELIVERY), *self._parts])
        streams = np.concatenate([np.zeros(0, dtype=np.uint64), *self._streams])
        transactions = np.concatenate([np.zeros(0, dtype=np.uint64), *self._transactions])
        self._parts, self._streams, self._transactions, self.unsaved = [], [], [], 0
        suspects, high = self._above(fresh, streams)
        old = self._known(np.unique(fresh["key"][suspects]))
        all_of_them = np.concatenate([old, fresh])
        servers = Servers((pair.before, pair.after) for pair in state.pairs if pair.how == SAME_POSITION)
        again = repeated(all_of_them)
        spans = tuple(_spans(self.runs, state.spans, fresh))
        takeovers, unsure = self._renumbered(all_of_them, again, transactions, spans)
        found = copies(all_of_them, again, np.arange(len(all_of_them)) >= len(old), servers)
        serial = state.serial + 1
        files = list(state.files)
        if len(fresh):
            files.append(self._write(serial, len(files), [fresh[np.argsort(fresh["key"], kind="stable")]]))
        newest = max(state.newest, int(fresh["time"].max()) if len(fresh) else 0)
        copied = np.zeros(len(fresh), dtype=np.bool_)
        copied[found.after - len(old)] = True
        counts = count_transactions(fresh, transactions, copied, self.runs.counting_on)
        names = list(state.transaction_counts)
        if len(counts):
            names.append(self._write(serial, 0, [counts], suffix=f"-t{newest}"))
        files = self._merged(files, serial, state.begin, newest - HORIZON_MS)
        self._state = structs.replace(
            state,
            next_offset=self._next if next_offset is None else next_offset,
            files=tuple(files),
            serial=serial,
            events=state.events + len(fresh),
            newest=newest,
            spans=spans,
            pairs=tuple(merged([*state.pairs, *counted(all_of_them, found)])),
            high=high,
            takeovers=takeovers,
            unsure=unsure,
            # The ledger has not been kept for so long that it begins again.
            transaction_counts=tuple(name for name in names if newest_of(name) >= newest - HORIZON_MS),
        )
        save_state(self._directory, self._state)

    def _above(self, fresh: Deliveries, streams: Words) -> tuple[npt.NDArray[np.bool_], dict[str, dict[int, int]]]:
        """Which of the events may have been delivered before, and the new greatest positions."""
        high = {shard: dict(by_stream) for shard, by_stream in self._state.high.items()}
        if not len(fresh):
            return np.zeros(0, dtype=np.bool_), high
        shards: dict[str, int] = {}
        of_run = np.array([shards.setdefault(name[0], len(shards)) for name in self.runs.names], dtype=np.uint64)
        names = list(shards)
        by_shard = (of_run[fresh["run"]] << np.uint64(32)) | streams
        found, stream_of = np.unique(by_shard, return_inverse=True)
        stream_of = stream_of.reshape(-1)
        greatest = np.zeros(len(found), dtype=np.uint64)
        np.maximum.at(greatest, stream_of, np.ascontiguousarray(fresh["seq"]))
        before = np.zeros(len(found), dtype=np.uint64)
        for at, (word, seq) in enumerate(zip(found.tolist(), greatest.tolist(), strict=True)):
            own = high.setdefault(names[word >> 32], {})
            stream = word & 0xFFFFFFFF
            before[at] = own.get(stream, 0)
            own[stream] = max(own.get(stream, 0), seq)
        suspects: npt.NDArray[np.bool_] = (fresh["seq"] <= before[stream_of]) | (fresh["kind"] == READ)
        return suspects, high

    def _renumbered(
        self, deliveries: Deliveries, again: npt.NDArray[np.int64], transactions: Words, spans: Sequence[Span]
    ) -> tuple[dict[int, Takeover], tuple[int, ...]]:
        """Gives true numbers to events of transactions that were taken over; what is known now of how runs began."""
        known, unsure = dict(self._state.takeovers), set(self._state.unsure)
        if self._takeovers is None:
            return known, ()
        # Their numbers are true wherever they began.
        known |= dict.fromkeys(self.runs.counting_on, Takeover(0, 0))
        earlier = np.zeros(len(deliveries) - len(transactions), dtype=np.uint64)
        crossing = Crossing.of(deliveries, again, np.concatenate([earlier, transactions]))
        asked = {code for code in np.unique(deliveries["run"][crossing.at]).tolist() if spans[code].run}
        asked -= known.keys() | unsure
        if asked:
            questions = {code: _started(spans, code) for code in asked}
            found = self._takeovers.find(list(questions.values()))
            known |= {code: found[one.run] for code, one in questions.items() if one.run in found}
            # One that has no predecessor here has taken nothing over here.
            unsure |= {code for code, one in questions.items() if one.run not in found and min(one.starts) < one.at}
        crossing.renumber(deliveries, {code: takeover for code, takeover in known.items() if takeover.events})
        return known, tuple(sorted(unsure))

    def _known(self, keys: Words) -> Deliveries:
        """The earlier deliveries with these (sorted) identities, as far as the topic still has them."""
        parts = [np.zeros(0, dtype=DELIVERY)]
        if len(keys):
            for name in self._state.files:
                rows = sorted_files.read(self._path / name, DELIVERY)
                column = rows["key"]
                first = np.searchsorted(column, keys, side="left")
                count = np.searchsorted(column, keys, side="right") - first
                if count.any():
                    indexes = np.repeat(first - np.append(0, np.cumsum(count)[:-1]), count) + np.arange(count.sum())
                    parts.append(np.array(rows[indexes]))
        found = np.concatenate(parts)
        return found[found["offset"] >= self._state.begin]

    def _merged(self, files: list[str], serial: int, begin: int, oldest: int) -> list[str]:
        """The files, the newest merged; what the topic no longer has, or is older than that, is left out."""

        def combine(rows: Deliveries) -> Deliveries:
            rows = rows[(rows["offset"] >= begin) & (rows["time"] >= oldest)]
            return rows[np.argsort(rows["key"], kind="stable")]

        while len(files) > 1 and sorted_files.worth_merging(self._path, *files[-2:]):
            older = files[-2]
            parts = [sorted_files.read(self._path / name, DELIVERY) for name in files[-2:]]
            del files[-2:]
            # Named by what it replaces too: both may have been of this serial.
            merged_rows = sorted_files.merged(parts, combine)
            files.append(self._write(serial, len(files), merged_rows, suffix=f"-{older}"[-12:]))
        return files

    def _write(self, serial: int, number: int, pieces: Iterable[npt.NDArray[np.void]], suffix: str = "") -> str:
        name = f"run-{serial}-{number}{suffix}"
        while (self._path / name).exists():
            name += "m"
        sorted_files.write(self._path / name, pieces)
        return name


def save_state(directory: StateDirectory, state: PartitionState) -> None:
    """Replace the state, and remove the files that it does not name."""
    directory.save(structs.replace(state, version=VERSION), keep={*state.files, *state.transaction_counts})


def newest_of(name: str) -> int:
    """The time (ms) of the newest event of a file of transaction counts, as its name says."""
    return int(name.rpartition("-t")[2])


def _spans(known: TaskRuns, before: Sequence[Span], fresh: Deliveries) -> Iterator[Span]:
    """The runs with what these events add to them."""
    count = len(known.names)
    last = np.full((2, count), -1, dtype=np.int64)
    first = np.full((2, count), np.iinfo(np.int64).max, dtype=np.int64)
    # ufunc.at is slow on what is not aligned.
    senders = fresh["run"].astype(np.intp)
    events = np.bincount(senders, minlength=count)
    for code, span in enumerate(before):
        first[:, code], last[:, code] = (span.first, span.begun), (span.last, span.ended)
        events[code] += span.events
    for row, name in enumerate(("offset", "time")):
        values = np.ascontiguousarray(fresh[name])
        np.minimum.at(first[row], senders, values)
        np.maximum.at(last[row], senders, values)
    numbers = np.stack([first[0], last[0], first[1], last[1], events], axis=1).tolist()
    return (Span(*name, *own) for name, own in zip(known.names, numbers, strict=True))


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
        starts=tuple(sorted({run_start(one.run, one.begun) for one in own})),
    )
