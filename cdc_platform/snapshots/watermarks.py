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
    """The watermarks to write as a shard enters a phase: READING, DONE, FAILED after its rows were counted.

    Args:
        run: the run.
        dataset: its dataset.
        shard: the shard.
        state: its new state.
        known: watermarks that were known when the run began, by (table, shard id).
    """
    if state.phase not in (Phase.READING, Phase.DONE) and not state.counts:
        return {}
    found: dict[str, Mapping[str, Any]] = {}
    for table in run.tables:
        if table in shard.left_out:
            continue  # of which nothing came
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
    if before is not None and not state.reset:
        # The stream goes on: what was known of an older table still holds.
        return _counted(before, state, table)
    new = _new(run, dataset, shard, state, table)
    return _counted(replace(new, hole=hole(run, dataset.engine, state)), state, table)


def _counted(mark: Watermark, state: ShardState, table: str) -> Watermark:
    """The watermark with what was counted of the table: whole only when no row was missing."""
    count = state.counts.get(table)
    if count is None:
        return mark
    complete = mark.complete or (state.since if count.whole else None)
    return replace(mark, complete=complete, rows=count.read, count=count)


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
    count = state.counts.get(table)
    if run.kind is not RunKind.BACKFILL or count is None:
        return None
    mark = before or _new(run, dataset, shard, state, table)
    if count.whole:
        mark = replace(mark, backfilled=run.id)
    # Where all rows were read once more, a table that held only changes so far is whole now.
    return mark if run.request.selects(shard.id) else _counted(mark, state, table)


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
