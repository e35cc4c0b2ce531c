"""Upkeep of a lake's tables: old snapshots expire, small files become large ones, a deleted key is erased.

Each reads what readers see before and after, and says by digest that it is the same, or what went.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa

from cdc_platform.errors import BadInput, LakeHeld
from cdc_platform.lake.current import open_view
from cdc_platform.lake.policy import LakePolicy
from cdc_platform.lake.tables import (
    KEY,
    MERGED,
    REWRITE,
    STATE,
    LakeState,
    lake_errors,
    open_tables,
    property_of,
    state_place,
    write_state,
)
from cdc_platform.reading.batches import SHARD

if TYPE_CHECKING:
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot

_BITS = 1 << 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Upkeep:
    """What was done: snapshots and files that are gone, files before and after, rows erased; `digest` of the view."""

    dataset: str
    table: str
    snapshots: int = 0
    files_removed: int = 0
    files_before: int = 0
    files_after: int = 0
    rows_erased: int = 0
    digest: str = ""


def view_digest(policy: LakePolicy, dataset: str, table: str) -> str:
    """Of all current rows, whatever their order and files. Raises NotFound, LakeUnavailable."""
    return _digest(batch for rows in open_view(policy, dataset, table).rows() for batch in rows.to_batches())


def expire(policy: LakePolicy, dataset: str, table: str, keep: timedelta, now: datetime) -> Upkeep:
    """Forget snapshots older than `keep`, but for the newest, and remove the files that only they have.

    Time travel ends there. Raises LakeHeld if the current rows are not what they were, LakeConflict, NotFound.
    """
    before = view_digest(policy, dataset, table)
    snapshots = removed = 0
    for found in _tables(policy, dataset, table):
        with lake_errors(table):
            gone, files = _expire(found, now - keep)
        snapshots, removed = snapshots + gone, removed + files
    _same(policy, dataset, table, before)
    return Upkeep(dataset=dataset, table=table, snapshots=snapshots, files_removed=removed, digest=before)


def compact(policy: LakePolicy, dataset: str, table: str) -> Upkeep:
    """Write all of `changes` again, in as few files as its target size allows. Rows stream: memory is bounded.

    Earlier snapshots keep their files until they expire. Raises LakeHeld if events or rows are not what they were.
    """
    rows = view_digest(policy, dataset, table)
    changes = open_tables(policy, dataset, table).changes()
    assert changes is not None  # there is a view of it
    with lake_errors(table):
        files, events = _count(changes), _digest(changes.scan().to_arrow_batch_reader())
        if files > 1:
            _rewrite(changes)
            if _digest(changes.refresh().scan().to_arrow_batch_reader()) != events:
                raise _differs(dataset, table)
        after = _count(changes)
    _same(policy, dataset, table, rows)
    return Upkeep(dataset=dataset, table=table, files_before=files, files_after=after, digest=rows)


def erase(policy: LakePolicy, dataset: str, table: str, shard: str, key: str, now: datetime) -> Upkeep:
    """Remove all events and rows of a key (as `cdc_key` has it) from both tables and all their snapshots.

    All other snapshots expire with it. The source must have deleted the row, and a run have seen that; the topic loses
    it by compaction. Raises BadInput while the row is there, LakeHeld if a row of the key is left or another is gone.
    """
    if any(one == key for rows in open_view(policy, dataset, table).rows() for one in _keys(rows, shard)):
        raise BadInput(
            f"{dataset}.{table} still has the row {key} of shard {shard}: it would come again.",
            cure="Delete it at the source, run the lake, then erase it.",
        )
    before = view_digest(policy, dataset, table)
    erased = snapshots = removed = 0
    for found in _tables(policy, dataset, table):
        with lake_errors(table):
            erased += _erase(found, shard, key)
            gone, files = _expire(found.refresh(), now + timedelta(days=1))
        snapshots, removed = snapshots + gone, removed + files
        if left := _having(found.refresh(), shard, key):
            raise LakeHeld(f"{left} rows of the key are left.", cure="Run it again while nothing else writes.")
    _same(policy, dataset, table, before)
    return Upkeep(
        dataset=dataset, table=table, snapshots=snapshots, files_removed=removed, rows_erased=erased, digest=before
    )


def whole_snapshots(changes: Table) -> list[Snapshot]:
    """The newest first, without those that a rewrite passes through: it removes files, then adds others."""
    last: dict[str, int] = {}
    for snapshot in changes.snapshots():
        if name := property_of(snapshot, REWRITE):
            last[name] = max(last.get(name, 0), snapshot.sequence_number or 0)
    found = [
        snapshot
        for snapshot in changes.snapshots()
        if (name := property_of(snapshot, REWRITE)) is None or last[name] == (snapshot.sequence_number or 0)
    ]
    return sorted(found, key=lambda snapshot: -(snapshot.sequence_number or 0))


def _tables(policy: LakePolicy, dataset: str, table: str) -> list[Table]:
    tables = open_tables(policy, dataset, table)
    return [found for found in (tables.changes(), tables.base()) if found is not None]


def _keys(rows: pa.Table, shard: str) -> Iterator[str]:
    pairs = zip(rows[SHARD].to_pylist(), rows[KEY].to_pylist(), strict=True)
    return (key for of, key in pairs if of == shard)


def _properties(table: Table) -> dict[str, str]:
    """What the newest snapshot says of its run, or of its buckets, for the one that replaces it."""
    snapshot = table.current_snapshot()
    names = (STATE, "cdc.run", MERGED)
    known = {name: value for name in names if (value := property_of(snapshot, name)) is not None}
    return {**known, REWRITE: uuid.uuid4().hex}


def _rewrite(changes: Table) -> None:
    rows = changes.scan().to_arrow_batch_reader()
    with changes.transaction() as transaction:
        transaction.overwrite(rows, snapshot_properties=_properties(changes))


def _erase(table: Table, shard: str, key: str) -> int:
    rows = _having(table, shard, key)
    if rows:
        properties = _properties(table)
        if STATE in properties:
            properties[STATE] = _state_without(table, properties[STATE], shard, key)
        table.delete(_of_key(shard, key), snapshot_properties=properties)
    return rows


def _state_without(table: Table, place: str, shard: str, key: str) -> str:
    """The run's file, where late events name the key, as one that does not."""
    with table.io.new_input(place).open() as stream:
        state = msgspec.json.decode(stream.read(), type=LakeState)
    late = tuple(
        msgspec.structs.replace(each, keys=tuple(one for one in each.keys if each.shard != shard or one != key))
        for each in state.late
    )
    written = state_place(table, state.run)
    write_state(table, msgspec.structs.replace(state, late=late), written)
    return written


def _having(table: Table, shard: str, key: str) -> int:
    return sum(len(batch) for batch in table.scan(row_filter=_of_key(shard, key)).to_arrow_batch_reader())


def _of_key(shard: str, key: str) -> Any:
    from pyiceberg import expressions

    ice: Any = expressions
    return ice.And(ice.EqualTo(SHARD, shard), ice.EqualTo(KEY, key))


def _expire(table: Table, before: datetime) -> tuple[int, int]:
    """Snapshots that went, and the files that no other has, which are removed after the commit."""
    current = table.current_snapshot()
    old = [
        snapshot
        for snapshot in table.snapshots()
        if snapshot.timestamp_ms < before.timestamp() * 1000 and (current is None or snapshot != current)
    ]
    if not old:
        return 0, 0
    files = {path for snapshot in old for path in _files(table, snapshot)}
    table.maintenance.expire_snapshots().by_ids([snapshot.snapshot_id for snapshot in old]).commit()
    table.refresh()
    files -= {path for snapshot in table.snapshots() for path in _files(table, snapshot)}
    for path in files:
        table.io.delete(path)
    return len(old), len(files)


def _files(table: Table, snapshot: Snapshot) -> Iterator[str]:
    """All that a snapshot needs: its list, its manifests, their data files, and the file of its run."""
    if state := property_of(snapshot, STATE):
        yield state
    yield snapshot.manifest_list
    for manifest in snapshot.manifests(table.io):
        yield manifest.manifest_path
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True):
            yield entry.data_file.file_path


def _count(table: Table) -> int:
    return len(list(table.scan().plan_files()))


def _digest(batches: Iterable[pa.RecordBatch]) -> str:
    """The sum of the rows' hashes: their order does not matter, and how often each is there does."""
    total = count = 0
    for batch in batches:
        for row in batch.to_pylist():
            text = repr(sorted(row.items())).encode("utf-8", "surrogatepass")
            total = (total + int.from_bytes(hashlib.blake2b(text, digest_size=16).digest())) % _BITS
            count += 1
    return f"{count}:{total:032x}"


def _same(policy: LakePolicy, dataset: str, table: str, before: str) -> None:
    if view_digest(policy, dataset, table) != before:
        raise _differs(dataset, table)


def _differs(dataset: str, table: str) -> LakeHeld:
    return LakeHeld(
        f"the lake of {dataset}.{table} is not what it was before.",
        cure="A run may have come in between: `cdc-platform verify` says what is wrong, if anything is.",
    )
