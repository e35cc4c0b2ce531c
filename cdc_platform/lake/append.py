"""One run of a lake: what is new in a topic goes into `changes`, in one commit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pyarrow as pa

from cdc_platform.clients.kafka.topic_records import Records, TopicBounds
from cdc_platform.errors import LakeHeld
from cdc_platform.lake.columns import lake_batch, lake_schema
from cdc_platform.lake.events import NewEvents
from cdc_platform.lake.policy import LakePolicy
from cdc_platform.lake.standing import judged
from cdc_platform.lake.tables import (
    STATE,
    LakeState,
    ShardState,
    lake_errors,
    open_tables,
    state_of,
    state_place,
    write_state,
)
from cdc_platform.lake.windows import LateEvents, kept
from cdc_platform.model.topology import Dataset, Shard, Table, Topology
from cdc_platform.reading.table_shape import table_shape
from cdc_platform.verification.audit_frame import AuditFrame
from cdc_platform.verification.ports import VerificationPolicy, VerificationPorts
from cdc_platform.verification.proof.committed_offsets import ConnectorOffsets
from cdc_platform.verification.proof.topic_fold import TopicFold
from cdc_platform.verification.windows.boundaries import Marks
from cdc_platform.verification.windows.progress import known_windows

if TYPE_CHECKING:
    import pyiceberg.table

_ASKED_AT_ONCE = 16
_NAMED = 5
log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LakeRun:
    """What a run did: `events` written, none when nothing was new; `snapshot` is the newest there is then, if any.

    `unreadable` records of the topic were passed over.
    """

    dataset: str
    table: str
    run: int
    events: int
    snapshot: int | None
    unreadable: int = 0


def append_events(
    ports: VerificationPorts,
    topology: Topology,
    dataset: str,
    table: str,
    policy: LakePolicy,
    report: Progress = lambda done, total: None,
) -> LakeRun:
    """Bring the table's `changes` up to the topic's end as it is when this is called.

    Killed at any point it leaves what was there, or all of what is new.

    Raises:
        LakeConflict: another writer was first.
        LakeHeld: the topic was recreated, or a column became what the lake's cannot take.
        LakeUnavailable, ExtraMissing, and what a `TopicReader` raises.
    """
    known = topology.dataset(dataset)
    return _Run(ports, topology, known, known.table(table), policy, report).append()


@dataclass(frozen=True, slots=True)
class _Run:
    ports: VerificationPorts
    topology: Topology
    dataset: Dataset
    table: Table
    policy: LakePolicy
    report: Progress

    def append(self) -> LakeRun:
        name, topic = f"{self.dataset.name}.{self.table.name}", self.dataset.topic(self.table)
        tables = open_tables(self.policy, self.dataset.name, self.table.name)
        shards = self.topology.shards.get(self.dataset.name, ())
        with closing(self.ports.records(topic)) as records:
            shape = table_shape(self.ports, self.dataset, self.table, shards, records)
            # Asked before the topic's end is: what was committed by then is in the topic below its end.
            committed = self._committed(shards)
            bounds = records.bounds()
            changes = tables.changes()
            with lake_errors(name):
                snapshot = None if changes is None else changes.current_snapshot()
                before = LakeState() if changes is None else state_of(changes, snapshot)
            self._check(before, bounds, topic)
            settings = self.ports.platform.settings
            fold = TopicFold(Path(settings.cache_dir), settings.platform, topic, shape, records)
            fold.extend(bounds, {}, self.report)
            new = self._new(fold, records, bounds, before)
            state = LakeState(
                run=new.run,
                topic_id=bounds.topic_id,
                offsets={number: end for number, (_, end) in bounds.partitions.items()},
                shards=committed,
            )
            if state.offsets == before.offsets:
                return self._done(before, 0, None if snapshot is None else snapshot.snapshot_id)
            schema = lake_schema(new.builder().schema)
            if changes is None:
                changes = tables.make_changes(schema)
            return self._commit(changes, new, schema, before, state)

    def _new(self, fold: TopicFold, records: Records, bounds: TopicBounds, before: LakeState) -> NewEvents:
        begins = {n: max(begin, before.offsets.get(n, 0)) for n, (begin, _) in bounds.partitions.items()}
        return NewEvents(
            fold=fold,
            records=records,
            bounds=bounds,
            begins=begins,
            run=before.run + 1,
            buckets=self.policy.buckets,
            slab_rows=VerificationPolicy.of(self.dataset).slab_rows,
            cache=Path(self.ports.platform.settings.cache_dir),
        )

    def _commit(
        self, changes: pyiceberg.table.Table, new: NewEvents, schema: pa.Schema, before: LakeState, state: LakeState
    ) -> LakeRun:
        count, now = 0, datetime.now(UTC)
        late = LateEvents(self.dataset.engine, self._marks(), before)

        def batches() -> Iterator[pa.RecordBatch]:
            nonlocal count
            for batch in new.batches():
                count += len(batch)
                late.look(batch)
                yield lake_batch(batch, schema)

        # The transaction is bound to the snapshot that `before` was read of: another commit in between fails it.
        with lake_errors(f"{self.dataset.name}.{self.table.name}"):
            place = state_place(changes, state.run)
            with changes.transaction() as transaction:
                self._evolve(transaction, schema)
                transaction.append(
                    pa.RecordBatchReader.from_batches(schema, batches()), {STATE: place, "cdc.run": str(state.run)}
                )
                found = (*kept(before.late, now), *late.found(changes, now))
                write_state(changes, msgspec.structs.replace(state, late=found), place)
            snapshot = changes.current_snapshot()
        for number, offset in new.unreadable[:_NAMED]:
            topic = self.dataset.topic(self.table)
            log.warning("record %d of partition %d of %s cannot be read, and is not in the lake", offset, number, topic)
        done = self._done(state, count, None if snapshot is None else snapshot.snapshot_id)
        return replace(done, unreadable=len(new.unreadable))

    def _marks(self) -> dict[str, Marks]:
        """The boundaries of the dataset's windows, by shard."""
        if not self.dataset.windows:
            return {}
        known = known_windows(self.ports.platform.state.read(), self.dataset.name)
        return {} if known is None else known[2]

    def _evolve(self, transaction: pyiceberg.table.Transaction, schema: pa.Schema) -> None:
        """New columns are added, types made wider where Iceberg allows it. Raises LakeHeld."""
        from pyiceberg.exceptions import ValidationError

        try:
            with transaction.update_schema() as update:
                update.union_by_name(schema)
        except (ValidationError, ValueError) as error:
            raise LakeHeld(
                f"the source's table no longer fits the lake's: {str(error).splitlines()[0]}.",
                where=f"lake of {self.dataset.name}.{self.table.name}",
                cure="Rename the lake's tables and let it fill new ones, or take the change at the source back.",
            ) from error

    def _check(self, before: LakeState, bounds: TopicBounds, topic: str) -> None:
        if before.topic_id not in (None, bounds.topic_id):
            raise LakeHeld(
                f"{topic} was recreated since the lake's last run: its offsets say nothing of the new one.",
                where=f"lake of {self.dataset.name}.{self.table.name}",
                cure="Rename or drop the lake's tables: the next run fills new ones.",
            )
        cut = [n for n, end in before.offsets.items() if bounds.partitions.get(n, (0, 0))[1] < end]
        if cut:
            raise LakeHeld(
                f"partition {cut[0]} of {topic} ends before what the lake has of it: its end was lost.",
                where=f"lake of {self.dataset.name}.{self.table.name}",
                cure="Rename or drop the lake's tables: the next run fills new ones.",
            )

    def _committed(self, shards: tuple[Shard, ...]) -> dict[str, ShardState]:
        offsets = ConnectorOffsets(self.ports.platform, self.dataset, self.topology.clusters)
        with ThreadPoolExecutor(max_workers=_ASKED_AT_ONCE, thread_name_prefix="offsets") as pool:
            found = [each.committed for each in pool.map(offsets.committed, shards)]
        verdicts = AuditFrame(self.ports.platform.settings.audit_dir).latest(self.dataset.name, self.table.name)
        newest = {verdict.shard: verdict for verdict in verdicts}
        return {
            shard.id: judged(self.dataset.engine, each.position if each else None, newest.get(shard.id))
            for shard, each in zip(shards, found, strict=True)
        }

    def _done(self, state: LakeState, events: int, snapshot: int | None) -> LakeRun:
        return LakeRun(
            dataset=self.dataset.name, table=self.table.name, run=state.run, events=events, snapshot=snapshot
        )


def due_buckets(rows: Mapping[int, int], changed: Mapping[int, int], share: float) -> list[int]:
    """Buckets of `base` that are to be rewritten: those of which this share of rows has changed, and new ones.

    pyiceberg writes whole files: a merge costs all rows of its bucket, whatever changed in it.
    """
    return sorted(bucket for bucket, count in changed.items() if count and count >= share * rows.get(bucket, 0))
