"""What is done about connectors that are not well, and what an operator should know of them. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from cdc_platform.model.agent_report import reports_by_worker
from cdc_platform.model.naming import some_of
from cdc_platform.model.observed import ObservedState
from cdc_platform.model.topology import EMPTY
from cdc_platform.planning.actions import Action, RestartConnector, StopAndResumeConnector
from cdc_platform.planning.diagnosis import ConnectorView, Diagnosis
from cdc_platform.planning.health import duplicate_tasks, restarts, task_balance
from cdc_platform.planning.health.duplicate_tasks import ZombieRecord
from cdc_platform.planning.health.incidents import Incident, incidents_of
from cdc_platform.planning.health.liveness import CapturedRecord, LiveRecord
from cdc_platform.planning.health.restarts import RestartRecord, Waiting
from cdc_platform.planning.health.task_balance import BalanceDecision, SkewRecord
from cdc_platform.planning.inputs import Part, PassPolicy
from cdc_platform.planning.memory import Memory, RecordChanges
from cdc_platform.planning.plan import Finding

# Names shown of a list.
_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Treatment:
    """What is done and remembered, which failing connectors wait and why, and the incidents by key."""

    part: Part = field(default_factory=Part)
    waiting: Mapping[str, Waiting] = EMPTY
    incidents: Mapping[str, Incident] = EMPTY


def treat(
    observed: ObservedState,
    views: Sequence[ConnectorView],
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
    restarted = _restart(observed, views, diagnosis, busy, memory, policy)
    known = [
        *_without_agent(observed),
        *_reported_by_agents(observed),
        *_unproven(observed, views, diagnosis, memory, policy),
    ]
    if diagnosis.liveness.problem and memory.of(LiveRecord):
        text = f"{diagnosis.liveness.problem}: who is stuck is not judged by heartbeats in this pass"
        known.append(Finding(subject="heartbeats", text=text))
    doubled = _stop_duplicates(observed, views, busy, memory, policy)
    stopping = {cluster for action in doubled.actions for cluster in _clusters(action)}
    spread = _spread(observed, views, diagnosis, busy, {*busy_clusters, *stopping}, memory, policy)
    moving = {
        name: Waiting(until, f"its agent moves it to the new leader until {until:%H:%M:%S}Z")
        for name, until in diagnosis.moving.items()
    }
    return Treatment(
        part=restarted.part + Part(findings=known) + doubled + spread,
        waiting={**restarted.waiting, **moving},
        incidents=restarted.incidents,
    )


def _clusters(action: Action) -> tuple[str, ...]:
    return action.clusters if isinstance(action, StopAndResumeConnector) else ()


def _restart(
    observed: ObservedState,
    views: Sequence[ConnectorView],
    diagnosis: Diagnosis,
    busy: Collection[str],
    memory: Memory,
    policy: PassPolicy,
) -> Treatment:
    """Restarts, and the incidents that the failing connectors make."""
    known, now = memory.of(RestartRecord), observed.taken_at
    failing = {name: item for name, item in diagnosis.failing.items() if name not in busy}
    decision = restarts.decide([item for item, _ in failing.values()], diagnosis.healthy, known, now, policy.restarts)
    hosts = {shard.name: str(shard.leader) for _, shard in observed.topology.all_shards()}
    changed = dict(decision.records)
    if observed.topology.whole:
        changed |= {name: None for name in known if name not in hosts}
    homes = {view.name: view.cluster.name for view in views}
    actions = [
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
    left = {name: record for name, record in {**known, **changed}.items() if record is not None}
    before = memory.of(Incident)
    incidents = incidents_of(diagnosis.failing, left, hosts, before, decision.crash_looping, now)
    ended: dict[str, Incident | None] = dict.fromkeys(before.keys() - incidents)
    new = {key: incident for key, incident in incidents.items() if before.get(key) != incident}
    return Treatment(
        part=Part(
            actions=actions,
            findings=[Finding(subject=i.place, text=f"{i.sentence()}. {i.advice}") for i in incidents.values()],
            records=RecordChanges({RestartRecord: changed, Incident: ended | new}),
        ),
        waiting=decision.waiting,
        incidents=incidents,
    )


def _stop_duplicates(
    observed: ObservedState,
    views: Sequence[ConnectorView],
    busy: Collection[str],
    memory: Memory,
    policy: PassPolicy,
) -> Part:
    """Stop and resume connectors whose task runs on two workers."""
    blind = observed.heartbeats is None and not observed.workers
    suspects = duplicate_tasks.suspects(observed.heartbeats, observed.workers, policy.zombies)
    homes = {v.name: v.cluster.name for v in views if v.connector.running and v.name not in busy} if suspects else {}
    decision = duplicate_tasks.decide(
        {name: suspect for name, suspect in suspects.items() if name in homes},
        {} if blind else memory.of(ZombieRecord),
        observed.taken_at,
        policy.zombies,
    )
    return Part(
        actions=[
            StopAndResumeConnector(cluster=homes[name], name=name, reason=reason)
            for name, reason in decision.stop_and_resume.items()
        ],
        findings=[Finding(subject=name, text=text) for name, text in decision.findings.items()],
        records=RecordChanges({ZombieRecord: decision.records}),
    )


def _spread(
    observed: ObservedState,
    views: Sequence[ConnectorView],
    diagnosis: Diagnosis,
    busy: Collection[str],
    busy_clusters: Collection[str],
    memory: Memory,
    policy: PassPolicy,
) -> Part:
    """Stop and resume some connectors of a worker that has far more tasks than the others."""
    actions: list[Action] = []
    findings: list[Finding] = []
    records: dict[str, SkewRecord | None] = {}
    for cluster, by_worker in _movable(observed, views, diagnosis, busy, busy_clusters).items():
        decision = _balance(observed, cluster, by_worker, memory, policy)
        if decision.finding:
            findings.append(Finding(subject=f"cluster {cluster}", text=decision.finding))
        if decision.changed:
            records[cluster] = decision.record
        reason = f"to spread the tasks: {decision.finding}"
        actions += [
            StopAndResumeConnector(cluster=cluster, name=name, reason=reason) for name in decision.stop_and_resume
        ]
    return Part(actions=actions, findings=findings, records=RecordChanges({SkewRecord: records}))


def _balance(
    observed: ObservedState,
    cluster: str,
    by_worker: Mapping[str, Sequence[str]],
    memory: Memory,
    policy: PassPolicy,
) -> BalanceDecision:
    tasks = task_balance.tasks_by_worker(
        observed.topology.clusters[cluster], observed.clusters[cluster], observed.workers
    )
    record = memory.of(SkewRecord).get(cluster)
    return task_balance.decide(tasks, by_worker, record, observed.taken_at, policy.balance)


def _movable(
    observed: ObservedState,
    views: Sequence[ConnectorView],
    diagnosis: Diagnosis,
    busy: Collection[str],
    busy_clusters: Collection[str],
) -> dict[str, dict[str, list[str]]]:
    """Healthy connectors by cluster and worker, of the clusters whose groups are at rest."""
    movable: dict[str, dict[str, list[str]]] = {
        name: defaultdict(list)
        for name in observed.topology.clusters
        if name in observed.clusters and name not in busy_clusters
    }
    for view in views:
        if view.cluster.name in movable and view.name in diagnosis.healthy and view.name not in busy:
            movable[view.cluster.name][view.connector.tasks[0].worker].append(view.name)
    return movable


def _unproven(
    observed: ObservedState,
    views: Sequence[ConnectorView],
    diagnosis: Diagnosis,
    memory: Memory,
    policy: PassPolicy,
) -> Iterator[Finding]:
    """Connectors that run, by Connect's word, and never sent a heartbeat."""
    if diagnosis.liveness.problem:
        return
    live, captured = memory.of(LiveRecord), memory.of(CapturedRecord)
    by_dataset: dict[str, list[str]] = defaultdict(list)
    for view in views:
        name = view.name
        if name in live or name in diagnosis.liveness.alive or not view.connector.running or name not in captured:
            continue
        if observed.taken_at - captured[name].since > policy.liveness.first_beat:
            by_dataset[view.dataset.name].append(name)
    for dataset, names in sorted(by_dataset.items()):
        text = (
            f"{len(names)} connectors run but have never sent a heartbeat ({some_of(sorted(names), _NAMED)}): "
            "their initial snapshot runs, or their source cannot be reached"
        )
        yield Finding(subject=dataset, text=text)


def _reported_by_agents(observed: ObservedState) -> Iterator[Finding]:
    """Leaders that are not fit yet, and old ones that go on taking writes."""
    reports = reports_by_worker(observed.agents or {}).values()
    for name, text in sorted({name: text for report in reports for name, text in report.split.items()}.items()):
        yield Finding(subject=name, text=f"split brain: {text}")
    for name, text in sorted({name: text for report in reports for name, text in report.held.items()}.items()):
        yield Finding(subject=name, text=f"its task waits for its new leader: {text}")


def _without_agent(observed: ObservedState) -> Iterator[Finding]:
    """Workers that run tasks and have no live agent beside them."""
    if observed.agents is None:
        return
    reports = reports_by_worker(observed.agents)
    for name, cluster in sorted(observed.clusters.items()):
        workers = {task.worker for connector in (cluster.connectors or {}).values() for task in connector.tasks}
        alone = sorted(workers - reports.keys() - {""})
        if alone:
            text = f"no live agent beside {some_of(alone, _NAMED)}: leader changes do not reach their tasks"
            yield Finding(subject=f"cluster {name}", text=text)
