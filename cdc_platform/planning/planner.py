"""From one observed state to one plan. Pure: no I/O, no clock but the observation's time.

Each step returns its `Part`, and the plan is their sum. Guardrails are here: an empty or suddenly
smaller inventory, an unreadable cluster, a connector that somebody else made, too many deletes. Each
gives a `Refusal` and leaves everything else of the plan as it is.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from cdc_platform.connectors.identity import table_topic
from cdc_platform.model.naming import ShardName, some_of
from cdc_platform.model.observed import OWNER_KEY, ObservedState
from cdc_platform.model.topology import Cluster, Dataset, Shard
from cdc_platform.planning import guardrails
from cdc_platform.planning.actions import (
    Action,
    ConnectorAction,
    CreateConnector,
    DeleteConnector,
    MigrateConnector,
    ResumeConnector,
)
from cdc_platform.planning.diagnosis import ConnectorView, diagnose
from cdc_platform.planning.drift import TOO_FEW_BROKERS, compare_topics, foreign_topics, with_values
from cdc_platform.planning.guardrails import Connectors
from cdc_platform.planning.health.deleted_connectors import DeletedRecord, deleted_elsewhere
from cdc_platform.planning.health.liveness import CapturedRecord, LeaderRecord, LiveRecord, leader_changes
from cdc_platform.planning.health.restarts import Waiting
from cdc_platform.planning.health.shared_sources import readers_of_one
from cdc_platform.planning.health.source_hazard_kinds import HazardKind
from cdc_platform.planning.health.source_hazards import SourceRecord
from cdc_platform.planning.holds import HoldRecord, keep_snapshot_options
from cdc_platform.planning.inputs import DesiredState, Part, PassPolicy, PlanInputs, Planned
from cdc_platform.planning.leader_file_wait import LeaderFiles, without_agent
from cdc_platform.planning.memory import ClusterSize, DatasetSize, Memory, RecordChanges, TopicRecord
from cdc_platform.planning.placement import Placement, place_observed
from cdc_platform.planning.plan import Finding, Plan, Refusal, ordered
from cdc_platform.planning.rollout import Rollouts, roll_out
from cdc_platform.planning.source_findings import incomplete, source_part
from cdc_platform.planning.treatment import treat
from cdc_platform.planning.watched import watch


def make_plan(observed: ObservedState, desired: DesiredState, memory: Memory, policy: PassPolicy) -> Planned:
    """Compare what is with what should be."""
    ours, others, unread = guardrails.split(observed, policy.platform)
    problems = [Refusal(scope=f"{p.kind} {p.name}", reason=p.message) for p in observed.topology.problems]
    before = Part(refusals=(*problems, *unread))
    stop = guardrails.whole_pass(observed, ours, memory, policy)
    if stop is not None:
        # Sizes stay on record as they are, else the next pass would find nothing strange; incidents too, else
        # receivers would read that shards recovered which this pass did not look at.
        return Planned(plan=_plan(before + stop), changes=RecordChanges())
    return _Planner(PlanInputs(observed, desired, memory, policy), ours, others).plan(before)


@dataclass(frozen=True, slots=True)
class _Shards:
    """The shards that have a connector where it belongs, and those that get one; `waiting` says why others do not.

    `awaited`: those among the waiting whose leader files are not written yet.
    """

    views: Sequence[ConnectorView]
    missing: Sequence[tuple[Dataset, Shard, Cluster]]
    waiting: Mapping[str, Waiting]
    awaited: frozenset[str]
    part: Part


@dataclass(frozen=True, slots=True)
class _Planner:
    """The steps of one plan over the same inputs: `ours` and `others` are the connectors by cluster and name."""

    inputs: PlanInputs
    ours: Connectors
    others: Connectors

    def plan(self, before: Part) -> Planned:
        """All steps; `before` is what was found before the first."""
        observed, memory, policy = self.inputs.observed, self.inputs.memory, self.inputs.policy
        desired = self.inputs.desired
        foreign = foreign_topics(desired.topics, observed.topics, memory.of(TopicRecord), desired.is_ours)
        topics = compare_topics(
            desired.topics, observed.topics, foreign, desired.is_ours, observed.taken_at, observed.brokers
        )
        unmade = any(refusal.scope == TOO_FEW_BROKERS for refusal in topics.refusals)
        deletes, topics = self._deletes(topics)
        placement = place_observed(observed.topology, self.ours, self.others)
        shrunk = guardrails.shrunk_clusters(self.ours, memory, policy)
        shards = self._shards(placement, shrunk, foreign)
        diagnosis = diagnose(self.inputs, shards.views)
        rollouts = roll_out(self.inputs, shards.views, diagnosis)
        changes = before + guardrails.lost(observed.topology, memory, policy) + topics + shards.part
        changes += (
            Part(actions=[] if unmade else self._creations(shards, rollouts)) + rollouts.part + _resumes(shards.views)
        )
        touching = [action for action in changes.actions if isinstance(action, ConnectorAction)]
        busy = {action.name for action in touching}
        busy_clusters = {cluster for action in touching for cluster in action.clusters}
        watched = watch(observed, self.others, memory)
        treatment = treat(
            self.inputs, shards.views, watched.joined(diagnosis), busy, busy_clusters, watched=watched.names
        )
        changes += watched.part
        live = {name: LiveRecord(since=observed.taken_at) for name in diagnosis.liveness.first}
        changes += treatment.part + deletes + Part(records=RecordChanges({LiveRecord: live}))
        changes += Part(findings=_without_status(shards.views))
        changes += Part(findings=without_agent(observed), records=self._leaders(shards.awaited))
        changes += self._deleted(shards.missing)
        changes += Part(records=self._cluster_sizes(changes.actions, shrunk.keys()))
        sources = memory.of(SourceRecord)
        changes += source_part(sources, {shard.name for _, shard in observed.topology.all_shards()}, shards.views)
        return Planned(
            plan=_plan(changes),
            changes=changes.records,
            waiting={**treatment.waiting, **shards.waiting},
            homes=placement.homes,
            unwell=diagnosis.unwell,
            incidents=treatment.incidents,
            incomplete=incomplete(sources),
        )

    def _shards(self, placement: Placement, shrunk: Mapping[str, Refusal], foreign: frozenset[str]) -> _Shards:
        """Where each shard's connector is; migrations are planned."""
        topology = self.inputs.observed.topology
        off = {(problem.kind, problem.name) for problem in topology.problems}
        hidden = guardrails.hidden_clusters(self.inputs.observed, self.ours, self.inputs.memory, self.inputs.policy)
        holds = self.inputs.memory.of(HoldRecord)
        leader_files = LeaderFiles(self.inputs)
        places = {name: record.place for name, record in self.inputs.memory.of(SourceRecord).items()}
        shared, captured = readers_of_one(topology, places), self.inputs.memory.of(CapturedRecord)
        views: list[ConnectorView] = []
        missing: list[tuple[Dataset, Shard, Cluster]] = []
        migrations: list[tuple[Dataset, Shard, Cluster]] = []
        waiting: dict[str, Waiting] = {}
        awaited: set[str] = set()
        refusals = list(shrunk.values())
        findings: dict[Finding, None] = {}  # one of a paused dataset, however many shards it has
        for dataset, shard in topology.all_shards():
            name = shard.name
            if (finding := self._left_alone(dataset, shard, holds)) is not None:
                findings[finding] = None
                continue
            if ("dataset", dataset.name) in off or ("shard", name) in off:
                continue
            if name in placement.unplaced:
                waiting[name] = Waiting(None, placement.unplaced[name])
                continue
            home = placement.homes[name]
            if home not in self.ours or home in shrunk:
                continue
            cluster = topology.clusters[home]
            connector = self.ours[home].get(name)
            if name in placement.moves:
                migrations.append((dataset, shard, cluster))
            elif connector is not None:
                views.append(ConnectorView(dataset, shard, cluster, connector, name))
            elif name in cluster.watched:
                waiting[name] = Waiting(None, f"cluster {home} has a watched connector of that name")
            elif name in self.others[home]:
                own = f"{OWNER_KEY}={self.inputs.policy.platform}"
                text = f"cluster {home} has a connector of that name that lacks {own}: somebody else made it"
                refusals.append(Refusal(scope=name, reason=text))
            elif last := guardrails.may_run_in(name, self.inputs.memory, hidden):
                text = f"it ran before, and may still run in cluster {last}, which cannot be looked at"
                waiting[name] = Waiting(None, text)
            elif topic := next((t for t in map(partial(table_topic, dataset), dataset.tables) if t in foreign), None):
                waiting[name] = Waiting(None, f"topic {topic} exists, and no pass of this platform made it")
            elif name not in captured and (
                twins := [one for one in shared.get(name, ()) if ShardName.parse(one).dataset == dataset.name]
            ):
                text = f"{HazardKind.SHARED_DATABASE}: its database is also that of {some_of(twins, 4)}"
                waiting[name] = Waiting(None, text)
            elif wait := leader_files.wait(shard, cluster):
                waiting[name] = wait
                awaited.add(name)
            else:
                missing.append((dataset, shard, cluster))
        unplaced = _without_connector(waiting)
        if len(migrations) > self.inputs.policy.max_moves:
            text = f"{len(migrations)} connectors move, {self.inputs.policy.max_moves} in this pass"
            unplaced.append(Finding(subject="placement", text=text))
        chosen = migrations[: self.inputs.policy.max_moves]
        part = Part(
            actions=[self._migration(*item, placement.moves[item[1].name]) for item in chosen],
            refusals=refusals,
            findings=[*findings, *unplaced],
        )
        return _Shards(views, missing, waiting, frozenset(awaited), part)

    def _left_alone(self, dataset: Dataset, shard: Shard, holds: Mapping[str, HoldRecord]) -> Finding | None:
        """Why nothing is planned for the shard: it is paused, or a snapshot run holds it."""
        for subject, pause in ((dataset.name, dataset.pause), (shard.name, shard.pause)):
            if pause is not None and pause.holds(self.inputs.observed.taken_at):
                return Finding(subject=subject, text=guardrails.paused(pause))
        hold = holds.get(shard.name)
        if hold is None:
            return None
        text = f"left alone since {hold.since:%Y-%m-%d %H:%M:%S}Z: {hold.reason} "
        text += f"(until run {hold.run} is finished or stopped)"
        return Finding(subject=shard.name, text=text)

    def _migration(self, dataset: Dataset, shard: Shard, cluster: Cluster, source: str) -> MigrateConnector:
        config = self.inputs.desired.config_of(dataset, shard, cluster)
        config = keep_snapshot_options(config, self.ours[source][shard.name].config)
        return MigrateConnector(name=shard.name, source=source, target=cluster.name, config=config)

    def _deleted(self, missing: Sequence[tuple[Dataset, Shard, Cluster]]) -> Part:
        """What another program deleted lately."""
        memory = self.inputs.memory
        known, asked = memory.of(DeletedRecord), [(shard.name, cluster.name) for _, shard, cluster in missing]
        changed = deleted_elsewhere(asked, memory.of(CapturedRecord), known, self.inputs.observed.taken_at)
        lasting = {name: record for name, record in {**known, **changed}.items() if record is not None}
        findings = [Finding(subject=name, text=record.sentence()) for name, record in sorted(lasting.items())]
        return Part(findings=findings, records=RecordChanges({DeletedRecord: changed}))

    def _creations(self, shards: _Shards, rollouts: Rollouts) -> list[CreateConnector]:
        """None while Kafka cannot be read: Connect would make a missing topic itself, with the wrong settings."""
        if self.inputs.observed.topics is None:
            return []
        creations: list[CreateConnector] = []
        for dataset, shard, cluster in shards.missing:
            config = self.inputs.desired.config_of(dataset, shard, cluster)
            if dataset.name in rollouts.fresh:
                config = with_values(config, rollouts.fresh[dataset.name])
            creations.append(CreateConnector(cluster=cluster.name, name=shard.name, config=config))
        return creations

    def _deletes(self, topics: Part) -> tuple[Part, Part]:
        """Connectors without a shard; not of datasets that are suddenly smaller, whose old size stays on record.

        Second: `topics` without the changes by which Kafka would delete records, if these and the connectors are
        more together than one pass may delete.
        """
        topology = self.inputs.observed.topology
        off = {(problem.kind, problem.name) for problem in topology.problems}
        shrunk = guardrails.shrunk_datasets(topology, self.inputs.memory, self.inputs.policy)
        known = {shard.name for _, shard in topology.all_shards()}
        gone: list[DeleteConnector] = []
        for cluster, connectors in self.ours.items():
            for name in connectors.keys() - known:
                dataset = topology.datasets.get(dataset_name := ShardName.parse(name).dataset)
                if dataset_name in shrunk or {("dataset", dataset_name), ("shard", name)} & off:
                    continue
                if dataset and dataset.pause and dataset.pause.holds(self.inputs.observed.taken_at):
                    continue
                left_topics, left = self.inputs.desired.leftovers(name, connectors[name].config)
                what = "its shard" if dataset else f"dataset {dataset_name}"
                gone.append(
                    DeleteConnector(
                        cluster=cluster,
                        name=name,
                        reason=f"{what} is no longer in the topology",
                        left_topics=left_topics,
                        leftovers=left,
                    )
                )
        total = sum(len(connectors) for connectors in self.ours.values())
        unasked = guardrails.unasked_growth(topics.actions, self.inputs.policy)
        if unasked:
            topics = replace(topics, actions=[one for one in topics.actions if not guardrails.is_growth(one)])
        losing = [one for one in topics.actions if guardrails.loses_records(one) or guardrails.is_growth(one)]
        refusal = guardrails.too_many_deletes(gone, losing, total, self.inputs.policy)
        if refusal:
            topics = replace(topics, actions=[action for action in topics.actions if action not in losing])
        sizes = {name: DatasetSize(len(shards)) if shards else None for name, shards in topology.shards.items()}
        for name, size in self.inputs.memory.of(DatasetSize).items():
            if name in shrunk:
                sizes[name] = size
            elif ("dataset", name) not in off:
                sizes.setdefault(name, None)
        deletes = Part(
            actions=[] if refusal else gone,
            refusals=[*shrunk.values(), *([refusal] if refusal else []), *unasked],
            records=RecordChanges({DatasetSize: sizes}),
        )
        return deletes, topics

    def _leaders(self, awaited: frozenset[str]) -> RecordChanges:
        topology = self.inputs.observed.topology
        shards = {shard.name: shard for _, shard in topology.all_shards()}
        records, now = self.inputs.memory.of(LeaderRecord), self.inputs.observed.taken_at
        return RecordChanges({LeaderRecord: leader_changes(shards, records, now, awaited, whole=topology.whole)})

    def _cluster_sizes(self, actions: Iterable[Action], shrunk: Iterable[str]) -> RecordChanges:
        """Connectors by cluster without those that the plan takes away, which the next pass must not miss."""
        sizes = {name: len(connectors) for name, connectors in self.ours.items()}
        # Else the next pass would find nothing strange.
        sizes |= {name: self.inputs.memory.of(ClusterSize)[name].connectors for name in shrunk}
        leaving: Counter[str] = Counter()
        for action in actions:
            if isinstance(action, DeleteConnector):
                leaving[action.cluster] += 1
            elif isinstance(action, MigrateConnector):
                leaving[action.source] += 1
        left = {name: size - leaving[name] for name, size in sizes.items()}
        return RecordChanges({ClusterSize: {name: ClusterSize(n) if n > 0 else None for name, n in left.items()}})


def _plan(part: Part) -> Plan:
    return Plan(actions=ordered(part.actions), refusals=tuple(part.refusals), findings=tuple(part.findings))


def _resumes(views: Iterable[ConnectorView]) -> Part:
    return Part(
        actions=[
            ResumeConnector(cluster=view.cluster.name, name=view.name, state=view.connector.state)
            for view in views
            if view.connector.state in ("PAUSED", "STOPPED")
        ]
    )


def _without_connector(waiting: Mapping[str, Waiting]) -> list[Finding]:
    """One finding a dataset and reason, however many shards it concerns."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, wait in waiting.items():
        groups[ShardName.parse(name).dataset, wait.reason].append(name)
    return [
        Finding(subject=dataset, text=f"{len(names)} shards get no connector ({some_of(sorted(names), 5)}): {reason}")
        for (dataset, reason), names in sorted(groups.items())
    ]


def _without_status(views: Sequence[ConnectorView]) -> list[Finding]:
    """Clusters that tell no state of any of their connectors; right after its create one alone has none."""
    states: dict[str, list[bool]] = {}
    for view in views:
        seen = view.connector
        states.setdefault(view.cluster.name, []).append(seen.state == "UNASSIGNED" and not seen.tasks)
    return [
        Finding(
            subject=f"cluster {cluster}",
            text=f"its answers lack the status of all {len(unknown)} connectors: what runs there is not known, and "
            "nothing is done about it. If it stays, look at its workers and at what stands before them.",
        )
        for cluster, unknown in sorted(states.items())
        if len(unknown) > 1 and all(unknown)
    ]
