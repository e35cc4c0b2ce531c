"""The life of a snapshot run: create or join, pause, resume, stop, finish.

All of it is on record, and done under the lock where two processes could meet.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from cdc_platform.errors import BadInput, require_extra
from cdc_platform.model.naming import some_of
from cdc_platform.model.topology import BootstrapMode, Dataset, Topology
from cdc_platform.snapshots.ports import SnapshotPorts
from cdc_platform.snapshots.progress_events import duration
from cdc_platform.snapshots.request import Request, RunKind, bad_request, choose_shards
from cdc_platform.snapshots.run_records import (
    ASIDE,
    RUN,
    SIGN_SECONDS,
    Phase,
    Records,
    Run,
    last_worked_on,
    runs,
    shard_states,
    watermarks,
)

# An order to a run is at `backfill/<run>/!order`.
ORDER = f"{ASIDE}order"
KEPT = timedelta(days=30)
_LOCK_SECONDS = 300.0
# Most shards that one slice works on, and most slices of a run.
SLICE = 250
MOST_SLICES = 16


class RequestedState(StrEnum):
    """What the operator wants a snapshot run to do."""

    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"


def open_run(ports: SnapshotPorts, request: Request, run_id: str) -> Run:
    """Begin a run, or join the one that does this already.

    A run of the same id, or an unfinished one that asks for the same rows, is joined: launched twice, the
    work is done once.

    Args:
        ports: the outside systems.
        request: what to do; checked here, before anything is written.
        run_id: names a new run, such as Dagster's id of the run.

    Raises:
        BadInput, ExtraMissing, TopologyError: nothing was changed.
        LockHeld, ZooKeeperUnavailable, KafkaUnavailable.
    """
    if request.load.max_bytes_per_s is not None:
        require_extra("quotas")
    platform = ports.platform
    with platform.topology.lock(owner=f"{request.kind} {run_id}", timeout=_LOCK_SECONDS) as lock:
        topology = platform.topology.load()
        records = platform.state.read()
        known = runs(records)
        for found in known.values():
            same = found.finished is None and found.request.fingerprint == request.fingerprint
            if found.id == run_id or same:
                return found
        free_text = platform.settings.permit_sql_conditions
        run = plan_run(topology, records, request, run_id, free_text=free_text)
        lock.check()
        platform.state.claim(lock.generation)
        old: dict[str, Mapping[str, Any] | None] = dict.fromkeys(_outdated(records, known, run.created))
        platform.state.write({**old, run.key: run.document()})
        return run


def plan_run(topology: Topology, records: Records, request: Request, run_id: str, *, free_text: bool = False) -> Run:
    """The run that a request asks for. Pure but for the time.

    Args:
        free_text: the request's condition may be any SQL.

    Raises:
        BadInput, TopologyError: it cannot be done as asked.
    """
    dataset = topology.dataset(request.dataset)
    request.filter(dataset.engine, "", free_text=free_text)
    tables = request.tables_of(dataset)
    mode = request.mode_for(dataset) if request.kind is RunKind.BOOTSTRAP else None
    if mode is BootstrapMode.POSITION and not request.positions:
        raise bad_request(
            "positions",
            f"dataset {dataset.name} is bootstrapped at positions.",
            "Give SHARD=POSITION for each shard, or another mode.",
        )
    if mode not in (None, BootstrapMode.INCREMENTAL) and len(tables) < len(dataset.tables):
        raise bad_request(
            "tables",
            f"dataset {dataset.name} is bootstrapped by {mode}, which is for all tables of a shard.",
            "Leave them out, or set mode to incremental.",
        )
    if "/" in run_id or not run_id:
        raise bad_request("run", f"{run_id!r} is no name for a run.", "Leave out slashes.")
    off = {problem.name for problem in topology.problems}
    shards = [shard for shard in topology.shards.get(dataset.name, ()) if shard.name not in off]
    marked = watermarks(records, dataset.name)
    done = {shard.id for shard in shards if all((table.name, shard.id) in marked for table in tables)}
    chosen = choose_shards(request, shards, bootstrapped=done, failed=_failed(records, request.failed_of))
    if mode in (BootstrapMode.LATEST, BootstrapMode.SNAPSHOT) and not request.again:
        _refuse_new_tables(dataset, chosen, marked, mode)
    for other in runs(records).values():
        both = sorted(set(other.shards) & set(chosen)) if other.finished is None else []
        if both and other.dataset == dataset.name:
            names = some_of([f"{dataset.name}.{shard}" for shard in both], 1)
            raise bad_request(
                "shards",
                f"the unfinished run {other.id} has {names} until it is finished or stopped; "
                f"{_worked(records, other)}.",
                f"Go on with it (`cdc-platform {other.kind} --continue {other.id}`, which also takes it over from a "
                f"process that was killed), or end it (`cdc-platform snapshot stop {other.id}`).",
            )
    return Run(
        id=run_id,
        request=replace(request, load=request.load.within(dataset.limits.snapshot_rows_per_second)),
        mode=mode,
        tables=tuple(table.name for table in tables),
        shards=chosen,
        created=datetime.now(UTC),
    )


def _refuse_new_tables(
    dataset: Dataset, shards: Collection[str], marked: Container[tuple[str, str]], mode: BootstrapMode
) -> None:
    """Refuse them: at which position a stream that goes on takes up one more table cannot be known exactly."""
    for shard in shards:
        new = [table.name for table in dataset.tables if (table.name, shard) not in marked]
        if len(new) < len(dataset.tables):
            raise bad_request(
                "mode",
                f"shard {dataset.name}.{shard} streams already, and {new[0]} is new to it: not possible by {mode}.",
                f"Use mode incremental for the table ({' '.join(f'--table {name}' for name in new)}).",
            )


def _worked(records: Records, run: Run) -> str:
    at = last_worked_on(records, run.id)
    if at is None:
        return "no process has begun to work on it"
    silent = (datetime.now(UTC) - at).total_seconds()
    if silent < 3 * SIGN_SECONDS:
        return "a process works on it now"
    return f"no process has worked on it for {duration(silent)}"


def slices(run: Run) -> tuple[tuple[str, ...], ...]:
    """The run's shards in parts for processes side by side; the same cut each time."""
    count = min(MOST_SLICES, -(-len(run.shards) // SLICE))
    size = -(-len(run.shards) // count)
    return tuple(run.shards[at : at + size] for at in range(0, len(run.shards), size))


def on_record(records: Records, run_id: str) -> Run:
    """A run on record, finished or not. Raises BadInput for one that is not."""
    found = runs(records).get(run_id)
    if found is None:
        raise _refused(records, run_id, "no run")
    return found


def unfinished(records: Records, run_id: str) -> Run:
    """A run on record. Raises BadInput for one that is not, or is finished."""
    found = on_record(records, run_id)
    if found.finished is not None:
        raise _refused(records, run_id, "finished")
    return found


def _refused(records: Records, run_id: str, what: str) -> BadInput:
    open_runs = sorted(run.id for run in runs(records).values() if run.finished is None)
    return bad_request("run", f"{run_id!r} is {what}.", f"Unfinished are: {', '.join(open_runs) or 'none'}.")


def order(ports: SnapshotPorts, run_id: str, requested: RequestedState) -> Run:
    """Pause, resume or stop a snapshot run; its workers follow within seconds. Raises BadInput."""
    run = unfinished(ports.platform.state.read(), run_id)
    state = ports.writer(f"order-{run_id}")
    state.write({run.shard_key(ORDER): {"wanted": str(requested), "at": datetime.now(UTC).isoformat()}})
    return run


def requested_state(records: Records, run: Run) -> RequestedState:
    """What the operator wants the snapshot run to do."""
    document = records.get(run.shard_key(ORDER))
    return RequestedState(document["wanted"]) if document else RequestedState.RUNNING


def finish(ports: SnapshotPorts, run: Run) -> Run:
    """Close a run whose shards are all over; no change while one is not.

    What was done is in the watermarks; of the shards only the failed ones stay on record.
    """
    records = ports.platform.state.read()
    states = shard_states(records, run.id)
    if any(shard not in states or not states[shard].phase.over for shard in run.shards):
        return run
    failed = [shard for shard in run.shards if states[shard].phase is Phase.FAILED]
    closed = replace(run, finished=datetime.now(UTC), failed=len(failed))
    kept = {run.key, *(run.shard_key(shard) for shard in failed)}
    gone: dict[str, Mapping[str, Any] | None] = {
        key: None for key in records if key.startswith(f"{run.key}/") and key not in kept
    }
    ports.writer(f"finish-{run.id}").write({**gone, run.key: closed.document()})
    return closed


def _failed(records: Records, run_id: str | None) -> frozenset[str] | None:
    if run_id is None:
        return None
    found = runs(records).get(run_id)
    if found is None:
        return None
    states = shard_states(records, found.id)
    return frozenset(shard for shard, state in states.items() if state.phase is Phase.FAILED)


def _outdated(records: Records, known: Mapping[str, Run], now: datetime) -> list[str]:
    """Keys of runs that ended long ago."""
    old = {run.id for run in known.values() if run.finished is not None and now - run.finished > KEPT}
    return [key for key in records if key.startswith(RUN) and key.removeprefix(RUN).partition("/")[0] in old]
