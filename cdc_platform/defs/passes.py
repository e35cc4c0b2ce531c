"""Which passes are under way, and which runs only look so.

Busy means that the ZooKeeper lock is held. A run that Dagster shows as started, but
that neither holds the lock nor says anything, died without telling (kill -9, a lost
host): it is failed, so that it blocks neither the queue nor the next passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import time

import dagster as dg

from cdc_platform.defs.translator import TAG_PLATFORM

UNFINISHED = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)

# A run speaks when it boots, when it takes the lock and for each event it writes; without the
# lock it is never silent for long. Longer than the Kafka deadline between lock and events.
SILENT_FOR = 45.0
# Until its process speaks for the first time a run may wait for a container or a pod.
STARTING_FOR = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PassRun:
    """An unfinished run of the job. `silent` is the seconds since its newest event."""

    run_id: str
    status: dg.DagsterRunStatus
    silent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What is under way: `busy` says why no pass can start now; `dead` names runs to be failed, and why."""

    busy: str | None
    dead: tuple[tuple[str, str], ...] = ()


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
    for run in runs:
        if run.run_id == holder:
            continue
        if run.status is dg.DagsterRunStatus.QUEUED:
            busy = busy or f"Run {run.run_id} is queued."
            continue
        started = run.status in (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)
        if run.silent <= (silent_for if started else starting_for):
            busy = busy or f"Run {run.run_id} is {run.status.value}."
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
    return Traffic(busy=busy, dead=tuple(dead))


def unfinished_passes(
    instance: dg.DagsterInstance, *, job_name: str, platform: str, now: float | None = None
) -> tuple[PassRun, ...]:
    """The runs of the job that Dagster thinks are not finished."""
    now = time() if now is None else now
    records = instance.get_run_records(
        dg.RunsFilter(job_name=job_name, statuses=list(UNFINISHED), tags={TAG_PLATFORM: platform})
    )
    found = []
    for record in records:
        run = record.dagster_run
        newest = instance.get_records_for_run(run.run_id, limit=1, ascending=False).records
        spoke = max(record.update_timestamp.timestamp(), *(event.timestamp for event in newest), 0.0)
        found.append(PassRun(run_id=run.run_id, status=run.status, silent=now - spoke))
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
