"""Which passes are under way, and which runs only look so.

Busy means that the ZooKeeper lock is held. A run that Dagster shows as started, but
that neither holds the lock nor logs anything, died silently (kill -9, a lost
host): it is failed, so that it blocks neither the queue nor the next passes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic, sleep, time

import dagster as dg

from cdc_platform.defs.run_kinds import TAG_KIND, RunOf
from cdc_platform.defs.translator import TAG_PLATFORM

UNFINISHED = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)

# On a run while it holds the lock, and what it says afterwards.
TAG_LOCK = "cdc/lock"
GIVEN_BACK = "given back"

# A run that says that it holds the lock, and does not, is ending or dead: which it is shows within a moment.
ENDING_FOR = 10.0
# Without the lock a run boots, waits for the lock (20 s) or writes events, one each 15 ms.
SILENT_FOR = 35.0
# Until its process speaks for the first time a run may wait for a container or a pod.
STARTING_FOR = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PassRun:
    """An unfinished run of the job. `silent` is the seconds since its newest event.

    `held`: it said that it has the lock, and not yet that it gave it back.
    """

    run_id: str
    status: dg.DagsterRunStatus
    silent: float
    held: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What is under way: `busy` says why no pass can start now; `dead` names runs to be failed, and why.

    `again`: after so many seconds it may show that what keeps us busy is dead; None: it cannot.
    `silent`: how long that has said nothing.
    """

    busy: str | None
    dead: tuple[tuple[str, str], ...] = ()
    again: float | None = None
    silent: float = 0.0


def judge(
    runs: Sequence[PassRun],
    *,
    holder: str | None,
    silent_for: float = SILENT_FOR,
    starting_for: float = STARTING_FOR,
) -> Traffic:
    """Tell the living from the dead. `holder` is who holds the lock now."""
    busy: str | None = None
    dead: list[tuple[str, str]] = []
    again: list[tuple[float, float]] = []
    for run in runs:
        if run.run_id == holder:
            # The lock of a dead one is free within 15 s.
            again.append((1.0, run.silent))
            continue
        if run.status is dg.DagsterRunStatus.QUEUED:
            busy = busy or f"Run {run.run_id} is queued."
            continue
        started = run.status in (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)
        limit = (ENDING_FOR if run.held else silent_for) if started else starting_for
        if run.silent <= limit:
            busy = busy or f"Run {run.run_id} is {run.status.value}."
            if started:
                again.append((limit - run.silent + 0.1, run.silent))
        else:
            dead.append(
                (
                    run.run_id,
                    f"Run {run.run_id} was {run.status.value}, silent for {run.silent:.0f} s and did not "
                    "hold the lock of the control plane: its process died. The next pass goes on.",
                )
            )
    if holder is not None:
        busy = f"A pass is under way: {holder} holds the lock."
    soonest, silent = min(again, default=(None, 0.0))
    return Traffic(busy=busy, dead=tuple(dead), again=soonest, silent=silent)


def wait_for_the_dead(look: Callable[[], Traffic], *, longest: float) -> Traffic:
    """The traffic, looked at again while a run may turn out to be dead within `longest` seconds.

    Otherwise its successor would wait for the next tick, a minute later. A run that speaks lives.
    """
    end = monotonic() + longest
    before = 0.0
    while True:
        found = look()
        if found.again is None or found.silent < before or monotonic() + found.again > end:
            return found
        before = found.silent
        sleep(min(found.again, 1.0))


def unfinished_passes(
    instance: dg.DagsterInstance, *, kind: RunOf, platform: str, now: float | None = None
) -> tuple[PassRun, ...]:
    """The runs of this kind that Dagster thinks are not finished."""
    now = time() if now is None else now
    records = instance.get_run_records(
        dg.RunsFilter(statuses=list(UNFINISHED), tags={TAG_PLATFORM: platform, TAG_KIND: kind.value})
    )
    found = []
    for record in records:
        run = record.dagster_run
        newest = instance.get_records_for_run(run.run_id, limit=1, ascending=False).records
        spoke = max(record.update_timestamp.timestamp(), *(event.timestamp for event in newest), 0.0)
        held = run.tags.get(TAG_LOCK, GIVEN_BACK) != GIVEN_BACK
        found.append(PassRun(run_id=run.run_id, status=run.status, silent=now - spoke, held=held))
    return tuple(found)


def fail_dead(instance: dg.DagsterInstance, dead: Sequence[tuple[str, str]]) -> None:
    """Finish the runs that died, with the reason in their event log."""
    for run_id, reason in dead:
        run = instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            continue
        if run.status is dg.DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run, message=reason)
        else:
            instance.report_run_failed(run, message=reason)
