"""One topic's fold as a whole: all its partitions, extended together, read shard by shard."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from cdc_platform.canonical.columns import Shape
from cdc_platform.canonical.topic_rows import RowReader
from cdc_platform.clients.kafka.topic_records import Records, TopicBounds
from cdc_platform.errors import KafkaUnavailable
from cdc_platform.model.positions import Position
from cdc_platform.verification.proof.change_events import (
    EVENT,
    OFFSET_BITS,
    OLD_KEY,
    Events,
    UnreadableRecord,
    Words,
    packed,
)
from cdc_platform.verification.proof.decoding import JsonDecoder
from cdc_platform.verification.proof.fold import in_order
from cdc_platform.verification.proof.fold_files import Drifted, FoldState, PartitionFold
from cdc_platform.verification.proof.raw_keys import live
from cdc_platform.verification.proof.toast_values import complete
from cdc_platform.verification.storage.cache import KEPT_SECONDS, cache_path, remove_others
from cdc_platform.verification.storage.state_directory import each_locked


class TopicFold:
    """The fold of a topic for one shape of table. Several processes may extend it at once."""

    def __init__(self, cache: Path, platform: str, topic: str, shape: Shape, records: Records) -> None:
        self._cache, self._platform, self._topic = cache, platform, topic
        self.shape = shape
        self.rows = RowReader(shape)
        self._records = records
        self._partitions: dict[int, PartitionFold] = {}
        self._ends: dict[int, int] = {}
        self._topic_id: str | None = None
        self._root: Path | None = None

    @property
    def projected(self) -> bool:
        """True when rows are read column by column, because events with other columns were met."""
        return self._root is not None and (self._root / "projected").exists()

    def extend(
        self,
        bounds: TopicBounds,
        starts: Mapping[str, Position],
        report: Callable[[int, int], None],
        *,
        seconds: float = 3600.0,
    ) -> None:
        """Take in everything below the ends of `bounds`.

        Partitions that another process is at are left to it, and waited for. `starts`: the position of each shard
        before which only its rows' last versions count.

        Raises:
            CacheHeld: another process holds a partition, and does not get on for `seconds`.
            KafkaUnavailable, KafkaRejected.
        """
        root = self._open(bounds.topic_id)
        while True:
            try:
                self._extend(root, bounds, starts, report, seconds)
                return
            except Drifted:
                self.project()

    def project(self) -> None:
        """From now on read rows column by column: the fold begins again from the topic's beginning."""
        if self._root is None:
            raise RuntimeError("extend() comes first")
        (self._root / "projected").touch()
        self._partitions.clear()

    @property
    def folded(self) -> bool:
        """True once the topic was taken in."""
        return bool(self._ends)

    def check_unchanged(self, bounds: TopicBounds) -> None:
        """Make sure that what was folded is what the topic holds now. Raises KafkaUnavailable."""
        shorter = [number for number, end in self._ends.items() if bounds.partitions.get(number, (0, 0))[1] < end]
        if self._ends and (bounds.topic_id != self._topic_id or shorter):
            raise self._changed(f"{self._topic} was cut or made anew in mid-run.")

    def states(self) -> list[FoldState]:
        """The state of each partition's fold."""
        return [fold.state() for fold in self._partitions.values()]

    def unreadable(self) -> list[UnreadableRecord]:
        """Records that the topic still has and that could not be read."""
        return [record for state in self.states() for record in state.unreadable if record.offset >= state.begin]

    def unreadable_of(self, shard: str) -> tuple[list[UnreadableRecord], int]:
        """Of the shard, the last records that could not be read, and how many were met."""
        found = [record for record in self.unreadable() if record.shard == shard]
        return found, max(len(found), sum(state.unreadable_counts.get(shard, 0) for state in self.states()))

    def is_cut(self) -> bool:
        """True when the topic no longer has its beginning."""
        return any(state.begin > 0 for state in self.states())

    def count(self, shard: str) -> int:
        """How many events of the shard are kept."""
        return sum(fold.count(shard) for fold in self._partitions.values())

    def events(self, shard: str, first: int, end: int, only: Words | None = None) -> Events:
        """The shard's sorted events with keys from `first` up to, not with, `end`; `only` picks among them.

        Rows are complete (see `toast_values.py`); `partition_offsets` says where the events are.
        """
        events = self.as_sent(shard, first, end, only)
        return complete(events, self.rows, self.decoder(), self._records.fetch, self._cache)

    def others(self, known: Collection[str]) -> list[str]:
        """Shards of whom the topic may have rows, and that are not among `known`."""
        return sorted({shard for state in self.states() for shard in state.shards} - set(known))

    def live(self, shard: str, batch: int) -> Iterator[Events]:
        """The shard's rows as readers by key see them, some `batch` events at once: last records of keys."""
        batches = 1 + self.count(shard) // batch
        for at in range(batches):
            yield live(self.as_sent(shard, (at << 64) // batches, (at + 1 << 64) // batches))

    def as_sent(self, shard: str, first: int, end: int, only: Words | None = None) -> Events:
        """The same with rows as they were sent: PARTIAL where a value is missing."""
        parts = [np.zeros(0, dtype=EVENT)]
        for number, fold in self._partitions.items():
            found = fold.slices(shard, first, end, only)
            if fold.state().next_offset < self._ends[number]:
                raise self._changed(
                    f"partition {number} of {self._topic} was cut, and its fold begun again, in mid-run."
                )
            parts.append(_packed(found, number))
        events = _one_epoch_if_moved(np.concatenate(parts), len(self._ends))
        return in_order(events, numbered_by_stream=self.shape.engine.reads_binlog)

    def decoder(self) -> JsonDecoder:
        """A decoder for this topic's records."""
        return JsonDecoder(self.shape, projected=self.projected)

    def fetch(self, partition: int, offsets: Sequence[int]) -> Mapping[int, tuple[bytes | None, bytes | None]]:
        """Single records of the topic."""
        return self._records.fetch(partition, offsets)

    def _changed(self, message: str) -> KafkaUnavailable:
        return KafkaUnavailable(message, where=str(self._root), cure="Run the verification again.")

    def _open(self, topic_id: str) -> Path:
        if self._root is None or self._topic_id != topic_id:
            self._topic_id = topic_id
            name = f"{topic_id}-{self.shape.fingerprint}"
            self._root = cache_path(self._cache, "folds", self._platform, self._topic, name)
            self._root.mkdir(parents=True, exist_ok=True)
            self._partitions.clear()
            remove_others(self._cache, self._root, idle_s=KEPT_SECONDS)
        return self._root

    def _extend(
        self,
        root: Path,
        bounds: TopicBounds,
        starts: Mapping[str, Position],
        report: Callable[[int, int], None],
        seconds: float,
    ) -> None:
        folder = root / ("rows" if self.projected else "bytes")
        ends = bounds.partitions
        opened = [number for number in ends if number not in self._partitions]
        binlog = self.shape.engine.reads_binlog
        self._partitions.update({number: PartitionFold(folder, number, numbered_by_stream=binlog) for number in opened})
        self._clear_changed(bounds, opened)
        total = sum(
            max(0, end - max(begin, self._partitions[n].state().next_offset)) for n, (begin, end) in ends.items()
        )
        done = 0

        def progress(count: int) -> None:
            nonlocal done
            done += count
            report(done, total)

        def is_done(number: int) -> bool:
            state, (begin, end) = self._partitions[number].state(), ends[number]
            return state.next_offset >= end and state.begin == begin and state.next_offset > 0

        directories = {number: self._partitions[number].directory for number in sorted(ends)}
        for number in each_locked(directories, f"the fold of {self._topic}", seconds=seconds, is_done=is_done):
            self._partitions[number].extend(self._records, self.decoder(), ends[number], starts, progress)
        self._ends = {number: end for number, (_, end) in ends.items()}

    def _clear_changed(self, bounds: TopicBounds, opened: Sequence[int]) -> None:
        """Begin again where the topic no longer holds what earlier runs folded, or no longer what they could not read.

        Another process may be ahead of these bounds, so a fold that is ahead is
        judged by ends that are asked for after its own.
        """
        doubted = [
            number
            for number in opened
            if not self._partitions[number].continues(self._records, bounds.partitions[number])
        ]
        if not doubted:
            return
        now = self._records.bounds().partitions
        for number in doubted:
            fold = self._partitions[number]
            with fold.directory.lock() as locked:
                if locked and not fold.continues(self._records, now[number]):
                    fold.directory.clear()


def _packed(events: Events, partition: int) -> Events:
    """The events of one shard, the partition put above the offset."""
    events["shard"] = 0
    events["offset"] |= packed(partition, 0)
    return events


def _one_epoch_if_moved(events: Events, partitions: int) -> Events:
    """A key is in two partitions when partitions were added in its life, or it is spelled in two ways.

    Epochs count per partition, so for such a key the source's order alone is left, and that what producers write
    now, by the key's hash, is newer than what stands where they wrote before.
    """
    order = np.argsort(events["key"], kind="stable")
    keys = events["key"][order]
    starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
    if len(starts) < len(events):
        where = (events["offset"] >> OFFSET_BITS)[order]
        moved = np.maximum.reduceat(where, starts) != np.minimum.reduceat(where, starts)
        if moved.any():
            chosen = order[np.repeat(moved, np.diff(np.append(starts, len(events))))]
            home = (events["raw"][chosen] & ~OLD_KEY) % partitions
            events["epoch"][chosen] = home == events["offset"][chosen] >> OFFSET_BITS
    return events
