"""One topic's fold as a whole: all its partitions, extended together, read shard by shard."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cdc_platform.canonical.columns import Shape
from cdc_platform.canonical.topic_rows import RowReader
from cdc_platform.clients.kafka.topic_records import Records, TopicBounds
from cdc_platform.errors import KafkaUnavailable
from cdc_platform.model.positions import Position
from cdc_platform.verification.proof.change_events import EVENT, OFFSET_BITS, Events, UnreadableRecord, Words, packed
from cdc_platform.verification.proof.decoding import JsonDecoder
from cdc_platform.verification.proof.fold import in_order
from cdc_platform.verification.proof.fold_files import Drifted, PartitionFold
from cdc_platform.verification.proof.toast_values import complete
from cdc_platform.verification.storage.cache import KEPT_SECONDS, cache_path, remove_others

_WAIT_SECONDS = 0.05


class TopicFold:
    """The fold of a topic for one shape of table. Several processes may extend it at once."""

    def __init__(self, cache: Path, platform: str, topic: str, shape: Shape, records: Records) -> None:
        self._place = (cache, platform, topic)
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
        fences: Mapping[str, Position],
        report: Callable[[int, int], None],
        *,
        seconds: float = 3600.0,
    ) -> None:
        """Take in everything below the ends of `bounds`.

        Partitions that another process is at are left to it, and waited for.

        Raises:
            KafkaUnavailable: also when another process does not get on for `seconds`.
        """
        self._open(bounds.topic_id)
        while True:
            try:
                self._extend(bounds, fences, report, seconds)
                return
            except Drifted:
                self.project()

    def project(self) -> None:
        """From now on read rows column by column: begins the fold anew."""
        if self._root is None:
            raise RuntimeError("extend() comes first")
        (self._root / "projected").touch()
        self._partitions.clear()

    def still(self, bounds: TopicBounds) -> None:
        """Make sure that what was folded is what the topic holds now. Raises KafkaUnavailable."""
        shorter = [number for number, end in self._ends.items() if bounds.partitions.get(number, (0, 0))[1] < end]
        if self._ends and (bounds.topic_id != self._topic_id or shorter):
            raise KafkaUnavailable(
                f"{self._place[2]} was cut or made anew in mid-run.",
                where=str(self._root),
                cure="Run the verification again.",
            )

    def states(self) -> list[Any]:
        """The state of each partition's fold."""
        return [fold.state() for fold in self._partitions.values()]

    def troubles(self) -> list[UnreadableRecord]:
        """Records that the topic still has and that could not be read."""
        return [trouble for state in self.states() for trouble in state.troubles if trouble.offset >= state.begin]

    def cut(self) -> bool:
        """True when the topic no longer has its beginning."""
        return any(state.begin > 0 for state in self.states())

    def count(self, shard: str) -> int:
        """How many events of the shard are kept."""
        return sum(fold.count(shard) for fold in self._partitions.values())

    def events(self, shard: str, first: int, end: int, only: Words | None = None) -> Events:
        """The shard's sorted events with keys from `first` up to, not with, `end`; `only` picks among them.

        Rows are complete (see `partials.py`); `places` says where the events are.
        """
        parts = [np.zeros(0, dtype=EVENT)]
        for number, fold in self._partitions.items():
            found = fold.slices(shard, first, end, only)
            if fold.state().next_offset < self._ends[number]:
                raise KafkaUnavailable(
                    f"partition {number} of {self._place[2]} was cut, and its fold begun anew, in mid-run.",
                    where=str(self._root),
                    cure="Run the verification again.",
                )
            parts.append(_packed(found, number))
        events = in_order(_one_epoch_if_moved(np.concatenate(parts)))
        return complete(events, self.rows, self.decoder(), self._records.fetch, self._place[0])

    def decoder(self) -> JsonDecoder:
        """A decoder for this topic's records."""
        return JsonDecoder(self.shape, projected=self.projected)

    def fetch(self, partition: int, offsets: Sequence[int]) -> Mapping[int, tuple[bytes | None, bytes | None]]:
        """Single records of the topic."""
        return self._records.fetch(partition, offsets)

    def _open(self, topic_id: str) -> None:
        if self._topic_id == topic_id:
            return
        self._topic_id = topic_id
        self._root = cache_path(self._place[0], "folds", *self._place[1:], f"{topic_id}-{self.shape.fingerprint}")
        self._root.mkdir(parents=True, exist_ok=True)
        self._partitions.clear()
        remove_others(self._place[0], self._root, idle_s=KEPT_SECONDS)

    def _extend(
        self,
        bounds: TopicBounds,
        fences: Mapping[str, Position],
        report: Callable[[int, int], None],
        seconds: float,
    ) -> None:
        mode = "rows" if self.projected else "bytes"
        if self._root is None:
            raise RuntimeError("the fold has no place")
        ends = bounds.partitions
        fresh = [number for number in ends if number not in self._partitions]
        self._partitions.update({number: PartitionFold(self._root / mode, number) for number in fresh})
        self._forget_changed_logs(bounds, fresh)
        todo = set(ends)
        total = sum(
            max(0, end - max(begin, self._partitions[n].state().next_offset)) for n, (begin, end) in ends.items()
        )
        done, quiet = 0, time.monotonic()

        def taken(count: int) -> None:
            nonlocal done
            done += count
            report(done, total)

        while todo:
            idle = True
            for number in sorted(todo):
                fold = self._partitions[number]
                begin, end = ends[number]
                state = fold.state()
                if state.next_offset >= end and state.begin == begin and state.next_offset > 0:
                    todo.discard(number)
                    continue
                with fold.lock() as mine:
                    if not mine:
                        continue
                    fold.extend(self._records, self.decoder(), (begin, end), fences, taken)
                    todo.discard(number)
                    idle = False
            if not idle:
                quiet = time.monotonic()
            elif todo and time.monotonic() - quiet > seconds:
                raise KafkaUnavailable(
                    f"another process has been folding {self._place[2]} for {seconds:.0f} s without an end.",
                    where=str(self._root),
                    cure="See whether it hangs; its lock goes with it.",
                )
            elif todo:
                time.sleep(_WAIT_SECONDS)
        self._ends = {number: end for number, (_, end) in ends.items()}

    def _forget_changed_logs(self, bounds: TopicBounds, fresh: Sequence[int]) -> None:
        """Begin anew where the topic no longer holds what earlier runs folded, or no longer what they could not read.

        Another process may be ahead of these bounds, so a fold that is is
        judged by ends that are asked for again, after its own.
        """
        doubted = [
            number
            for number in fresh
            if not self._partitions[number].continues(self._records, bounds.partitions[number])
        ]
        if not doubted:
            return
        now = self._records.bounds().partitions
        for number in doubted:
            fold = self._partitions[number]
            with fold.lock() as mine:
                if mine and not fold.continues(self._records, now[number]):
                    fold.clear()


def _packed(events: Events, partition: int) -> Events:
    """The events of one shard, the partition put above the offset."""
    events["shard"] = 0
    events["offset"] |= packed(partition, 0)
    return events


def _one_epoch_if_moved(events: Events) -> Events:
    """A key is in two partitions when partitions were added in its life.

    Epochs count per partition, so for such a key the source's order alone is left.
    """
    order = np.argsort(events["key"], kind="stable")
    keys = events["key"][order]
    starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
    if len(starts) < len(events):
        partitions = (events["offset"] >> OFFSET_BITS)[order]
        moved = np.maximum.reduceat(partitions, starts) != np.minimum.reduceat(partitions, starts)
        if moved.any():
            events["epoch"][order[np.repeat(moved, np.diff(np.append(starts, len(events))))]] = 0
    return events
