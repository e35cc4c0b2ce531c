"""What was seen of a topic's partitions, on disk: a cache, extended from check to check.

A partition's directory holds sorted runs of sightings and `state.json`, which names
them, the counts so far and the offset to go on from; it is replaced as a whole. A new
event is looked up among the old only when it could be one of them: when its place in
the source is not behind all that was seen of its shard. Losing the directory costs
one reading of the topic.

Events of one key share a partition, so partitions are counted each by itself; events
that were sent again after partitions were added may land in another, and are not found.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from cdc_platform.clients.topic_records import Records
from cdc_platform.verification import runs
from cdc_platform.verification.cache import place, remove_others
from cdc_platform.verification.duplicates import (
    SAME_PLACE,
    Pair,
    PartitionCounts,
    Servers,
    Span,
    copies,
    counted,
    merged,
)
from cdc_platform.verification.events import Words
from cdc_platform.verification.sightings import READ, SIGHTING, Runs, SightingReader, Sightings, mixed

# Events held before they are sorted, compared and written: 45 bytes each, four times that for a moment.
SLAB_EVENTS = 300_000

# What the ledger takes in: so many distinct events of a transaction were sent by a task run, from `offset` on.
TALLY = np.dtype([("transaction", "u8"), ("run", "u4"), ("count", "u4"), ("offset", "i8"), ("time", "i8")])

# As long as the topics keep all events. A copy of something older is not found.
HORIZON_MS = 7 * 86_400_000

_VERSION = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionState:
    """What is known of one partition. `high` maps a shard to stream to the greatest position seen; events up to
    `handed_over` (ms) may have gone to the ledger already.
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
    version: int = _VERSION


class PartitionSightings:
    """The sightings of one partition. Extended under a lock; its state is read without."""

    def __init__(self, root: Path, partition: int) -> None:
        self.partition = partition
        self._dir = root / f"p{partition:05d}"
        self._dir.mkdir(parents=True, exist_ok=True)

    def state(self) -> PartitionState:
        """What is there now."""
        try:
            found = msgspec.json.decode((self._dir / "state.json").read_bytes(), type=PartitionState)
        except (FileNotFoundError, msgspec.DecodeError):
            return PartitionState()
        return found if found.version == _VERSION else PartitionState()

    def counts(self) -> PartitionCounts:
        """Runs and copies of this partition."""
        state = self.state()
        return PartitionCounts(self.partition, state.spans, state.pairs)

    @contextmanager
    def lock(self) -> Iterator[bool]:
        """True while this process alone extends it; False when another does."""
        with (self._dir / "lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def extend(
        self,
        records: Records,
        reader: SightingReader,
        bounds: tuple[int, int],
        progress: Callable[[int], None],
        *,
        slab_events: int = SLAB_EVENTS,
    ) -> int:
        """Take in the records up to the end of `bounds`, under the lock. Returns how many were new.

        Raises what `records` raises.
        """
        begin, end = bounds
        state = self.state()
        if end < state.next_offset:
            self._clear()
            state = PartitionState()
        writer = _Writer(self._dir, replace(state, begin=begin))
        strangers = reader.strangers
        for batch in records.read(self.partition, max(state.next_offset, begin), end):
            found, streams = reader.read(batch, writer.runs)
            writer.hold(found, streams, reader.transactions, batch.offsets[-1] + 1, reader.strangers - strangers)
            strangers = reader.strangers
            if writer.held >= slab_events:
                writer.flush()
            progress(len(batch.offsets))
        if state.next_offset < end or state.begin != begin:
            writer.flush(max(end, begin))
        return max(0, end - max(state.next_offset, begin))

    def tallies(self) -> list[tuple[str, npt.NDArray[np.void]]]:
        """Events by task run and transaction (`TALLY`), in the files in which they were counted, oldest first."""
        found = []
        for name in self.state().tallies:
            try:
                found.append((name, np.array(runs.read(self._dir / name, TALLY))))
            except FileNotFoundError:
                continue  # dropped by another process meanwhile
        return found

    def drop_tallies(self, names: Collection[str]) -> None:
        """Forget these files, under the lock: the ledger has taken them in."""
        state = self.state()
        if set(names) & set(state.tallies):
            kept = tuple(name for name in state.tallies if name not in names)
            newest = max(_newest(name) for name in state.tallies if name in names)
            _saved(self._dir, replace(state, tallies=kept, handed_over=max(state.handed_over, newest)))

    def _clear(self) -> None:
        for path in self._dir.iterdir():
            if path.name != "lock":
                path.unlink()


class _Writer:
    """Takes sightings in, slab by slab."""

    def __init__(self, directory: Path, state: PartitionState) -> None:
        self._dir = directory
        self._state = state
        self.runs = Runs.of([(span.shard, span.run, span.worker) for span in state.spans])
        self._parts: list[Sightings] = []
        self._streams: list[Words] = []
        self._transactions: list[Words] = []
        self._next = state.next_offset
        self.held = 0

    def hold(self, found: Sightings, streams: Words, transactions: Words, next_offset: int, strangers: int) -> None:
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
        fresh = np.concatenate([np.zeros(0, dtype=SIGHTING), *self._parts])
        streams = np.concatenate([np.zeros(0, dtype=np.uint64), *self._streams])
        transactions = np.concatenate([np.zeros(0, dtype=np.uint64), *self._transactions])
        self._parts, self._streams, self._transactions, self.held = [], [], [], 0
        suspects, high = self._above(fresh, streams)
        old = self._known(np.unique(fresh["key"][suspects]))
        seen = np.concatenate([old, fresh])
        servers = Servers((pair.before, pair.after) for pair in state.pairs if pair.how == SAME_PLACE)
        found = copies(seen, np.arange(len(seen)) >= len(old), servers)
        serial = state.serial + 1
        files = list(state.files)
        if len(fresh):
            files.append(self._write(serial, len(files), iter([fresh[np.argsort(fresh["key"], kind="stable")]])))
        newest = max(state.newest, int(fresh["time"].max()) if len(fresh) else 0)
        tallies = tally(fresh, transactions)
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
            spans=tuple(_spans(self.runs, state.spans, fresh)),
            pairs=tuple(merged([*state.pairs, *counted(seen, found)])),
            high=high,
            # Nobody has kept the ledger for so long: it begins anew.
            tallies=tuple(name for name in names if _newest(name) >= newest - HORIZON_MS),
        )
        self._save()

    def _above(self, fresh: Sightings, streams: Words) -> tuple[npt.NDArray[np.bool_], dict[str, dict[int, int]]]:
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

    def _known(self, keys: Words) -> Sightings:
        """The earlier sightings with these (sorted) identities, as far as the topic still has them."""
        parts = [np.zeros(0, dtype=SIGHTING)]
        if len(keys):
            for name in self._state.files:
                rows = runs.read(self._dir / name, SIGHTING)
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

        def combine(rows: Sightings) -> Sightings:
            rows = rows[(rows["offset"] >= begin) & (rows["time"] >= oldest)]
            return rows[np.argsort(rows["key"], kind="stable")]

        while len(files) > 1:
            older, newer = files[-2:]
            if 2 * (self._dir / newer).stat().st_size < (self._dir / older).stat().st_size:
                break
            parts = [runs.read(self._dir / name, SIGHTING) for name in (older, newer)]
            del files[-2:]
            # Named by what it replaces too: both may have been of this serial.
            files.append(self._write(serial, len(files), runs.merged(parts, combine), suffix=f"-{older}"[-12:]))
        return files

    def _write(self, serial: int, number: int, pieces: Iterator[Sightings], suffix: str = "") -> str:
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
        _saved(self._dir, self._state)


def _saved(directory: Path, state: PartitionState) -> None:
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


def _newest(name: str) -> int:
    """The time (ms) of the newest event of a file of tallies, which its name tells."""
    return int(name.rpartition("-t")[2])


def tally(fresh: Sightings, transactions: Words) -> npt.NDArray[np.void]:
    """How many distinct events each task run sent of each transaction (`TALLY`); rows of snapshots have none."""
    streamed = transactions != 0
    if not streamed.any():
        return np.zeros(0, dtype=TALLY)
    run = fresh["run"][streamed]
    # Most transactions have one event in a partition, so only the others' events are told apart.
    groups = mixed(mixed(run.astype(np.uint64)) ^ transactions[streamed])
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.append(True, groups[order][1:] != groups[order][:-1]))
    count = np.diff(np.append(starts, len(order)))
    places = np.flatnonzero(streamed)[order]
    found = np.zeros(len(starts), dtype=TALLY)
    found["transaction"], found["run"] = transactions[places[starts]], run[order[starts]]
    found["offset"] = np.minimum.reduceat(fresh["offset"][places], starts)
    found["time"] = np.maximum.reduceat(fresh["time"][places], starts)
    found["count"] = count
    several = np.repeat(count > 1, count)
    if several.any():
        group = np.repeat(np.arange(len(starts)), count)[several]
        events = fresh[places[several]]
        found["count"] -= _again(group, events["key"], events["place"], len(starts))
    return found


def _again(group: npt.NDArray[np.int64], keys: Words, at: Words, groups: int) -> npt.NDArray[np.uint32]:
    """How many events of each group are in it already, by key and place."""
    order = np.lexsort((at, keys, group))
    same = np.ones(len(order) - 1, dtype=np.bool_)
    for values in (group, keys, at):
        ranked = values[order]
        same &= ranked[1:] == ranked[:-1]
    return np.bincount(group[order][1:][same], minlength=groups).astype(np.uint32)


def _spans(known: Runs, before: Sequence[Span], fresh: Sightings) -> Iterator[Span]:
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


def _joined(old: Span, new: Span) -> Span:
    return replace(
        new,
        first=min(old.first, new.first),
        last=max(old.last, new.last),
        begun=min(old.begun, new.begun),
        ended=max(old.ended, new.ended),
        events=old.events + new.events,
    )


class TopicSightings:
    """The sightings of a whole topic. Several processes may extend it at once."""

    def __init__(self, home: Path, platform: str, topic: str, topic_id: str, partitions: Sequence[int]) -> None:
        root = place(home, "sightings", platform, topic, topic_id)
        root.mkdir(parents=True, exist_ok=True)
        # Of a topic of that name that is no more.
        remove_others(home, root)
        self._partitions = [PartitionSightings(root, number) for number in partitions]

    def extend(
        self,
        records: Records,
        reader: Callable[[], SightingReader],
        ends: dict[int, tuple[int, int]],
        report: Callable[[int, int], None],
        *,
        seconds: float = 3600.0,
    ) -> int:
        """Take in all below the ends. Returns how many records were read here.

        Partitions that another process is at are waited for. Raises KafkaUnavailable.
        """
        todo = list(self._partitions)
        total = sum(max(0, end - begin) for begin, end in ends.values())
        done = read = 0
        deadline = time.monotonic() + seconds

        def taken(count: int) -> None:
            nonlocal done
            done += count
            report(done, max(total, done))

        while todo:
            waiting = []
            for part in todo:
                with part.lock() as mine:
                    if mine:
                        read += part.extend(records, reader(), ends[part.partition], taken)
                    else:
                        waiting.append(part)
            if waiting and time.monotonic() > deadline:
                break  # what the other process has written by now is what there is
            if waiting:
                time.sleep(0.05)
            todo = waiting
        return read

    def counts(self) -> list[PartitionCounts]:
        """Runs and copies, by partition."""
        return [part.counts() for part in self._partitions]

    def partitions(self) -> Sequence[PartitionSightings]:
        """Partition by partition."""
        return self._partitions

    def totals(self) -> tuple[int, int]:
        """How many events were seen, and how many records that are none."""
        states = [part.state() for part in self._partitions]
        return sum(state.events for state in states), sum(state.strangers for state in states)
