"""The merged view: of `base` and `changes` the row of each key as it is, or as it was at a snapshot; and the merge.

The run of a row decides, for a run marks the event of each changed key that counts by the source's order. So the view
is right whatever of `changes` has been merged into `base`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from cdc_platform.errors import NotFound
from cdc_platform.lake.append import due_buckets
from cdc_platform.lake.data_files import Reading, as_typed
from cdc_platform.lake.policy import LakePolicy
from cdc_platform.lake.tables import (
    BUCKET,
    CURRENT,
    KEY,
    MERGED,
    RUN,
    LakeState,
    LakeTables,
    lake_errors,
    merged_of,
    open_tables,
    state_of,
)
from cdc_platform.reading.batches import OPERATION, SHARD

if TYPE_CHECKING:
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot


@dataclass(frozen=True, slots=True)
class LakeView:
    """A captured table in the lake as of one snapshot of `changes`. Read bucket by bucket: memory is that of one."""

    tables: LakeTables
    changes: Table
    snapshot: Snapshot
    state: LakeState
    base: Table | None
    base_snapshot: Snapshot | None

    @property
    def schema(self) -> pa.Schema:
        """Of the rows: the table's columns, and those that stand beside them."""
        return self.changes.scan(snapshot_id=self.snapshot.snapshot_id).to_arrow_batch_reader().schema

    def rows(self) -> Iterator[pa.Table]:
        """The current rows, a bucket at a time. Raises LakeUnavailable."""
        for bucket in self.buckets():
            yield self.bucket(bucket)

    def buckets(self) -> list[int]:
        """The buckets that have rows or changes."""
        return sorted({*self.changed(), *self.merged()})

    def merged(self) -> Mapping[int, int]:
        """Bucket to the run up to which `base` has its changes."""
        return merged_of(self.base_snapshot)

    def changed(self) -> dict[int, int]:
        """Bucket to the number of its changes that `base` lacks."""
        ice = _expressions()
        merged = self.merged()
        counts: dict[int, int] = {}
        with lake_errors(self.tables.table):
            scan = self.changes.scan(
                row_filter=ice.EqualTo(CURRENT, True),
                selected_fields=(BUCKET, RUN, CURRENT),
                snapshot_id=self.snapshot.snapshot_id,
            )
            for batch in scan.to_arrow_batch_reader():
                pairs = zip(batch[BUCKET].to_pylist(), batch[RUN].to_pylist(), strict=True)
                for bucket, run in pairs:
                    if run > merged.get(bucket, 0):
                        counts[bucket] = counts.get(bucket, 0) + 1
        return counts

    def bucket(self, bucket: int, read: Reading = as_typed) -> pa.Table:
        """The current rows of one bucket, in the order of shard and key. Raises what `read` does.

        `read`: how data files are read. By default one that is not of the table's types is refused (LakeHeld).
        """
        return self.some([bucket], read)

    def some(self, buckets: Sequence[int], read: Reading = as_typed) -> pa.Table:
        """The current rows of these buckets, as `bucket` has them: planned and read once for all of them."""
        ice = _expressions()
        merged = self.merged()
        after = {bucket: merged.get(bucket, 0) for bucket in buckets}
        with lake_errors(self.tables.table):
            chosen = ice.In(BUCKET, list(buckets))
            new = ice.And(chosen, ice.EqualTo(CURRENT, True), ice.GreaterThan(RUN, min(after.values())))
            found = read(self.changes.scan(row_filter=new, snapshot_id=self.snapshot.snapshot_id))
            pairs = zip(found[BUCKET].to_pylist(), found[RUN].to_pylist(), strict=True)
            parts = [found.filter(pa.array([run > after[bucket] for bucket, run in pairs], pa.bool_()))]
            if self.base is not None and self.base_snapshot is not None:
                parts.append(read(self.base.scan(row_filter=chosen, snapshot_id=self.base_snapshot.snapshot_id)))
        return _newest(pa.concat_tables(parts, promote_options="permissive"))


def _newest(rows: pa.Table) -> pa.Table:
    """Of each key the row of the last run, unless that deleted it."""
    order = pc.sort_indices(rows, sort_keys=[(SHARD, "ascending"), (KEY, "ascending"), (RUN, "descending")])
    rows = rows.take(order)
    if len(rows) > 1:
        same = pc.and_(*(pc.equal(rows[name].slice(1), rows[name].slice(0, len(rows) - 1)) for name in (SHARD, KEY)))
        first = pa.chunked_array([pa.array([True]), *pc.invert(same).chunks])
        rows = rows.filter(first)
    return rows.filter(pc.not_equal(rows[OPERATION], "d"))


def open_view(policy: LakePolicy, dataset: str, table: str, snapshot_id: int | None = None) -> LakeView:
    """The view as of the newest snapshot, or of one that is named. Raises NotFound, LakeUnavailable, ExtraMissing."""
    tables = open_tables(policy, dataset, table)
    # `base` first: what it has merged, `changes` has by then.
    base = tables.base()
    changes = tables.changes()
    snapshot = None
    if changes is not None:
        snapshot = changes.current_snapshot() if snapshot_id is None else changes.snapshot_by_id(snapshot_id)
    if changes is None or snapshot is None:
        raise NotFound(
            f"the lake has no rows of {dataset}.{table}{'' if snapshot_id is None else f' at {snapshot_id}'}.",
            cure="Run its asset, or `cdc-platform lake run`.",
        )
    with lake_errors(table):
        state = state_of(changes, snapshot)
    return LakeView(tables, changes, snapshot, state, base, _base_snapshot(base, state.run))


def _base_snapshot(base: Table | None, run: int) -> Snapshot | None:
    """The newest snapshot of `base` that has nothing from after the run.

    A merge removes and adds files in one commit, as two snapshots with the same property: the later one is whole.
    """
    found: Snapshot | None = None
    for snapshot in () if base is None else base.snapshots():
        merged = merged_of(snapshot)
        if merged and max(merged.values()) <= run and (found is None or _order(snapshot) > _order(found)):
            found = snapshot
    return found


def _order(snapshot: Snapshot) -> int:
    return snapshot.sequence_number or 0


def merge(policy: LakePolicy, dataset: str, table: str, share: float | None = None) -> list[int]:
    """Rewrite those buckets of `base` that are due; returns them. One commit, readers see all of it or nothing.

    Raises LakeConflict when another merge was first, LakeUnavailable, NotFound.
    """
    view = open_view(policy, dataset, table)
    changed = view.changed()
    due = due_buckets(_rows_of(view), changed, policy.merge_share if share is None else share)
    if not due:
        return []
    replace_buckets(view, due, view.some(due))
    return due


def replace_buckets(view: LakeView, buckets: Sequence[int], rows: pa.Table) -> None:
    """Make these the rows of these buckets of `base`, as of the view's run. One commit. Raises as `merge`."""
    ice = _expressions()
    base = view.tables.make_base(rows.schema)
    merged = {**view.merged(), **dict.fromkeys(buckets, view.state.run)}
    properties = {MERGED: msgspec.json.encode(merged).decode()}
    with lake_errors(view.tables.table), base.transaction() as transaction:
        with transaction.update_schema() as update:
            update.union_by_name(rows.schema)
        with warnings.catch_warnings():
            # Said of buckets that are merged for the first time.
            warnings.filterwarnings("ignore", message="Delete operation did not match any records")
            transaction.overwrite(rows, overwrite_filter=ice.In(BUCKET, list(buckets)), snapshot_properties=properties)


def _rows_of(view: LakeView) -> dict[int, int]:
    """Rows of each bucket of `base`, by its files."""
    if view.base is None or view.base_snapshot is None:
        return {}
    found: dict[int, int] = {}
    for task in view.base.scan(snapshot_id=view.base_snapshot.snapshot_id).plan_files():
        bucket: Any = task.file.partition[0]
        found[bucket] = found.get(bucket, 0) + task.file.record_count
    return found


def _expressions() -> Any:
    """Of pyiceberg, untyped: its constructors take positions, which their declared types do not have."""
    from pyiceberg import expressions

    return expressions
