"""How each connector is, and what is done about those that are not well."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from cdc_platform.model.agent_report import AgentReport, reports_by_worker
from cdc_platform.model.naming import some_of
from cdc_platform.model.observed import ObservedConnector, ObservedState
from cdc_platform.model.topology import EMPTY, Cluster, Dataset, Shard
from cdc_platform.planning.actions import Action, RestartConnector, StopAndResumeConnector
from cdc_platform.planning.drift import trouble_of
from cdc_platform.planning.health import duplicate_tasks as zombies
from cdc_platform.planning.health import restarts
from cdc_platform.planning.health import task_balance as balance
from cdc_platform.planning.health.failures import LOGIN, Failure, classify, first_line
from cdc_platform.planning.health.incidents import Incident, incidents_of
from cdc_platform.planning.health.liveness import (
    NO_LIVENESS,
    LeaderRecord,
    Liveness,
    judge,
    leader_changes,
    moving,
    silence_limit,
)
from cdc_platform.planning.health.restarts import Failing, RestartDecision, RestartRecord, Waiting
from cdc_platform.planning.inputs import Memory, PassPolicy
from cdc_platform.planning.plan import Finding

# Names shown of a list.
_NAMED = 5


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

    failing: Mapping[str, tuple[Failing, str]] = EMPTY
    unwell: Mapping[str, str] = EMPTY
    healthy: Mapping[str, str] = EMPTY
    moving: Mapping[str, datetime] = EMPTY
    leaders: Mapping[str, LeaderRecord | None] = EMPTY
    liveness: Liveness = NO_LIVENESS


@dataclass(frozen=True, slots=True, kw_only=True)
class Treatment:
    """What is done, what waits and why, and what to remember."""

    actions: Sequence[Action] = ()
    findings: Sequence[Finding] = ()
    restarts: RestartDecision = field(
        default_factory=lambda: RestartDecision(restart=(), waiting={}, records={}, crash_looping=frozenset())
    )
    waiting: Mapping[str, Waiting] = EMPTY
    zombies: Mapping[str, zombies.ZombieRecord | None] = EMPTY
    skews: Mapping[str, balance.SkewRecord | None] = EMPTY
    incidents: Mapping[str, Incident] = EMPTY


def diagnose(picture: ObservedState, seen: Sequence[ConnectorView], memory: Memory, policy: PassPolicy) -> Diagnosis:
    """Tell the healthy from the failing, by Connect's word and by heartbeats."""
    now = picture.taken_at
    limits = {dataset.name: silence_limit(dataset, policy.liveness) for dataset in picture.topology.datasets.values()}
    running = {s.name: limits[s.dataset.name] for s in seen if s.connector.running}
    snapshotting = frozenset[str]().union(*(worker.snapshotting for worker in picture.workers.values()))
    liveness = judge(running, picture.heartbeats, memory.live, now, snapshotting)
    agents = None if picture.agents is None else reports_by_worker(picture.agents)
    failing: dict[str, tuple[Failing, str]] = {}
    healthy: dict[str, str] = {}
    held: dict[str, datetime] = {}
    unwell: dict[str, str] = {}
    for s in seen:
        name, host = s.name, str(s.shard.leader)
        incident = trouble_of(s.connector)
        if incident is not None:
            worker, trace = incident
            failure, cause = classify(trace), first_line(trace)
        elif (ill := _unwell(s, liveness, picture.logins, memory)) is not None:
            worker = s.connector.tasks[0].worker if s.connector.tasks else s.connector.worker
            failure, cause = ill
            unwell[name] = cause
        else:
            excused = (name not in memory.live or liveness.problem) and not _was_refused(name, memory)
            if s.connector.running and (name in liveness.alive or excused):
                healthy[name] = host
            continue
        if _is_held(worker, name, agents):
            # Its agent goes on as soon as the leader is fit; a restart by us would skip that check.
            held[name] = now + policy.liveness.leader_move
            continue
        until = moving(s.shard, memory.leaders.get(name), now, policy.liveness)
        if until is not None and _left_to_agent(picture, s, worker, agents):
            held[name] = until
        else:
            failing[name] = (Failing(name=name, failure=failure, host=host, worker=worker), cause)
    shards = {shard.name: shard for _, shard in picture.topology.all_shards()}
    return Diagnosis(
        failing=failing,
        healthy=healthy,
        unwell=unwell,
        moving=held,
        leaders=leader_changes(shards, memory.leaders, now) if _whole(picture) else {},
        liveness=liveness,
    )


def _unwell(
    s: ConnectorView, liveness: Liveness, logins: Mapping[str, str | None], memory: Memory
) -> tuple[Failure, str] | None:
    """What ails a connector that Connect calls RUNNING, with the cause in a line; None when nothing is known."""
    if s.connector.state != "RUNNING":
        return None
    if not s.connector.tasks:
        return Failure.STUCK, "Connect says RUNNING, but it has no task"
    refusal = logins.get(s.name)
    if refusal is not None and classify(refusal) is Failure.AUTHENTICATION:
        return Failure.AUTHENTICATION, f"Connect says RUNNING, but {refusal}"
    if s.name in logins and refusal is None and _was_refused(s.name, memory):
        # Also where the whole fleet is silent, for which nobody is restarted else.
        return Failure.STALE_LOGIN, "Connect says RUNNING, but its source refused its login; the one of now is accepted"
    if s.name in liveness.silent:
        return Failure.STUCK, f"Connect says RUNNING, but there was no heartbeat for {liveness.silent[s.name]:.0f} s"
    return None


def _was_refused(name: str, memory: Memory) -> bool:
    known = memory.restarts.get(name)
    return known is not None and known.failure in LOGIN


def treat(
    picture: ObservedState,
    seen: Sequence[ConnectorView],
    diagnosis: Diagnosis,
    busy: Collection[str],
    busy_clusters: Collection[str],
    memory: Memory,
    policy: PassPolicy,
) -> Treatment:
    """Restart what fails, stop and resume what runs twice or unevenly, within all bounds.

    Args:
        busy: connectors that the plan changes anyway.
        busy_clusters: clusters whose group the plan sets in motion anyway.
    """
    now = picture.taken_at
    failing = {name: item for name, item in diagnosis.failing.items() if name not in busy}
    decision = restarts.decide(
        [item for item, _ in failing.values()], diagnosis.healthy, memory.restarts, now, policy.restarts
    )
    records = _pruned(picture, memory.restarts, decision)
    homes = {s.name: s.cluster.name for s in seen}
    actions: list[Action] = [
        RestartConnector(
            cluster=homes[item.name],
            name=item.name,
            failure=item.failure,
            attempt=record.attempts if (record := decision.records[item.name]) else 1,
            cause=failing[item.name][1],
            unwell=item.name in diagnosis.unwell,
        )
        for item in decision.restart
    ]
    now_there = _incidents(picture, diagnosis, memory, decision, records)
    findings = [Finding(subject=t.place, text=f"{t.sentence()}. {t.advice}") for t in now_there.values()]
    findings += _without_agent(picture)
    findings += _told_by_agents(picture)
    findings += _unproven(seen, diagnosis, memory, picture, policy)
    if diagnosis.liveness.problem and memory.live:
        text = f"{diagnosis.liveness.problem}: who is stuck is not judged by heartbeats in this pass"
        findings.append(Finding(subject="heartbeats", text=text))
    cures = _zombies(picture, seen, busy, memory, policy)
    findings += [Finding(subject=name, text=text) for name, text in cures.findings.items()]
    actions += [
        StopAndResumeConnector(cluster=homes[name], name=name, reason=why) for name, why in cures.bounce.items()
    ]
    busy_clusters = {*busy_clusters, *(homes[name] for name in cures.bounce)}
    skews = _skews(picture, _movable(picture, seen, diagnosis, busy, busy_clusters), memory, policy)
    for cluster, decision_there in skews.items():
        if decision_there.finding:
            findings.append(Finding(subject=f"cluster {cluster}", text=decision_there.finding))
        reason = f"to spread the tasks: {decision_there.finding}"
        actions += [StopAndResumeConnector(cluster=cluster, name=name, reason=reason) for name in decision_there.bounce]
    moved = {
        name: Waiting(until, f"its agent moves it to the new leader until {until:%H:%M:%S}Z")
        for name, until in diagnosis.moving.items()
    }
    return Treatment(
        actions=actions,
        findings=findings,
        restarts=replace(decision, records=records),
        waiting={**decision.waiting, **moved},
        zombies=cures.records,
        skews={cluster: found.record for cluster, found in skews.items() if found.changed},
        incidents=now_there,
    )


def _pruned(
    picture: ObservedState, known: Mapping[str, RestartRecord], decision: RestartDecision
) -> Mapping[str, RestartRecord | None]:
    """The changed records; those of shards that left the topology are forgotten."""
    if not _whole(picture):
        return decision.records
    shards = {shard.name for _, shard in picture.topology.all_shards()}
    return {**decision.records, **{name: None for name in known if name not in shards}}


def _incidents(
    picture: ObservedState,
    diagnosis: Diagnosis,
    memory: Memory,
    decision: RestartDecision,
    changed: Mapping[str, RestartRecord | None],
) -> dict[str, Incident]:
    records = {name: r for name, r in {**memory.restarts, **changed}.items() if r is not None}
    hosts = {shard.name: str(shard.leader) for _, shard in picture.topology.all_shards()}
    return incidents_of(diagnosis.failing, records, hosts, memory.incidents, decision.crash_looping, picture.taken_at)


def _unproven(
    seen: Sequence[ConnectorView], diagnosis: Diagnosis, memory: Memory, picture: ObservedState, policy: PassPolicy
) -> list[Finding]:
    """Connectors that run, by Connect's word, and never sent a heartbeat."""
    if diagnosis.liveness.problem:
        return []
    by_dataset: dict[str, list[str]] = defaultdict(list)
    for s in seen:
        name, since = s.name, memory.captured.get(s.name)
        if name in memory.live or name in diagnosis.liveness.alive or not s.connector.running or since is None:
            continue
        if picture.taken_at - since.since > policy.liveness.first_beat:
            by_dataset[s.dataset.name].append(name)
    return [
        Finding(
            subject=dataset,
            text=f"{len(names)} connectors run but have never sent a heartbeat ({some_of(names, _NAMED)}): "
            "their initial snapshot runs, or their source cannot be reached",
        )
        for dataset, names in sorted(by_dataset.items())
    ]


def _zombies(
    picture: ObservedState, seen: Sequence[ConnectorView], busy: Collection[str], memory: Memory, policy: PassPolicy
) -> zombies.ZombieDecision:
    blind = picture.heartbeats is None and not picture.workers
    found = zombies.suspects(picture.heartbeats, picture.workers, policy.zombies)
    own = {s.name for s in seen if s.connector.running and s.name not in busy}
    return zombies.decide(
        {name: suspect for name, suspect in found.items() if name in own},
        {} if blind else memory.zombies,
        picture.taken_at,
        policy.zombies,
    )


def _skews(
    picture: ObservedState, movable: Mapping[str, Mapping[str, Sequence[str]]], memory: Memory, policy: PassPolicy
) -> dict[str, balance.BalanceDecision]:
    """By cluster; `movable` holds connectors by cluster and worker, and only the clusters to judge."""
    return {
        name: balance.decide(
            balance.tasks_by_worker(picture.topology.clusters[name], picture.clusters[name], picture.workers),
            by_worker,
            memory.skews.get(name),
            picture.taken_at,
            policy.balance,
        )
        for name, by_worker in movable.items()
    }


def _movable(
    picture: ObservedState,
    seen: Sequence[ConnectorView],
    diagnosis: Diagnosis,
    busy: Collection[str],
    busy_clusters: Collection[str],
) -> dict[str, dict[str, list[str]]]:
    """Healthy connectors by cluster and worker, of the clusters whose groups are at rest."""
    found: dict[str, dict[str, list[str]]] = {
        name: defaultdict(list)
        for name in picture.topology.clusters
        if name in picture.clusters and name not in busy_clusters
    }
    for s in seen:
        if s.cluster.name in found and s.name in diagnosis.healthy and s.name not in busy:
            found[s.cluster.name][s.connector.tasks[0].worker].append(s.name)
    return found


def _left_to_agent(
    picture: ObservedState, s: ConnectorView, worker: str, agents: Mapping[str, AgentReport | None] | None
) -> bool:
    """True while the live agent beside the task's worker has not finished with the shard's new leader."""
    if agents is None:
        return True
    report = agents.get(worker)
    if report is None:
        return worker in agents
    return s.name in report.moving or not report.has_written(picture.topology, s.shard)


def _is_held(worker: str, name: str, agents: Mapping[str, AgentReport | None] | None) -> bool:
    report = (agents or {}).get(worker)
    return report is not None and name in report.held


def _told_by_agents(picture: ObservedState) -> list[Finding]:
    """Leaders that are not fit yet, and old ones that go on taking writes."""
    if picture.agents is None:
        return []
    reports = reports_by_worker(picture.agents).values()
    held = {name: text for report in reports for name, text in report.held.items()}
    split = {name: text for report in reports for name, text in report.split.items()}
    findings = [Finding(subject=name, text=f"split brain: {text}") for name, text in sorted(split.items())]
    findings += [
        Finding(subject=name, text=f"its task waits for its new leader: {text}") for name, text in sorted(held.items())
    ]
    return findings


def _without_agent(picture: ObservedState) -> list[Finding]:
    """Workers that run tasks and have no live agent beside them."""
    if picture.agents is None:
        return []
    agents = reports_by_worker(picture.agents)
    findings: list[Finding] = []
    for name, cluster in sorted(picture.clusters.items()):
        workers = {task.worker for seen in (cluster.connectors or {}).values() for task in seen.tasks}
        alone = sorted(workers - agents.keys() - {""})
        if alone:
            text = f"no live agent beside {some_of(alone, _NAMED)}: leader changes do not reach their tasks"
            findings.append(Finding(subject=f"cluster {name}", text=text))
    return findings


def _whole(picture: ObservedState) -> bool:
    """True when the topology was read without gaps, so that what is absent is gone."""
    return not picture.topology.problems and any(picture.topology.shards.values())
