"""What was seen of a topic's partitions, on disk: a cache, extended from check to check.

Losing it costs one reading of the topic. Events of one key share a partition, so partitions are counted each by
itself; events that were sent again after partitions were added may land in another, and are not found.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from cdc_platform.clients.kafka.topic_records import Records
from cdc_platform.verification.continuity.transaction_counts import TRANSACTION_COUNT
from cdc_platform.verification.duplicates.copies import PartitionCounts
from cdc_platform.verification.duplicates.deliveries import DeliveryReader
from cdc_platform.verification.duplicates.delivery_batches import (
    VERSION,
    DeliveryWriter,
    PartitionState,
    newest_of,
    save_state,
)
from cdc_platform.verification.duplicates.transaction_takeovers import Takeovers
from cdc_platform.verification.storage import sorted_files as runs
from cdc_platform.verification.storage.cache import cache_path, remove_others

# Events held before they are sorted, compared and written: 45 bytes each, four times that for a moment.
BATCH_EVENTS = 300_000


class PartitionDeliveries:
    """The deliveries of one partition. Extended under a lock; its state is read without."""

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
        return found if found.version == VERSION else PartitionState()

    def counts(self) -> PartitionCounts:
        """Runs and copies of this partition."""
        state = self.state()
        return PartitionCounts(self.partition, state.spans, state.pairs, state.unsure)

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
        reader: DeliveryReader,
        bounds: tuple[int, int],
        progress: Callable[[int], None],
        *,
        takeovers: Takeovers | None = None,
        batch_events: int = BATCH_EVENTS,
    ) -> int:
        """Take in the records up to the end of `bounds`, under the lock. Returns how many were new.

        `takeovers` as in `TopicDeliveries`. Raises what `records` and `takeovers` raise.
        """
        begin, end = bounds
        state = self.state()
        if end < state.next_offset or not state.serial:
            # Without a state of this version, files of another may still lie here.
            self._clear()
            state = PartitionState()
        writer = DeliveryWriter(self._dir, replace(state, begin=begin), takeovers)
        strangers = reader.strangers
        for batch in records.read(self.partition, max(state.next_offset, begin), end):
            found, streams = reader.read(batch, writer.runs)
            writer.hold(found, streams, reader.transactions, batch.offsets[-1] + 1, reader.strangers - strangers)
            strangers = reader.strangers
            if writer.held >= batch_events:
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
                found.append((name, np.array(runs.read(self._dir / name, TRANSACTION_COUNT))))
            except FileNotFoundError:
                continue  # dropped by another process meanwhile
        return found

    def drop_tallies(self, names: Collection[str]) -> None:
        """Forget these files, under the lock: the ledger has taken them in."""
        state = self.state()
        if set(names) & set(state.tallies):
            kept = tuple(name for name in state.tallies if name not in names)
            newest = max(newest_of(name) for name in state.tallies if name in names)
            save_state(self._dir, replace(state, tallies=kept, handed_over=max(state.handed_over, newest)))

    def _clear(self) -> None:
        for path in self._dir.iterdir():
            if path.name != "lock":
                path.unlink()


class TopicDeliveries:
    """The deliveries of a whole topic. Several processes may extend it at once.

    `takeovers` tells how task runs began, where Debezium numbers events anew (binlogs); None: it does not.
    """

    def __init__(
        self,
        home: Path,
        platform: str,
        topic: str,
        topic_id: str,
        partitions: Sequence[int],
        takeovers: Takeovers | None = None,
    ) -> None:
        root = cache_path(home, "sightings", platform, topic, topic_id)
        root.mkdir(parents=True, exist_ok=True)
        # Of a topic of that name that is no more.
        remove_others(home, root)
        self._partitions = [PartitionDeliveries(root, number) for number in partitions]
        self._takeovers = takeovers

    def extend(
        self,
        records: Records,
        reader: Callable[[], DeliveryReader],
        ends: dict[int, tuple[int, int]],
        report: Callable[[int, int], None],
        *,
        seconds: float = 3600.0,
    ) -> int:
        """Take in all below the ends. Returns how many records were read here.

        Partitions that another process is at are waited for. Raises KafkaUnavailable, KafkaRejected.
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
                        end = ends[part.partition]
                        read += part.extend(records, reader(), end, taken, takeovers=self._takeovers)
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

    def partitions(self) -> Sequence[PartitionDeliveries]:
        """Partition by partition."""
        return self._partitions

    def totals(self) -> tuple[int, int]:
        """How many events were seen, and how many records that are none."""
        states = [part.state() for part in self._partitions]
        return sum(state.events for state in states), sum(state.strangers for state in states)
