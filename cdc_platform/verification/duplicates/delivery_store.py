"""The deliveries of a topic's partitions on disk: a cache, extended from one check to the next.

Losing it costs one reading of the topic. Events of one key share a partition, so partitions are counted each by
itself; events that were sent again after partitions were added may land in another, and are not found.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from cdc_platform.clients.kafka.topic_records import Records
from cdc_platform.verification.continuity.transaction_counts import TRANSACTION_COUNT
from cdc_platform.verification.duplicates.copies import PartitionCounts
from cdc_platform.verification.duplicates.deliveries import DeliveryReader
from cdc_platform.verification.duplicates.delivery_batches import (
    OLDER,
    VERSION,
    DeliveryWriter,
    PartitionState,
    newest_of,
    save_state,
)
from cdc_platform.verification.duplicates.transaction_takeovers import Takeovers
from cdc_platform.verification.storage import sorted_files
from cdc_platform.verification.storage.cache import cache_path, remove_others
from cdc_platform.verification.storage.state_directory import StateDirectory, each_locked

# Events in memory before they are sorted, compared and written: 45 bytes each, four times that for a moment.
BATCH_EVENTS = 300_000


class PartitionDeliveries:
    """The deliveries of one partition. Extended under the lock of its directory; its state is read without."""

    def __init__(self, root: Path, partition: int) -> None:
        self.partition = partition
        self.directory = StateDirectory(root / f"p{partition:05d}", version=VERSION, older=OLDER)

    def state(self) -> PartitionState:
        """The state on disk; an empty one where there is none of this version."""
        return self.directory.load(PartitionState) or PartitionState()

    def counts(self) -> PartitionCounts:
        """Runs and copies of this partition."""
        state = self.state()
        return PartitionCounts(self.partition, state.spans, state.pairs, state.unsure)

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
            self.directory.clear()
            state = PartitionState()
        writer = DeliveryWriter(self.directory, replace(state, begin=begin), takeovers)
        unreadable = reader.unreadable
        for batch in records.read(self.partition, max(state.next_offset, begin), end):
            found, streams = reader.read(batch, writer.runs)
            writer.add(found, streams, reader.transactions, batch.offsets[-1] + 1, reader.unreadable - unreadable)
            unreadable = reader.unreadable
            if writer.unsaved >= batch_events:
                writer.flush()
            progress(len(batch.offsets))
        if state.next_offset < end or state.begin != begin:
            writer.flush(max(end, begin))
        return max(0, end - max(state.next_offset, begin))

    def transaction_counts(self) -> list[tuple[str, npt.NDArray[np.void]]]:
        """Events by task run and transaction (`TRANSACTION_COUNT`), by the file that has them, oldest first."""
        found = []
        for name in self.state().transaction_counts:
            try:
                rows = sorted_files.read(self.directory.path / name, TRANSACTION_COUNT)
            except FileNotFoundError:
                continue  # dropped by another process meanwhile
            found.append((name, np.array(rows)))
        return found

    def drop_transaction_counts(self, names: Collection[str]) -> None:
        """Remove these files, under the lock: the ledger has taken them in."""
        state = self.state()
        if set(names) & set(state.transaction_counts):
            kept = tuple(name for name in state.transaction_counts if name not in names)
            newest = max(newest_of(name) for name in state.transaction_counts if name in names)
            handed_over = max(state.handed_over, newest)
            save_state(self.directory, replace(state, transaction_counts=kept, handed_over=handed_over))


class TopicDeliveries:
    """The deliveries of a whole topic. Several processes may extend it at once.

    `takeovers` knows how task runs began, where Debezium restarts the numbering of events (binlogs); None: it does not.
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
        self._topic = topic
        self._partitions = {number: PartitionDeliveries(root, number) for number in partitions}
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

        Partitions that another process is at are waited for.

        Raises:
            CacheHeld: another process holds a partition, and does not get on for `seconds`.
            KafkaUnavailable, KafkaRejected.
        """
        total = sum(max(0, end - begin) for begin, end in ends.values())
        done = read = 0

        def progress(count: int) -> None:
            nonlocal done
            done += count
            report(done, max(total, done))

        directories = {number: part.directory for number, part in self._partitions.items()}
        for number in each_locked(directories, f"the deliveries of {self._topic}", seconds=seconds):
            part = self._partitions[number]
            read += part.extend(records, reader(), ends[number], progress, takeovers=self._takeovers)
        return read

    def counts(self) -> list[PartitionCounts]:
        """Runs and copies, by partition."""
        return [part.counts() for part in self.partitions()]

    def partitions(self) -> Sequence[PartitionDeliveries]:
        """Partition by partition."""
        return list(self._partitions.values())

    def totals(self) -> tuple[int, int]:
        """How many events were read, and how many records that are not change events."""
        states = [part.state() for part in self.partitions()]
        return sum(state.events for state in states), sum(state.unreadable for state in states)
