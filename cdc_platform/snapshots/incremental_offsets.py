"""Incremental snapshots begin and end through the committed offset (docs/decisions/0082).

Under the lock, a wave at a time: the connector is stopped, the tables are put into its offset
in the form in which Debezium stores a snapshot that is under way (AbstractIncrementalSnapshotContext.store,
3.5.0 and 3.7.0), and it is resumed. Its task then reads the first chunk before it streams. An offset
that holds the snapshot already is left as it is: killed after any step, the wave is repeated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from cdc_platform.clients.protocols import ControlLock, StateStore
from cdc_platform.errors import CdcError, ConnectRejected, NotFound, Unavailable
from cdc_platform.model.positions import SNAPSHOT, marked_initial
from cdc_platform.planning.holds import SNAPSHOT_OPTIONS
from cdc_platform.snapshots.connector_waves import WaveItem, committed, each, hold, stop
from cdc_platform.snapshots.run_records import Run, hold_key
from cdc_platform.snapshots.shard_steps import running_signal, signal_id, streams

PREFIX = "incremental_snapshot_"
COLLECTIONS = f"{PREFIX}collections"
CORRELATION_ID = f"{PREFIX}correlation_id"
CHUNK_ROWS = "incremental.snapshot.chunk.size"
assert CHUNK_ROWS in SNAPSHOT_OPTIONS
# Without these a table is not read to its end: a connector that an earlier release made may lack them.
_NEEDED = ("driver.stringtype",)


def begin_snapshots(
    lock: ControlLock, state: StateStore, run: Run, wave: Sequence[WaveItem], *, free_text: bool = False
) -> dict[str, Mapping[str, Any] | CdcError]:
    """Ask for `item.tables` in one incremental snapshot for each shard.

    Args:
        lock: checked before each change.
        state: the writer of the run's records.
        run: the run; its filter chooses the rows.
        wave: the shards; each streams already.
        free_text: the run's condition may be any SQL.

    Returns:
        By shard id: the committed offset at which it begins, or what went wrong; such a shard streams on.

    Raises:
        LockLost: nothing more is changed.
        KafkaUnavailable, Fenced: the state topic cannot be written.
    """

    def one(item: WaveItem) -> Mapping[str, Any]:
        return _change(item, lambda offset: snapshot_offset(item, run, offset, free_text=free_text))

    return _wave(lock, state, run, wave, one)


def end_snapshots(
    lock: ControlLock, state: StateStore, run: Run, wave: Sequence[WaveItem]
) -> dict[str, Mapping[str, Any] | CdcError]:
    """Take the snapshots of this run out of the offsets again; rows that were read stay in the topic."""

    def one(item: WaveItem) -> Mapping[str, Any]:
        def without(offset: dict[str, Any]) -> dict[str, Any]:
            mine = str(running_signal(offset) or "").startswith(signal_id(run.id, item.shard.name, 0)[:-1])
            return without_snapshot(offset) if mine else offset

        return _change(replace(item, chunk_rows=None), without)

    return _wave(lock, state, run, wave, one)


def asked_offset(
    offset: Mapping[str, Any], *, signal: str, tables: Sequence[str], condition: str | None
) -> dict[str, Any]:
    """The committed offset with an incremental snapshot of these tables put in. Pure."""
    collections = [
        {
            f"{COLLECTIONS}_id": table,
            f"{COLLECTIONS}_additional_condition": f"({condition})" if condition else None,
            f"{COLLECTIONS}_surrogate_key": None,
            # From Debezium 3.7 on each table has its own; 3.5 passes over it.
            f"{COLLECTIONS}_correlation_id": signal,
        }
        for table in tables
    ]
    return {**without_snapshot(offset), COLLECTIONS: json.dumps(collections), CORRELATION_ID: signal}


def without_snapshot(offset: Mapping[str, Any]) -> dict[str, Any]:
    """The offset of a stream, without an incremental snapshot and the mark that a window's rows have. Pure."""
    kept = {key: value for key, value in offset.items() if not key.startswith(PREFIX)}
    if not marked_initial(kept):
        kept.pop(SNAPSHOT, None)
    return kept


def closing_at_once(offset: Mapping[str, Any], settled: int) -> dict[str, Any]:
    """A Postgres offset with which the window of a task's first chunk closes on an idle shard, too. Pure.

    A window closes when the task finds nothing to read and the id of its last transaction is at most the oldest
    that was open when the chunk was read (PostgresReadOnlyIncrementalSnapshotChangeEventSource
    .readUntilNewTransactionChange, 3.7.0; docs/decisions/0121). So that id is made one that is surely older:
    `settled`, see `SourceLogs.settled_transaction`. And there is no `lsn_proc`: with it the task first searches
    its position, and takes the next transaction for its last one. All transactions up to `lsn_commit` were handed
    on, so nothing is lost by starting there.
    """
    kept = {key: value for key, value in offset.items() if key == "ts_usec" or key.startswith(PREFIX)}
    lsn = offset.get("lsn_commit", offset.get("lsn"))
    return {"lsn": lsn, "txId": min(offset.get("txId") or settled, settled), **kept}


def snapshot_offset(item: WaveItem, run: Run, offset: dict[str, Any], *, free_text: bool = False) -> dict[str, Any]:
    """The offset with which a stopped shard goes on. Pure. Raises Unavailable: another snapshot runs."""
    signal = signal_id(run.id, item.shard.name, item.attempt)
    running = running_signal(offset)
    if running is not None and running != signal:
        raise Unavailable(f"{item.shard.name} takes another incremental snapshot: {running}.")
    if running is None:
        if item.nudged:
            return offset  # it came to its end just now: its notifications say how
        condition = run.request.filter(item.dataset.engine, item.shard.id, free_text=free_text)
        offset = asked_offset(offset, signal=signal, tables=item.tables, condition=condition)
    return offset if item.settled is None else closing_at_once(offset, item.settled)


def _change(item: WaveItem, change: Any) -> Mapping[str, Any]:
    name = item.shard.name
    stop(item.connect, name)
    try:
        offset = committed(item.connect, name)
        if offset is None or not streams(item.dataset.engine, offset):
            raise Unavailable(f"{name} has committed no position yet.")
        changed = change(offset)
        if changed != offset:
            item.connect.alter_offsets(name, [{"partition": {"server": name}, "offset": changed}])
            if committed(item.connect, name) != changed:
                raise Unavailable(f"Connect does not show the new offset of {name} yet.")
        _configure(item)
        return offset
    finally:
        # Whatever went wrong, its offset is a whole one, before or after the change.
        item.connect.resume(name)


def chunk_rows_of(item: WaveItem) -> str | None:
    """The chunk size that the shard's connector is given; None: it keeps its own. Pure."""
    usual = item.config.get(CHUNK_ROWS)
    if item.chunk_rows is None:
        return usual
    # An override may be smaller still.
    return str(min(item.chunk_rows, int(usual or item.chunk_rows)))


def _configure(item: WaveItem) -> None:
    config = item.connect.connector(item.shard.name).config
    wanted = {CHUNK_ROWS: chunk_rows_of(item), **{name: item.config.get(name) for name in _NEEDED}}
    changes = {name: value for name, value in wanted.items() if value is not None and config.get(name) != value}
    if changes:
        kept = {key: value for key, value in config.items() if key != "name"}
        item.connect.update(item.shard.name, {**kept, **changes})


def _wave(
    lock: ControlLock, state: StateStore, run: Run, wave: Sequence[WaveItem], one: Any
) -> dict[str, Mapping[str, Any] | CdcError]:
    lock.check()
    hold(state, run, wave, f"an incremental snapshot of {run.kind} {run.id} begins or ends")
    results: dict[str, Mapping[str, Any] | CdcError] = each(wave, one)
    lock.check()
    state.write({hold_key(item.shard.name): None for item in wave})
    return {
        shard: ConnectRejected(str(result)) if isinstance(result, NotFound) else result
        for shard, result in results.items()
    }
