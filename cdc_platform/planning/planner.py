"""From one picture to one plan. Pure: no I/O, no clock but the picture's time.

Guardrails are here: an empty or suddenly smaller inventory, an unreadable
cluster, a connector that somebody else made, too many deletes. Each gives a
`Refusal` and leaves everything else of the plan as it is.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

from cdc_platform.model.naming import ShardName, some_of
from cdc_platform.model.observed import OWNER_KEY, ObservedState
from cdc_platform.model.topology import EMPTY, Cluster, Dataset, Shard
from cdc_platform.planning import guardrails
from cdc_platform.planning.actions import (
    Action,
    CreateConnector,
    CreateTopic,
    DeleteConnector,
    MigrateConnector,
    ResumeConnector,
    UpdateConnector,
)
from cdc_platform.planning.drift import compare_topic, config_changes, with_values
from cdc_platform.planning.health.diagnosis import ConnectorView, Diagnosis, Treatment, diagnose, treat
from cdc_platform.planning.health.incidents import Incident
from cdc_platform.planning.health.liveness import LiveRecord
from cdc_platform.planning.health.restarts import Waiting
from cdc_platform.planning.holds import keep_snapshot_options
from cdc_platform.planning.inputs import Changes, ConfigOf, DesiredState, Memory, PassPolicy, Planned
from cdc_platform.planning.leader_file_wait import LeaderFiles
from cdc_platform.planning.placement import Placement, place
from cdc_platform.planning.plan import Finding, Plan, Refusal, ordered
from cdc_platform.planning.rollout import Rollouts, roll_out

__all__ = [
    "Changes",
    "ConfigOf",
    "DesiredState",
    "Memory",
    "PassPolicy",
    "Planned",
    "config_changes",
    "make_plan",
]


def make_plan(picture: ObservedState, wanted: DesiredState, memory: Memory, policy: PassPolicy) -> Planned:
    """Compare what is with what should be."""
    return _Planner(picture, wanted, memory, policy).plan()


class _Planner:
    def __init__(self, picture: ObservedState, wanted: DesiredState, memory: Memory, policy: PassPolicy) -> None:
        self.picture = picture
        self.wanted = wanted
        self.memory = memory
        self.policy = policy
        self.topology = picture.topology
        self.ours, self.strangers, unread = guardrails.split(picture, policy.platform)
        self.actions: list[Action] = []
        self.findings: list[Finding] = []
        self.refusals = [Refusal(scope=f"{p.kind} {p.name}", reason=p.message) for p in self.topology.problems]
        self.refusals += unread
        self.off = {(problem.kind, problem.name) for problem in self.topology.problems}
        self.sizes = {cluster: len(names) for cluster, names in self.ours.items()}
        self.dataset_sizes = {name: len(shards) for name, shards in self.topology.shards.items()}
        self.moves = 0
        self.homeless: dict[str, Waiting] = {}
        self.hidden = guardrails.hidden_clusters(picture, self.ours, memory, policy)
        self.leader_files = LeaderFiles(picture, memory, policy)

    def plan(self) -> Planned:
        stop = guardrails.whole_pass(self.picture, self.ours, self.memory, self.policy)
        if isinstance(stop, Refusal):
            self.refusals.append(stop)
        elif stop is not None:
            self.findings.append(stop)
        if stop is not None:
            # What was there before is remembered, else the next pass would find nothing strange.
            self.sizes, self.dataset_sizes = dict(self.memory.cluster_sizes), dict(self.memory.dataset_sizes)
            return self._planned(EMPTY, Rollouts(), Diagnosis(), Treatment())
        self._plan_lost_clusters()
        blind_topics = self._plan_topics()
        placement = self._place()
        seen, missing = self._sort(placement)
        diagnosis = diagnose(self.picture, seen, self.memory, self.policy)
        rollouts = roll_out(self.picture, seen, diagnosis, self.wanted, self.memory, self.policy)
        for item in () if blind_topics else missing:
            self._create(*item, rollouts)
        self.actions += rollouts.updates
        self.actions += [
            ResumeConnector(cluster=s.cluster.name, name=s.name, state=s.connector.state)
            for s in seen
            if s.connector.state in ("PAUSED", "STOPPED")
        ]
        busy = {name for action in self.actions if (name := getattr(action, "name", None))}
        treatment = treat(self.picture, seen, diagnosis, busy, self._busy_clusters(), self.memory, self.policy)
        self.actions += treatment.actions
        self._plan_deletes()
        self.findings += [*rollouts.findings, *treatment.findings]
        return self._planned(placement.homes, rollouts, diagnosis, treatment)

    def _planned(
        self, homes: Mapping[str, str], rollouts: Rollouts, diagnosis: Diagnosis, treatment: Treatment
    ) -> Planned:
        now = self.picture.taken_at
        live: dict[str, LiveRecord | None] = {name: LiveRecord(since=now) for name in diagnosis.liveness.first}
        incidents: dict[str, Incident | None] = dict.fromkeys(self.memory.incidents.keys() - treatment.incidents)
        incidents |= {key: t for key, t in treatment.incidents.items() if self.memory.incidents.get(key) != t}
        return Planned(
            plan=Plan(actions=ordered(self.actions), refusals=tuple(self.refusals), findings=tuple(self.findings)),
            records=treatment.restarts.records,
            waiting={**treatment.waiting, **self.homeless},
            crash_looping=treatment.restarts.crash_looping,
            homes=homes,
            cluster_sizes=self._sizes_afterwards(),
            dataset_sizes=self.dataset_sizes,
            changes=Changes(
                live=live,
                leaders={**self.leader_files.records, **diagnosis.leaders},
                zombies=treatment.zombies,
                skews=treatment.skews,
                canaries=rollouts.canaries,
                rollouts=rollouts.done,
                incidents=incidents,
            ),
            unwell=diagnosis.unwell,
            alive=diagnosis.liveness.alive,
            incidents=treatment.incidents,
        )

    def _sizes_afterwards(self) -> dict[str, int]:
        """Connectors by cluster without those that the plan takes away, which the next pass must not miss."""
        leaving = Counter(a.cluster for a in self.actions if isinstance(a, DeleteConnector))
        leaving += Counter(a.source for a in self.actions if isinstance(a, MigrateConnector))
        return {name: max(0, size - leaving[name]) for name, size in self.sizes.items()}

    def _plan_lost_clusters(self) -> None:
        """Clusters with connectors that left the topology: refused, or forgotten when that is meant."""
        for name, reason in guardrails.lost_clusters(self.topology, self.memory).items():
            if guardrails.shrink_is_meant(self.policy):
                self.sizes[name] = 0
            else:
                self.refusals.append(Refusal(scope=f"cluster {name}", reason=reason))

    def _plan_topics(self) -> bool:
        """Compare topics; True when Kafka could not be read, so that nothing new may be started."""
        if self.picture.topics is None:
            self.refusals.append(Refusal(scope="kafka", reason="its topics could not be read"))
            return True
        for topic in self.wanted.topics:
            seen = self.picture.topics.get(topic.name)
            if seen is None:
                self.actions.append(CreateTopic(topic=topic))
            else:
                actions, findings = compare_topic(topic, seen)
                self.actions += actions
                self.findings += findings
        return False

    def _place(self) -> Placement:
        running: dict[str, list[str]] = {}
        for cluster, connectors in self.ours.items():
            for name in connectors:
                running.setdefault(name, []).append(cluster)
        return place(
            list(self.topology.all_shards()),
            self.topology.clusters,
            running,
            unknown=frozenset(self.topology.clusters) - self.ours.keys(),
            foreign={cluster: len(connectors) for cluster, connectors in self.strangers.items()},
        )

    def _sort(self, placement: Placement) -> tuple[list[ConnectorView], list[tuple[Dataset, Shard, Cluster]]]:
        """The shards that have a connector where it belongs, and those that have none; moves are planned."""
        shrunk = {cluster: self._shrunk(cluster, len(names)) for cluster, names in self.ours.items()}
        seen: list[ConnectorView] = []
        missing: list[tuple[Dataset, Shard, Cluster]] = []
        for dataset, shard in self.topology.all_shards():
            name = shard.name
            if self._left_alone(dataset, shard):
                continue
            if name in placement.unplaced:
                self.homeless[name] = Waiting(None, placement.unplaced[name])
                continue
            home = placement.homes[name]
            if home not in self.ours or shrunk[home]:
                continue
            cluster = self.topology.clusters[home]
            found = self.ours[home].get(name)
            if name in placement.moves:
                self._move(dataset, shard, cluster, placement.moves[name])
            elif found is not None:
                seen.append(ConnectorView(dataset, shard, cluster, found, name))
            elif name in self.strangers[home]:
                self.refusals.append(
                    Refusal(
                        scope=name,
                        reason=f"cluster {home} has a connector of that name that lacks {OWNER_KEY}="
                        f"{self.policy.platform}: somebody else made it",
                    )
                )
            elif hidden := guardrails.may_run_in(name, self.memory, self.hidden):
                text = f"it ran before, and may still run in cluster {hidden}, which cannot be looked at"
                self.homeless[name] = Waiting(None, text)
            elif wait := self.leader_files.wait(shard, cluster):
                self.homeless[name] = wait
            else:
                missing.append((dataset, shard, cluster))
        self.findings += _without_home(self.homeless)
        if self.moves > self.policy.max_moves:
            text = f"{self.moves} connectors move, {self.policy.max_moves} in this pass"
            self.findings.append(Finding(subject="placement", text=text))
        return seen, missing

    def _shrunk(self, cluster: str, now: int) -> bool:
        before = self.memory.cluster_sizes.get(cluster)
        refusal = guardrails.shrunk(f"cluster {cluster}", before, now, self.policy)
        if refusal is None or before is None:
            return False
        self.refusals.append(refusal)
        self.sizes[cluster] = before  # else the next pass would find nothing strange
        return True

    def _left_alone(self, dataset: Dataset, shard: Shard) -> bool:
        for subject, pause in ((dataset.name, dataset.pause), (shard.name, shard.pause)):
            if pause is not None and pause.holds(self.picture.taken_at):
                finding = Finding(subject=subject, text=guardrails.paused(pause))
                if finding not in self.findings[-1:]:
                    self.findings.append(finding)
                return True
        hold = self.memory.holds.get(shard.name)
        if hold is not None:
            text = f"left alone since {hold.since:%Y-%m-%d %H:%M:%S}Z: {hold.reason} (run {hold.run})"
            self.findings.append(Finding(subject=shard.name, text=text))
            return True
        return ("dataset", dataset.name) in self.off or ("shard", shard.name) in self.off

    def _move(self, dataset: Dataset, shard: Shard, cluster: Cluster, source: str) -> None:
        self.moves += 1
        if self.moves <= self.policy.max_moves:
            config = self.wanted.config_of(dataset, shard, cluster)
            config = keep_snapshot_options(config, self.ours[source][shard.name].config)
            self.actions.append(MigrateConnector(name=shard.name, source=source, target=cluster.name, config=config))

    def _create(self, dataset: Dataset, shard: Shard, cluster: Cluster, rollouts: Rollouts) -> None:
        config = self.wanted.config_of(dataset, shard, cluster)
        if dataset.name in rollouts.fresh:
            config = with_values(config, rollouts.fresh[dataset.name])
        self.actions.append(CreateConnector(cluster=cluster.name, name=shard.name, config=config))

    def _busy_clusters(self) -> frozenset[str]:
        """Clusters whose group the plan so far sets in motion."""
        clusters: set[str] = set()
        for action in self.actions:
            if isinstance(action, MigrateConnector):
                clusters |= {action.source, action.target}
            elif isinstance(action, CreateConnector | UpdateConnector | ResumeConnector):
                clusters.add(action.cluster)
        return frozenset(clusters)

    def _plan_deletes(self) -> None:
        wanted = {shard.name for _, shard in self.topology.all_shards()}
        held = self._shrunk_datasets()
        gone: list[DeleteConnector] = []
        for cluster, connectors in self.ours.items():
            for name, seen in connectors.items():
                if name in wanted:
                    continue
                dataset = ShardName.parse(name).dataset
                if dataset in held or {("dataset", dataset), ("shard", name)} & self.off:
                    continue
                known = self.topology.datasets.get(dataset)
                if known and known.pause and known.pause.holds(self.picture.taken_at):
                    continue
                topics, left = self.wanted.leftovers(name, seen.config)
                reason = "its shard" if known else f"dataset {dataset}"
                gone.append(
                    DeleteConnector(
                        cluster=cluster,
                        name=name,
                        reason=f"{reason} is no longer in the topology",
                        left_topics=topics,
                        leftovers=left,
                    )
                )
        total = sum(len(connectors) for connectors in self.ours.values())
        refusal = guardrails.too_many_deletes(gone, total, self.policy)
        if refusal is not None:
            self.refusals.append(refusal)
        else:
            self.actions += gone

    def _shrunk_datasets(self) -> frozenset[str]:
        """Datasets that are suddenly smaller: their connectors are not deleted, and the old size is remembered."""
        held: set[str] = set()
        for dataset, before in self.memory.dataset_sizes.items():
            if ("dataset", dataset) in self.off:
                continue
            now = self.dataset_sizes.get(dataset, 0)
            refusal = guardrails.shrunk(f"dataset {dataset}", before, now, self.policy)
            if refusal is not None:
                self.refusals.append(refusal)
                self.dataset_sizes[dataset] = before
                held.add(dataset)
            elif dataset not in self.dataset_sizes:
                self.dataset_sizes[dataset] = 0
        return frozenset(held)


def _without_home(homeless: Mapping[str, Waiting]) -> list[Finding]:
    """One finding a dataset and reason, however many shards it concerns."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, waiting in homeless.items():
        groups[ShardName.parse(name).dataset, waiting.reason].append(name)
    return [
        Finding(subject=dataset, text=f"{len(names)} shards get no connector ({some_of(sorted(names), 5)}): {reason}")
        for (dataset, reason), names in sorted(groups.items())
    ]
