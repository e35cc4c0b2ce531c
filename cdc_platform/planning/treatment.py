"""What is done about connectors that are not well, and what an operator should know of them. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cdc_platform.model.agent_report import reports_by_worker
from cdc_platform.model.naming import some_of
from cdc_platform.model.topology import EMPTY
from cdc_platform.model.watched import WatchedName
from cdc_platform.planning.actions import RestartConnector, StopAndResumeConnector
from cdc_platform.planning.diagnosis import ConnectorView, Diagnosis
from cdc_platform.planning.health import duplicate_tasks, restarts, task_balance
from cdc_platform.planning.health.duplicate_tasks import ZombieRecord
from cdc_platform.planning.health.incidents import Incident, incidents_of
from cdc_platform.planning.health.liveness import CapturedRecord, LiveRecord
from cdc_platform.planning.health.restarts import RestartRecord, Waiting
from cdc_platform.planning.health.task_balance import SkewRecord
from cdc_platform.planning.inputs import Part, PlanInputs
from cdc_platform.planning.memory import RecordChanges
from cdc_platform.planning.plan import Finding
from cdc_platform.planning.watched import forgotten

# Names shown of a list.
_NAMED = 5
# Below so many connectors all of them may well fail at once.
_MANY = 3
# Three heartbeats: a task that failed before that has stopped to send them.
_FRESH_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Treatment:
    """What is done and remembered, which failing connectors wait and why, and the incidents by key."""

    part: Part
    waiting: Mapping[str, Waiting]
    incidents: Mapping[str, Incident]


def treat(
    inputs: PlanInputs,
    views: Sequence[ConnectorView],
    diagnosis: Diagnosis,
    busy: Collection[str],
    busy_clusters: Collection[str],
    watched: Mapping[str, str] = EMPTY,
) -> Treatment:
    """Restart what fails, stop and resume what runs twice or unevenly, within all bounds.

    Args:
        busy: connectors that the plan changes anyway.
        busy_clusters: clusters whose group the plan sets in motion anyway.
        watched: the watched connectors, which are in the diagnosis too, with their sources.
    """
    healer = _Healer(inputs, views, diagnosis, busy, watched)
    restarted = healer.restart()
    doubled = healer.stop_duplicates()
    stopping = {c for action in doubled.actions if isinstance(action, StopAndResumeConnector) for c in action.clusters}
    moving = {
        name: Waiting(until, f"its agent moves it to the new leader until {until:%H:%M:%S}Z")
        for name, until in diagnosis.moving.items()
    }
    part = restarted.part + Part(findings=[*healer.findings()]) + doubled
    return Treatment(
        part=part + healer.spread({*busy_clusters, *stopping}),
        waiting={**restarted.waiting, **moving},
        incidents=restarted.incidents,
    )


@dataclass(frozen=True, slots=True)
class _Healer:
    inputs: PlanInputs
    views: Sequence[ConnectorView]
    diagnosis: Diagnosis
    busy: Collection[str]
    watched: Mapping[str, str]

    def restart(self) -> Treatment:
        """Restarts, and the incidents that the failing connectors make."""
        observed, diagnosis, memory = self.inputs.observed, self.diagnosis, self.inputs.memory
        known, before, now = memory.of(RestartRecord), memory.of(Incident), observed.taken_at
        unsure = self._contradicted()
        failing = {
            name: item for name, item in diagnosis.failing.items() if name not in self.busy and name not in unsure
        }
        items = [item for item, _ in failing.values()]
        decision = restarts.decide(items, diagnosis.healthy, known, now, self.inputs.policy.restarts)
        hosts = {shard.name: str(shard.leader) for _, shard in observed.topology.all_shards()}
        hosts |= self.watched
        changed = {**dict.fromkeys(forgotten(known, observed.topology)), **decision.records}
        if observed.topology.whole:
            changed |= {name: None for name in known if name not in hosts}
        homes = {view.name: (view.cluster.name, view.name) for view in self.views}
        homes |= {name: WatchedName(*name.split("/", 1)) for name in self.watched}
        actions = [
            RestartConnector(
                cluster=homes[item.name][0],
                name=homes[item.name][1],
                failure=item.failure,
                attempt=record.attempts if (record := decision.records[item.name]) else 1,
                cause=failing[item.name][1],
                unwell=item.name in diagnosis.unwell,
                watched=item.name in self.watched,
            )
            for item in decision.restart
        ]
        left = {name: record for name, record in {**known, **changed}.items() if record is not None}
        incidents = incidents_of(diagnosis.failing, left, hosts, before, decision.crash_looping, now)
        ended: dict[str, Incident | None] = dict.fromkeys(before.keys() - incidents)
        new = {key: incident for key, incident in incidents.items() if before.get(key) != incident}
        findings = [Finding(subject=i.place, text=f"{i.sentence()}. {i.advice}") for i in incidents.values()]
        findings += [
            Finding(
                subject=f"cluster {cluster}",
                text="it says that all of its tasks failed and not why, while they sent heartbeats a moment ago: "
                "nothing is restarted before the next pass has asked again. If it stays, look at its workers.",
            )
            for cluster in sorted(set(unsure.values()))
        ]
        records = RecordChanges({RestartRecord: changed, Incident: ended | new})
        return Treatment(Part(actions=actions, findings=findings, records=records), decision.waiting, incidents)

    def _contradicted(self) -> dict[str, str]:
        """The connectors, with their cluster, of clusters whose word contradicts the heartbeats of most of them.

        An empty trace for each task of a cluster at once is no failure of Debezium's.
        """
        beats = self.inputs.observed.heartbeats
        clusters: dict[str, list[ConnectorView]] = defaultdict(list)
        for view in self.views:
            clusters[view.cluster.name].append(view)
        found: dict[str, str] = {}
        for cluster, views in clusters.items():
            if beats is None or len(views) < _MANY or not all(map(_failed_without_cause, views)):
                continue
            ages = [beats.age(view.name) for view in views]
            if 2 * sum(age is not None and age < _FRESH_SECONDS for age in ages) > len(views):
                found |= {view.name: cluster for view in views}
        return found

    def stop_duplicates(self) -> Part:
        """Stop and resume connectors whose task runs on two workers."""
        observed, policy = self.inputs.observed, self.inputs.policy.zombies
        blind = observed.heartbeats is None and not observed.workers
        suspects = duplicate_tasks.suspects(observed.heartbeats, observed.workers, policy)
        idle = (view for view in self.views if view.connector.running and view.name not in self.busy)
        homes = {view.name: view.cluster.name for view in idle if view.name in suspects}
        decision = duplicate_tasks.decide(
            {name: suspects[name] for name in homes},
            {} if blind else self.inputs.memory.of(ZombieRecord),
            observed.taken_at,
            policy,
        )
        actions = [
            StopAndResumeConnector(cluster=homes[name], name=name, reason=reason)
            for name, reason in decision.stop_and_resume.items()
        ]
        findings = [Finding(subject=name, text=text) for name, text in decision.findings.items()]
        return Part(actions=actions, findings=findings, records=RecordChanges({ZombieRecord: decision.records}))

    def spread(self, busy_clusters: Collection[str]) -> Part:
        """Stop and resume some connectors of a worker that has far more tasks than the others."""
        observed, known = self.inputs.observed, self.inputs.memory.of(SkewRecord)
        actions: list[StopAndResumeConnector] = []
        findings: list[Finding] = []
        records: dict[str, SkewRecord | None] = {}
        for cluster, by_worker in self._movable(busy_clusters).items():
            tasks = task_balance.tasks_by_worker(
                observed.topology.clusters[cluster], observed.clusters[cluster], observed.workers
            )
            decision = task_balance.decide(
                tasks, by_worker, known.get(cluster), observed.taken_at, self.inputs.policy.balance
            )
            if decision.finding:
                findings.append(Finding(subject=f"cluster {cluster}", text=decision.finding))
            if decision.changed:
                records[cluster] = decision.record
            reason = f"to spread the tasks: {decision.finding}"
            chosen = decision.stop_and_resume
            actions += [StopAndResumeConnector(cluster=cluster, name=name, reason=reason) for name in chosen]
        return Part(actions=actions, findings=findings, records=RecordChanges({SkewRecord: records}))

    def _movable(self, busy_clusters: Collection[str]) -> dict[str, dict[str, list[str]]]:
        """Healthy connectors by cluster and worker, of the clusters whose groups are at rest."""
        observed = self.inputs.observed
        names = (name for name in observed.topology.clusters if name in observed.clusters)
        movable: dict[str, dict[str, list[str]]] = {n: defaultdict(list) for n in names if n not in busy_clusters}
        for view in self.views:
            if view.cluster.name in movable and view.name in self.diagnosis.healthy and view.name not in self.busy:
                movable[view.cluster.name][view.connector.tasks[0].worker].append(view.name)
        return movable

    def findings(self) -> Iterator[Finding]:
        """What an operator should know beside the incidents."""
        yield from self._agents()
        problem = self.diagnosis.liveness.problem
        if not problem:
            yield from self._unproven()
        elif self.inputs.memory.of(LiveRecord):
            text = f"{problem}: who is stuck is not judged by heartbeats in this pass"
            yield Finding(subject="heartbeats", text=text)

    def _unproven(self) -> Iterator[Finding]:
        """Connectors that run, by Connect's word, and never sent a heartbeat."""
        live, captured = self.inputs.memory.of(LiveRecord), self.inputs.memory.of(CapturedRecord)
        alive, patience = self.diagnosis.liveness.alive, self.inputs.policy.liveness.first_beat
        by_dataset: dict[str, list[str]] = defaultdict(list)
        for view in self.views:
            name = view.name
            if name in live or name in alive or not view.connector.running or name not in captured:
                continue
            if self.inputs.observed.taken_at - captured[name].since > patience:
                by_dataset[view.dataset.name].append(name)
        for dataset, names in sorted(by_dataset.items()):
            text = f"{len(names)} connectors run but have never sent a heartbeat ({some_of(sorted(names), _NAMED)})"
            cause = "their initial snapshot runs, or their source cannot be reached"
            yield Finding(subject=dataset, text=f"{text}: {cause}")

    def _agents(self) -> Iterator[Finding]:
        """Tasks without a live agent beside them, leaders that are not fit yet, and old ones that still take writes."""
        observed = self.inputs.observed
        if observed.agents is None:
            return
        reports = reports_by_worker(observed.agents)
        for name, cluster in sorted(observed.clusters.items()):
            connectors = (cluster.connectors or {}).values()
            workers = {task.worker for one in connectors if one.owner is not None for task in one.tasks}
            alone = sorted(workers - reports.keys() - {""})
            if alone:
                text = f"no live agent beside {some_of(alone, _NAMED)}: leader changes do not reach their tasks"
                yield Finding(subject=f"cluster {name}", text=text)
        for name, text in sorted({n: text for report in reports.values() for n, text in report.split.items()}.items()):
            yield Finding(subject=name, text=f"split brain: {text}")
        for name, text in sorted(
            {n: text for report in reports.values() for n, text in report.blocked.items()}.items()
        ):
            yield Finding(subject=name, text=f"its task waits for its new leader: {text}")


def _failed_without_cause(view: ConnectorView) -> bool:
    tasks = view.connector.tasks
    return bool(tasks) and all(task.state == "FAILED" and not (task.trace or "").strip() for task in tasks)
