"""What is next for one shard of a snapshot run: a pure function of what is recorded and what is observed.

Level-based: it does not matter which process did the step before, nor how it ended.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cdc_platform.model.observed import ObservedConnector
from cdc_platform.model.positions import Committed, marked_initial
from cdc_platform.model.topology import BootstrapMode, Engine
from cdc_platform.planning.health.failures import first_line
from cdc_platform.snapshots.request import RunKind
from cdc_platform.snapshots.run_records import Phase, ShardState
from cdc_platform.snapshots.shard_progress import UNREADABLE, ShardProgress

# AbstractIncrementalSnapshotChangeEventSource.readChunk, its words and its frames.
_CHUNK_DEATH = re.compile("incremental ?snapshot", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long is waited before something counts as wrong.

    `silent`: without any progress the shard fails. `lost`: a snapshot that is neither in the committed offset nor
    in any notification was lost, such as by a reset of the offsets; it is asked for again, `attempts` times at most.
    `withdrawn`: so much later is one asked for again that had killed its task; twice as long the next time.
    `stalled`: a snapshot whose window does not close is begun again where it is; twice as long the next time.
    (On Postgres a heartbeat that is younger than an open transaction of the server closes none, docs/decisions/0121;
    a binlog client that had to reconnect has read the last GTID, and then waits for the server's next one, which on
    an idle server may be days away: tried, MariaDB, Debezium 3.5.0.)
    """

    silent: timedelta = timedelta(minutes=30)
    stalled: timedelta = timedelta(seconds=25)
    lost: timedelta = timedelta(minutes=3)
    withdrawn: timedelta = timedelta(seconds=30)
    attempts: int = 5

    def until_lost(self, state: ShardState) -> timedelta:
        """How long a snapshot may be neither in the offset nor heard of."""
        return self.lost if state.error is None else self.withdrawn * 2 ** max(0, state.tries - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardView:
    """One shard as it is now.

    `offset` is the committed one: None when it was not read, empty when there is none. `tables` are
    Debezium's names of the tables to read. `again` resets the shard in any case.
    `throttled` says why the shard does not read now, `nudges` how often it was begun again without an answer.
    `uncaptured` are tables that the connector's configuration does not name.
    """

    run: str
    shard: str
    engine: Engine
    kind: RunKind
    mode: BootstrapMode | None
    state: ShardState | None
    tables: tuple[str, ...]
    connector: ObservedConnector | None
    offset: Mapping[str, Any] | None
    progress: ShardProgress
    again: bool = False
    throttled: str | None = None
    nudges: int = 0
    uncaptured: tuple[str, ...] = ()

    def signal(self, attempt: int) -> str:
        """The id of one attempt's snapshot."""
        return signal_id(self.run, self.shard, attempt)


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do now, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Reset:
    """Stop the connector, forget or set its offsets, start it in the run's mode."""


@dataclass(frozen=True, slots=True)
class Adopt:
    """The shard streams and has its first offset: note it."""


@dataclass(frozen=True, slots=True)
class Begin:
    """Ask for these tables in one incremental snapshot."""

    attempt: int
    tables: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Take the snapshot out of the offset, that the stream may go on; it is asked for again some time later.

    It has killed its task, and would again: a task reads its first chunk before it streams, so one that stands
    before an ALTER TABLE does not know the columns that it reads (tried, MariaDB, Debezium 3.5.0).
    """

    reason: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """These tables cannot be read: Debezium's name to the reason. The others go on."""

    tables: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Finish:
    """All that can be read is read."""


@dataclass(frozen=True, slots=True)
class Fail:
    """The shard cannot be brought to its end now."""

    reason: str


Step = Wait | Reset | Adopt | Begin | Withdraw | GiveUp | Finish | Fail


def next_step(view: ShardView, now: datetime, timeouts: Timeouts) -> Step:
    """The next step of one shard."""
    state = view.state
    if state is not None and state.phase.over:
        return Wait("it is done" if state.phase is Phase.DONE else "it failed")
    if state is None or state.phase is Phase.RESETTING:
        if view.kind is RunKind.BOOTSTRAP and _needs_reset(view, state):
            return Reset()
        if state is None:
            # An existing stream is taken as it is.
            return _step_of_start(view, now, now, timeouts)
    assert state is not None
    if state.phase is Phase.STARTING:
        return _step_of_start(view, state.since, now, timeouts)
    return _step_of_reading(view, state, now, timeouts)


def _needs_reset(view: ShardView, state: ShardState | None) -> bool:
    if state is not None:
        return True  # a reset that was begun is always brought to its end
    return view.again or view.mode is BootstrapMode.POSITION or view.connector is None or not _suits(view)


def _suits(view: ShardView) -> bool:
    """True when the connector that a pass has made does what the mode asks for, however it began."""
    assert view.connector is not None
    if view.mode is BootstrapMode.INCREMENTAL:
        return True  # it may have read anything before: all rows come in chunks
    made = view.connector.config.get("snapshot.mode")
    wanted = "initial" if view.mode is BootstrapMode.SNAPSHOT else "no_data"
    return made == wanted


def _step_of_start(view: ShardView, since: datetime, now: datetime, timeouts: Timeouts) -> Step:
    waited = now - since
    failure = _failure(view)
    if failure is not None:
        return Fail(failure) if waited > timeouts.silent else Wait(failure)
    if not streams(view.engine, view.offset):
        last = view.progress.last
        if last is not None and last > since:
            waited = now - last  # an initial snapshot goes on
        if waited > timeouts.silent:
            return Fail(f"no position was committed within {_minutes(timeouts.silent)}")
        return Wait("waiting for its first position")
    awaited = view.mode is BootstrapMode.SNAPSHOT and view.state is not None and view.progress.ended is None
    if awaited and unread(view.progress, view.tables):
        silent = now - (view.progress.last or since)
        if silent > timeouts.silent:
            return Fail(f"its snapshot reported nothing for {_minutes(timeouts.silent)}")
        return Wait("its snapshot is under way")
    return Adopt()


def _step_of_reading(view: ShardView, state: ShardState, now: datetime, timeouts: Timeouts) -> Step:
    left = unread(view.progress, view.tables)
    if not left:
        return Finish() if _committed(view) else Wait("its last rows are being committed")
    failure = _failure(view)
    touched = max(at for at in (state.since, view.progress.last) if at is not None)
    waited = now - touched
    if state.attempt > 0 and _killed(view):
        return Withdraw(failure or "")
    if failure is not None:
        return Fail(failure) if waited > timeouts.silent else Wait(failure)
    if state.attempt == 0:
        return _first(view, left, waited > timeouts.silent)
    failed = {
        name: table.status
        for name, table in view.progress.tables.items()
        if name in left and table.status is not None and not table.complete
    }
    unreadable = {
        name: f"it cannot be read in chunks ({status})" for name, status in failed.items() if status in UNREADABLE
    }
    if unreadable:
        return GiveUp(unreadable)
    if view.progress.ended is not None and view.progress.attempt == view.signal(state.attempt):
        if view.progress.aborted:
            return Fail("its snapshot was stopped by hand")
        text = ", ".join(f"{name} ({status})" for name, status in sorted(failed.items())) or "without a word"
        why = f"its snapshot ended early: {text}"
        if failed and waited < timeouts.stalled * (state.tries - 1):
            return Wait(why)  # each attempt takes the lock, which passes need, too
        return _again(state, left, timeouts, why)
    if view.offset is not None and not _runs(view, state.attempt) and waited > timeouts.until_lost(state):
        return _again(state, left, timeouts, state.error or "its snapshot was lost")
    if view.progress.paused is not None or view.throttled is not None:
        return Wait(view.throttled or "paused")
    unheard = now - (view.progress.last or state.began)
    if waited > timeouts.silent or (view.nudges and unheard > timeouts.silent):
        return Fail(f"no progress for {_minutes(timeouts.silent)}")
    if state.error is not None:
        return Wait(state.error)  # it was taken out of the offset: there is nothing to go on with before
    if waited > timeouts.stalled * 2**view.nudges:
        return Begin(state.attempt, left)
    return Wait("reading")


def _first(view: ShardView, left: tuple[str, ...], late: bool) -> Step:
    if view.offset is None or not streams(view.engine, view.offset):
        return Fail("it streams nothing") if late else Wait("waiting for its stream")
    other = running_signal(view.offset)
    if other is not None and other != view.signal(1):
        return Fail(f"another incremental snapshot runs: {other}") if late else Wait(f"waiting for {other} to end")
    if view.throttled is not None:
        return Wait(view.throttled)
    return Begin(1, left)


def _again(state: ShardState, left: tuple[str, ...], timeouts: Timeouts, why: str) -> Step:
    """Ask for what is left: together twice, then one by one, that a table which cannot be read keeps no other."""
    again = state.attempt + 1
    if len(state.asked) == 1 and state.asked[0] in left:
        # With a second one that fails, it is hardly the table.
        if state.tries < (2 if state.unread else timeouts.attempts):
            return Begin(again, state.asked)
        return GiveUp({state.asked[0]: f"{why}, {state.tries} times"})
    together = len(state.asked) != 1 and (state.tries < 2 or state.asked != left)
    return Begin(again, left if together else left[:1])


def unread(progress: ShardProgress, tables: Sequence[str]) -> tuple[str, ...]:
    """The tables of which it is not known that they were read to their end."""
    return tuple(name for name in tables if name not in progress.tables or not progress.tables[name].complete)


def _runs(view: ShardView, attempt: int) -> bool:
    """True while the committed offset says that this snapshot is being worked off."""
    return running_signal(view.offset or {}) == view.signal(attempt)


def _committed(view: ShardView) -> bool:
    """True when Connect has committed an offset from after our snapshot: all of its rows are in Kafka."""
    if view.offset is None:
        return False
    return not str(running_signal(view.offset) or "").startswith(view.signal(0)[:-1])


def _killed(view: ShardView) -> bool:
    """True when the task has died of reading a chunk, and was not started since."""
    tasks = view.connector.tasks if view.connector is not None else ()
    return any(task.state == "FAILED" and _CHUNK_DEATH.search(task.trace or "") for task in tasks)


def _failure(view: ShardView) -> str | None:
    connector = view.connector
    if connector is None:
        return "it has no connector"
    if connector.running and view.uncaptured:
        return f"its connector does not capture {', '.join(view.uncaptured)}"
    if connector.running:
        return None
    trace = next((task.trace for task in connector.tasks if task.trace), connector.trace)
    if trace:
        return f"its task failed: {first_line(trace)}"
    if connector.state == "RUNNING":
        return "it has no task"
    return f"its connector is {connector.state}, {len(connector.tasks)} tasks"


def streams(engine: Engine, offset: Mapping[str, Any] | None) -> bool:
    """True when the committed offset is a position in the source's log and no initial snapshot is under way."""
    if not offset or marked_initial(offset):
        return False
    return Committed.parse(engine, offset).position is not None or ("file" in offset and engine is Engine.MYSQL)


def running_signal(offset: Mapping[str, Any]) -> str | None:
    """The id of the incremental snapshot that a committed offset says is under way."""
    if not offset.get("incremental_snapshot_collections"):
        return None
    return str(offset.get("incremental_snapshot_correlation_id") or "one without a name")


def signal_id(run: str, shard: str, attempt: int) -> str:
    """`<run>/<dataset>.<shard>#<attempt>`: the same in every process that sends it."""
    return f"{run}/{shard}#{attempt}"


def stream_offset(offset: Mapping[str, Any]) -> dict[str, Any]:
    """A committed offset without what only concerns snapshots and open transactions."""
    kept = ("file", "pos", "gtids", "server_id", "ts_sec", "lsn", "lsn_proc", "lsn_commit", "txId", "ts_usec")
    return {name: offset[name] for name in kept if name in offset}


def _minutes(span: timedelta) -> str:
    return f"{span.total_seconds() / 60:.0f} min"
