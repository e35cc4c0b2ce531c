"""The folds of a topic's partitions on disk: a cache, extended from run to run.

A partition's directory holds sorted runs of events, what `placing.py` carries,
and `state.json`, which names them and the offset to go on from. State is
replaced as a whole (write, then rename), so that a kill costs at most what was
read since the last one. Losing the directory costs one reading of the topic.
"""

from __future__ import annotations

import fcntl
import gc
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cdc_platform.clients.kafka.topic_records import Records
from cdc_platform.model.positions import Position
from cdc_platform.verification.proof.change_events import EVENT, Events, UnreadableRecord, Words
from cdc_platform.verification.proof.decoding import Decoder
from cdc_platform.verification.proof.event_positions import CARRIED, PositionAssigner
from cdc_platform.verification.proof.fold import compact, in_order
from cdc_platform.verification.storage import sorted_files as runs

# Events held in memory before they are sorted and written: 48 bytes each, and as much again to sort them.
SPILL_EVENTS = 400_000

_VERSION = 5


@dataclass(frozen=True, slots=True)
class FoldState:
    """What a partition's fold holds.

    `begin` is the topic's first offset when it was last read. `last` is the last
    record that was taken in, by offset and digest: while the topic still has
    it, nothing before it was cut off and written anew. `troubles` has the last one
    of each shard, and of those whose shard could not be read.
    """

    next_offset: int
    begin: int
    shards: tuple[str, ...]
    runs: tuple[str, ...]
    deletes: tuple[tuple[int, int], ...]
    troubles: tuple[UnreadableRecord, ...]
    events: int
    serial: int
    last: tuple[int, str] | None = None
    version: int = _VERSION


_EMPTY = FoldState(next_offset=0, begin=0, shards=(), runs=(), deletes=(), troubles=(), events=0, serial=0)


class Drifted(Exception):
    """The topic's events do not all have the table's columns: they must be read column by column."""


class PartitionFold:
    """The fold of one partition. Extended under a lock; read without."""

    def __init__(self, root: Path, partition: int) -> None:
        self.partition = partition
        self._dir = root / f"p{partition:05d}"
        self._dir.mkdir(parents=True, exist_ok=True)

    def state(self) -> FoldState:
        """What is there now."""
        try:
            raw = json.loads((self._dir / "state.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return _EMPTY
        if raw.get("version") != _VERSION:
            return _EMPTY
        return FoldState(
            **{
                **raw,
                "shards": tuple(raw["shards"]),
                "runs": tuple(raw["runs"]),
                "deletes": tuple((int(shard), int(key)) for shard, key in raw["deletes"]),
                "troubles": tuple(UnreadableRecord(**trouble) for trouble in raw["troubles"]),
                "last": None if raw["last"] is None else (int(raw["last"][0]), str(raw["last"][1])),
            }
        )

    @contextmanager
    def lock(self) -> Iterator[bool]:
        """True while this process alone extends the fold; False when another does."""
        with (self._dir / "lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def clear(self) -> None:
        """Forget everything, under the lock."""
        for path in self._dir.iterdir():
            if path.name != "lock":
                path.unlink()

    def continues(self, records: Records, bounds: tuple[int, int]) -> bool:
        """False when the topic no longer is what was folded, with more behind it.

        A log loses its end when a replica that lacks it becomes leader (an
        unclean election), or with its files; other records may stand there by
        now. The last record tells: it must still be there, unchanged. Where
        compaction has taken it, that cannot be told, and counts as no. So does
        a record that could not be read and is gone by now, and a file that is.
        """
        begin, end = bounds
        state = self.state()
        if state.next_offset > end or not self._whole(state):
            return False
        if state.last is None or state.next_offset <= begin:
            return True
        offset, digest = state.last
        bad = [trouble.offset for trouble in state.troubles if trouble.offset >= begin]
        found = records.fetch(self.partition, [offset, *bad])
        return offset in found and _digest(*found[offset]) == digest and all(place in found for place in bad)

    def _whole(self, state: FoldState) -> bool:
        """Are all files there that the state names?"""
        names = [*state.runs, *([f"carried-{state.serial}"] if state.serial else [])]
        return all((self._dir / name).exists() for name in names)

    def extend(
        self,
        records: Records,
        decoder: Decoder,
        bounds: tuple[int, int],
        fences: Mapping[str, Position],
        progress: Callable[[int], None],
    ) -> FoldState:
        """Take in the records up to the end of `bounds`; `progress` is told how many came.

        Events that a shard's fence sees replace each other at once. Raises
        Drifted, and what `records` raises.
        """
        begin, end = bounds
        state = self.state()
        writer = _Writer(self._dir, state, begin, fences)
        decoder.know(state.shards)
        with _rarer_collections():
            for batch in records.read(self.partition, max(state.next_offset, begin), end):
                decoded = decoder.decode(self.partition, batch)
                if decoder.drifted:
                    raise Drifted
                writer.last = batch.offsets[-1], _digest(batch.keys[-1], batch.values[-1])
                writer.add(decoder, decoded, batch.offsets[-1] + 1)
                progress(len(batch.offsets))
        if state.next_offset < end or state.begin != begin:
            writer.finish(decoder, max(end, begin))
        return self.state()

    def slices(self, shard: str, first: int, end: int, only: Words | None = None) -> Events:
        """The shard's events with keys from `first` up to, not with, `end`, as far as the topic still has them.

        `only` picks among them, without holding the others.
        """
        begin, parts = self._parts(shard, first, end, only)
        found = np.concatenate([np.zeros(0, dtype=EVENT), *parts])
        return found[found["offset"] >= begin]

    def count(self, shard: str) -> int:
        """How many events of the shard are kept."""
        return sum(map(len, self._parts(shard, 0, 1 << 64, None)[1]))

    def _parts(self, shard: str, first: int, end: int, only: Words | None) -> tuple[int, list[Events]]:
        """The topic's first offset, and the events run by run: views of what is on disk, unless `only` is given."""
        while True:
            state = self.state()
            if shard not in state.shards:
                return state.begin, []
            code = state.shards.index(shard)
            until = (code, end) if end < 1 << 64 else (code + 1, 0)
            try:
                parts = [runs.between(runs.read(self._dir / name, EVENT), (code, first), until) for name in state.runs]
            except FileNotFoundError:
                if self.state() == state:
                    raise  # It is gone for good.
                continue  # Another process has merged it meanwhile: the state names its successor.
            return state.begin, parts if only is None else [runs.picked(part, only) for part in parts]


def _digest(key: bytes | None, value: bytes | None) -> str:
    parts = [b"-" if part is None else b"+" + part for part in (key, value)]
    return hashlib.sha256(len(parts[0]).to_bytes(8, "big") + b"".join(parts)).hexdigest()[:16]


@contextmanager
def _rarer_collections() -> Iterator[None]:
    """Thousands of records a second, none of them in a cycle: the collector finds nothing, at a tenth of the cost."""
    before = gc.get_threshold()
    gc.set_threshold(100_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


class _Writer:
    """Collects events, spills them as runs and keeps the runs few."""

    def __init__(self, directory: Path, state: FoldState, begin: int, fences: Mapping[str, Position]) -> None:
        self._dir = directory
        self._begin = begin
        self._fences = fences
        self._serial = state.serial
        self._runs = list(state.runs)
        self._troubles = {trouble.shard: trouble for trouble in state.troubles}
        self._events = state.events
        self.last = state.last
        self._held: list[Events] = []
        self._count = 0
        self._placer = PositionAssigner(deletes=dict.fromkeys(state.deletes))
        if state.serial:
            self._placer.carried = np.fromfile(directory / f"carried-{state.serial}", dtype=CARRIED)

    def add(self, decoder: Decoder, decoded: Any, next_offset: int) -> None:
        events = self._placer.place(decoded, len(decoder.shards))
        self._troubles |= {trouble.shard: trouble for trouble in decoded.troubles}
        self._events += len(events)
        if len(events):
            self._held.append(events)
            self._count += len(events)
        if self._count >= SPILL_EVENTS:
            self.finish(decoder, next_offset)

    def finish(self, decoder: Decoder, next_offset: int) -> None:
        """Write what is held, thin the runs out, then make it the state."""
        self._serial += 1
        if self._held:
            self._write(decoder, iter([self._combine(decoder, np.concatenate(self._held))]))
            self._held, self._count = [], 0
        self._thin(decoder)
        runs.write(self._dir / f"carried-{self._serial}", self._placer.carried)
        state = FoldState(
            next_offset=next_offset,
            begin=self._begin,
            shards=tuple(decoder.shards),
            runs=tuple(self._runs),
            deletes=tuple(self._placer.deletes),
            troubles=tuple(self._troubles.values()),
            events=self._events,
            serial=self._serial,
            last=self.last,
        )
        fresh = self._dir / "state.json.new"
        with fresh.open("w") as stream:
            json.dump(asdict(state), stream)
            runs.sync(stream)
        fresh.replace(self._dir / "state.json")
        kept = {*self._runs, f"carried-{self._serial}", "state.json", "lock"}
        for path in self._dir.iterdir():
            # A reader that has a run mapped keeps it after it was unlinked (POSIX).
            if path.name not in kept:
                path.unlink(missing_ok=True)

    def _combine(self, decoder: Decoder, events: Events) -> Events:
        names = decoder.shards
        fences = self._fences

        def sees(code: int, stream: Any, seq: Any) -> Any:
            fence = fences.get(names[code])
            return np.zeros(len(seq), dtype=np.bool_) if fence is None else fence.sees(stream, seq)

        return compact(in_order(events), sees)

    def _write(self, decoder: Decoder, pieces: Iterator[Events]) -> None:
        name = f"run-{self._serial}-{len(self._runs)}"
        with (self._dir / name).open("wb") as stream:
            for piece in pieces:
                piece.tofile(stream)
            runs.sync(stream)
        self._runs.append(name)

    def _thin(self, decoder: Decoder) -> None:
        """Merge the newest runs while they are at least half as long as the one before.

        So few remain, and each event is written again only a few times.
        """
        while len(self._runs) > 1:
            older, newer = self._runs[-2:]
            if 2 * (self._dir / newer).stat().st_size < (self._dir / older).stat().st_size:
                return
            parts = [runs.read(self._dir / name, EVENT) for name in (older, newer)]
            self._serial += 1
            del self._runs[-2:]
            self._write(decoder, runs.merged(parts, lambda rows: self._combine(decoder, rows)))
