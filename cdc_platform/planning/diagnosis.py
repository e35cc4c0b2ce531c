"""How each connector is: by Connect's word, by heartbeats, and by what sources and agents say. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from cdc_platform.model.agent_report import AgentReport, reports_by_worker
from cdc_platform.model.observed import ObservedConnector, ObservedState
from cdc_platform.model.topology import Cluster, Dataset, Shard
from cdc_platform.planning.drift import failure_of
from cdc_platform.planning.health.failures import LOGIN, Failure, classify, first_line
from cdc_platform.planning.health.liveness import LeaderRecord, Liveness, LiveRecord, judge, moving, silence_limit
from cdc_platform.planning.health.restarts import Failing, RestartRecord
from cdc_platform.planning.inputs import PlanInputs

# What an agent reported, by Connect's worker id.
Reports = Mapping[str, AgentReport]


@dataclass(frozen=True, slots=True)
class ConnectorView:
    """A shard with the connector that it has in its home cluster."""

    dataset: Dataset
    shard: Shard
    cluster: Cluster
    connector: ObservedConnector
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Each connector's state by name.

    `failing`: what is down, with its cause in a line. `healthy`: what runs and
    beats, with its source host. `moving`: left to the agent until then. `unwell`: why
    what Connect calls RUNNING is not.
    """

    failing: Mapping[str, tuple[Failing, str]]
    unwell: Mapping[str, str]
    healthy: Mapping[str, str]
    moving: Mapping[str, datetime]
    liveness: Liveness


def diagnose(inputs: PlanInputs, views: Sequence[ConnectorView]) -> Diagnosis:
    """Separate the healthy from the failing, by Connect's word and by heartbeats."""
    observed, memory, policy = inputs.observed, inputs.memory, inputs.policy.liveness
    now = observed.taken_at
    live, leaders, restarts = memory.of(LiveRecord), memory.of(LeaderRecord), memory.of(RestartRecord)
    refused = {name for name, record in restarts.items() if record.failure in LOGIN}
    limits = {dataset.name: silence_limit(dataset, policy) for dataset in observed.topology.datasets.values()}
    running = {view.name: limits[view.dataset.name] for view in views if view.connector.running}
    snapshotting = frozenset[str]().union(*(worker.snapshotting for worker in observed.workers.values()))
    liveness = judge(running, observed.heartbeats, live, now, snapshotting)
    reports = None if observed.agents is None else reports_by_worker(observed.agents)
    failing: dict[str, tuple[Failing, str]] = {}
    healthy: dict[str, str] = {}
    blocked: dict[str, datetime] = {}
    unwell: dict[str, str] = {}
    for view in views:
        name, host = view.name, str(view.shard.leader)
        failed = failure_of(view.connector)
        if failed is not None:
            worker, trace = failed
            failure, cause = classify(trace), first_line(trace)
        elif (silent := _unwell(view, liveness, observed.logins, name in refused)) is not None:
            worker = view.connector.tasks[0].worker if view.connector.tasks else view.connector.worker
            failure, cause = silent
            unwell[name] = cause
        else:
            excused = (name not in live or liveness.problem) and name not in refused
            if view.connector.running and (name in liveness.alive or excused):
                healthy[name] = host
            continue
        if _is_blocked(worker, name, reports):
            # Its agent goes on as soon as the leader is fit; a restart by us would skip that check.
            blocked[name] = now + policy.leader_move
            continue
        until = moving(view.shard, leaders.get(name), now, policy)
        if until is not None and _left_to_agent(observed, view, worker, reports):
            blocked[name] = until
        else:
            failing[name] = (Failing(name=name, failure=failure, host=host, worker=worker), cause)
    return Diagnosis(failing=failing, healthy=healthy, unwell=unwell, moving=blocked, liveness=liveness)


def _unwell(
    view: ConnectorView, liveness: Liveness, logins: Mapping[str, str | None], refused: bool
) -> tuple[Failure, str] | None:
    """What ails a connector that Connect calls RUNNING, with the cause in a line; None when nothing is known.

    `refused`: its source refused its login when it was restarted last.
    """
    if view.connector.state != "RUNNING":
        return None
    if not view.connector.tasks:
        return Failure.STUCK, "Connect says RUNNING, but it has no task"
    refusal = logins.get(view.name)
    if refusal is not None and classify(refusal) is Failure.AUTHENTICATION:
        return Failure.AUTHENTICATION, f"Connect says RUNNING, but {refusal}"
    if view.name in logins and refusal is None and refused:
        # Also where the whole fleet is silent, for which no connector is restarted otherwise.
        return Failure.STALE_LOGIN, "Connect says RUNNING, but its source refused its login; the one of now is accepted"
    if view.name in liveness.silent:
        return (
            Failure.STUCK,
            f"Connect says RUNNING, but there has been no heartbeat for more than {liveness.silent[view.name]:.0f} s",
        )
    return None


def _left_to_agent(observed: ObservedState, view: ConnectorView, worker: str, reports: Reports | None) -> bool:
    """True while the live agent beside the task's worker has not finished with the shard's new leader."""
    if reports is None:
        return True
    report = reports.get(worker)
    return report is not None and (view.name in report.moving or not report.has_written(observed.topology, view.shard))


def _is_blocked(worker: str, name: str, reports: Reports | None) -> bool:
    """True while the agent beside the task's worker holds its restart back: the new leader is not fit yet."""
    report = (reports or {}).get(worker)
    return report is not None and name in report.blocked
