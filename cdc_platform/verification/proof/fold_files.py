"""The folds of a topic's partitions on disk: a cache, extended from one verification to the next.

A partition's directory holds sorted files of events, what `event_positions.py` carries from batch to batch, and the
state, which names them and the offset to go on from. A kill costs at most what was read since the last state, the
loss of the directory one reading of the topic.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from cdc_platform.clients.kafka.topic_records import Records
from cdc_platform.model.fingerprints import fingerprint
from cdc_platform.model.positions import Position
from cdc_platform.verification.proof.change_events import EVENT, NO_SHARD, Decoded, Events, UnreadableRecord, Words
from cdc_platform.verification.proof.decoding import Decoder
from cdc_platform.verification.proof.event_positions import CARRIED, PositionAssigner
from cdc_platform.verification.proof.fold import compact, in_order
from cdc_platform.verification.storage import sorted_files
from cdc_platform.verification.storage.state_directory import StateDirectory

# Events in memory before they are sorted and written: 52 bytes each, and as much again to sort them.
SPILL_EVENTS = 400_000

VERSION = 7


class FoldState(msgspec.Struct, frozen=True, kw_only=True, rename={"files": "runs", "unreadable": "troubles"}):
    """What a partition's fold holds.

    `begin` is the topic's first offset when it was last read. `last` is the last
    record that was taken in, by offset and digest: while the topic still has
    it, nothing before it was cut off and written again. `unreadable` has the last such record of each shard, with a key
    and without, and `unreadable_counts` how many of a shard were met.
    """

    next_offset: int = 0
    begin: int = 0
    shards: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    deletes: tuple[tuple[int, int, int], ...] = ()
    unreadable: tuple[UnreadableRecord, ...] = ()
    unreadable_counts: dict[str, int] = {}
    events: int = 0
    serial: int = 0
    last: tuple[int, str] | None = None
    version: int = VERSION


class Drifted(Exception):
    """The topic's events do not all have the table's columns: they must be read column by column."""


class PartitionFold:
    """The fold of one partition. Extended under the lock of its directory; read without.

    `numbered_by_stream`: see `fold.in_order`.
    """

    def __init__(self, root: Path, partition: int, *, numbered_by_stream: bool) -> None:
        self.partition = partition
        self._order = partial(in_order, numbered_by_stream=numbered_by_stream)
        self.directory = StateDirectory(root / f"p{partition:05d}", version=VERSION)
        self._path = self.directory.path

    def state(self) -> FoldState:
        """The state on disk; an empty one where there is none of this version."""
        return self.directory.load(FoldState) or FoldState()

    def continues(self, records: Records, bounds: tuple[int, int]) -> bool:
        """False when the topic no longer is what was folded, with more behind it.

        A log loses its end when a replica that lacks it becomes leader (an
        unclean election), or with its files; other records may stand there by
        now. The last record shows it: it must still be there, unchanged. Where
        compaction has taken it, that is not known, and counts as no. So does
        a record that could not be read and is gone by now, and a file that is.
        """
        begin, end = bounds
        state = self.state()
        if state.next_offset > end or not self._has_all_files(state):
            return False
        if state.last is None or state.next_offset <= begin:
            return True
        offset, digest = state.last
        unreadable = [record.offset for record in state.unreadable if record.offset >= begin]
        found = records.fetch(self.partition, [offset, *unreadable])
        return offset in found and _digest(*found[offset]) == digest and all(one in found for one in unreadable)

    def _has_all_files(self, state: FoldState) -> bool:
        names = [*state.files, *([_carried(state.serial)] if state.serial else [])]
        return all((self._path / name).exists() for name in names)

    def extend(
        self,
        records: Records,
        decoder: Decoder,
        bounds: tuple[int, int],
        starts: Mapping[str, Position],
        progress: Callable[[int], None],
    ) -> FoldState:
        """Take in the records up to the end of `bounds`; `progress` is called with how many came.

        Of each shard's events, those visible at its position in `starts` replace each other at once. Raises
        Drifted, and what `records` raises.
        """
        begin, end = bounds
        state = self.state()
        writer = _Writer(self.directory, state, begin, starts, self._order)
        decoder.know(state.shards)
        for batch in records.read(self.partition, max(state.next_offset, begin), end):
            decoded = decoder.decode(self.partition, batch)
            if decoder.drifted:
                raise Drifted
            writer.last = batch.offsets[-1], _digest(batch.keys[-1], batch.values[-1])
            writer.add(decoder, decoded, batch.offsets[-1] + 1)
            progress(len(batch.offsets))
        if state.next_offset < end or state.begin != begin:
            writer.save(decoder, max(end, begin))
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
        """The topic's first offset, and the events file by file: views of what is on disk, unless `only` is given."""
        while True:
            state = self.state()
            if shard not in state.shards:
                return state.begin, []
            code = state.shards.index(shard)
            until = (code, end) if end < 1 << 64 else (code + 1, 0)
            try:
                files = [sorted_files.read(self._path / name, EVENT) for name in state.files]
            except FileNotFoundError:
                if self.state() == state:
                    raise  # It is gone for good.
                continue  # Another process has merged it meanwhile: the state names its successor.
            parts = [sorted_files.between(rows, (code, first), until) for rows in files]
            return state.begin, parts if only is None else [sorted_files.picked(part, only) for part in parts]


def _carried(serial: int) -> str:
    return f"carried-{serial}"


def _digest(key: bytes | None, value: bytes | None) -> str:
    parts = [b"-" if part is None else b"+" + part for part in (key, value)]
    return fingerprint(len(parts[0]).to_bytes(8, "big") + b"".join(parts))


class _Writer:
    """Collects events, writes them as sorted files and keeps the files few."""

    def __init__(
        self,
        directory: StateDirectory,
        state: FoldState,
        begin: int,
        starts: Mapping[str, Position],
        order: Callable[[Events], Events],
    ) -> None:
        self._directory, self._path = directory, directory.path
        self._order = order
        self._begin = begin
        self._starts = starts
        self._serial = state.serial
        self._files = list(state.files)
        self._unreadable = {(record.shard, record.keyless): record for record in state.unreadable}
        self._unreadable_counts = Counter(state.unreadable_counts)
        self._events = state.events
        self.last = state.last
        self._unsaved: list[Events] = []
        self._count = 0
        self._positions = PositionAssigner(deletes=dict.fromkeys(state.deletes))
        if state.serial:
            self._positions.carried = np.fromfile(self._path / _carried(state.serial), dtype=CARRIED)

    def add(self, decoder: Decoder, decoded: Decoded, next_offset: int) -> None:
        events = self._positions.assign(decoded, len(decoder.shards))
        self._unreadable |= {(record.shard, record.keyless): record for record in decoded.unreadable}
        self._unreadable_counts.update(record.shard or NO_SHARD for record in decoded.unreadable)
        self._events += len(events)
        if len(events):
            self._unsaved.append(events)
            self._count += len(events)
        if self._count >= SPILL_EVENTS:
            self.save(decoder, next_offset)

    def save(self, decoder: Decoder, next_offset: int) -> None:
        """Write what is not on disk yet, merge files, then make it the state."""
        self._serial += 1
        if self._unsaved:
            self._write([self._combine(decoder, np.concatenate(self._unsaved))])
            self._unsaved, self._count = [], 0
        self._merge(decoder)
        carried = _carried(self._serial)
        sorted_files.write(self._path / carried, [self._positions.carried])
        state = FoldState(
            next_offset=next_offset,
            begin=self._begin,
            shards=tuple(decoder.shards),
            files=tuple(self._files),
            deletes=tuple(self._positions.deletes),
            unreadable=tuple(self._unreadable.values()),
            unreadable_counts=dict(self._unreadable_counts),
            events=self._events,
            serial=self._serial,
            last=self.last,
        )
        self._directory.save(state, keep={*self._files, carried})

    def _combine(self, decoder: Decoder, events: Events) -> Events:
        names, starts = decoder.shards, self._starts

        def sees(code: int, stream: Any, seq: Any) -> Any:
            start = starts.get(names[code])
            return np.zeros(len(seq), dtype=np.bool_) if start is None else start.sees(stream, seq)

        return compact(self._order(events), sees)

    def _write(self, pieces: Iterable[Events]) -> None:
        name = f"run-{self._serial}-{len(self._files)}"
        sorted_files.write(self._path / name, pieces)
        self._files.append(name)

    def _merge(self, decoder: Decoder) -> None:
        while len(self._files) > 1 and sorted_files.worth_merging(self._path, *self._files[-2:]):
            parts = [sorted_files.read(self._path / name, EVENT) for name in self._files[-2:]]
            self._serial += 1
            del self._files[-2:]
            self._write(sorted_files.merged(parts, lambda rows: self._combine(decoder, rows)))
