"""The watermarks of a shard whose state changed, and what is reported of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cdc_platform.model.positions import Committed
from cdc_platform.model.topology import BootstrapMode, Dataset, Engine, Shard
from cdc_platform.snapshots.progress_events import ShardDone
from cdc_platform.snapshots.request import RunKind
from cdc_platform.snapshots.run_records import Hole, Offset, Phase, Run, ShardState, Watermark


def watermark_records(
    run: Run, dataset: Dataset, shard: Shard, state: ShardState, known: Mapping[tuple[str, str], Watermark]
) -> dict[str, Mapping[str, Any]]:
    """The watermarks to write as a shard enters a phase: READING, DONE; none when it failed.

    Args:
        run: the run.
        dataset: its dataset.
        shard: the shard.
        state: its new state.
        known: watermarks that were known when the run began, by (table, shard id).
    """
    if state.phase not in (Phase.READING, Phase.DONE):
        return {}
    found: dict[str, Mapping[str, Any]] = {}
    for table in run.tables:
        before = known.get((table, shard.id))
        mark = _backfilled(run, dataset, shard, state, table, before)
        if run.kind is RunKind.BOOTSTRAP:
            mark = _bootstrapped(run, dataset, shard, state, table, before)
        if mark is not None:
            found[mark.key] = mark.document()
    return found


def _bootstrapped(
    run: Run, dataset: Dataset, shard: Shard, state: ShardState, table: str, before: Watermark | None
) -> Watermark:
    whole = run.mode in (BootstrapMode.SNAPSHOT, BootstrapMode.INCREMENTAL) and state.phase is Phase.DONE
    if before is not None and not state.reset:
        # The stream goes on: what was known of an older table still holds.
        complete = before.complete or (state.since if whole else None)
        return replace(before, complete=complete, rows=state.rows.get(table, before.rows) if whole else before.rows)
    complete = state.since if whole else None
    rows = state.rows.get(table) if whole else None
    new = _new(run, dataset, shard, state, table)
    return replace(new, complete=complete, rows=rows, hole=hole(run, dataset.engine, state))


def _new(run: Run, dataset: Dataset, shard: Shard, state: ShardState, table: str) -> Watermark:
    return Watermark(
        dataset=dataset.name,
        table=table,
        shard=shard.id,
        mode=run.mode or dataset.bootstrap,
        run=run.id,
        position=position(dataset.engine, state.start),
        offset=state.start or {},
        since=state.began,
    )


def _backfilled(
    run: Run, dataset: Dataset, shard: Shard, state: ShardState, table: str, before: Watermark | None
) -> Watermark | None:
    if run.kind is not RunKind.BACKFILL or state.phase is not Phase.DONE:
        return None
    mark = replace(before or _new(run, dataset, shard, state, table), backfilled=run.id)
    if run.request.selects(shard.id):
        return mark
    # All rows were read once more: a table that held only changes so far is whole now.
    return replace(mark, complete=mark.complete or state.since, rows=state.rows.get(table, mark.rows))


def hole(run: Run, engine: Engine, state: ShardState) -> Hole | None:
    """What no stream has seen, where a shard was reset and does not stream on from where it stood."""
    if not state.reset or not state.before or run.mode is BootstrapMode.POSITION:
        return None
    since, until = position(engine, state.before), position(engine, state.start)
    return None if since is None or since == until else Hole(since=since, until=until)


def position(engine: Engine, offset: Offset | None) -> str | None:
    """A committed offset as text: a GTID set, `file:pos` or an LSN."""
    if not offset:
        return None
    found = Committed.parse(engine, offset).position
    if found is None and offset.get("file"):
        return f"{offset['file']}:{offset.get('pos')}"
    return found


def shard_done(run: Run, dataset: Dataset, shard: Shard, state: ShardState) -> ShardDone:
    """What is reported of a shard that is over."""
    return ShardDone(
        dataset=dataset.name,
        shard=shard.id,
        mode=run.mode,
        seconds=(state.since - state.began).total_seconds(),
        rows=dict(state.rows),
        start=position(dataset.engine, state.start),
        end=position(dataset.engine, state.end),
        hole=hole(run, dataset.engine, state) if run.kind is RunKind.BOOTSTRAP else None,
        error=state.error if state.phase is Phase.FAILED else None,
    )
