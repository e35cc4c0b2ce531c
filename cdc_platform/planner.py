"""From one picture to one plan. Pure: no I/O, no clock but the picture's time.

Guardrails are here: an empty or suddenly smaller inventory, an unreadable
cluster, a connector that somebody else made, too many deletes. Each gives a
`Refusal` and leaves everything else of the plan as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from cdc_platform.placement import Placement, place
from cdc_platform.plan import (
    Action,
    AddPartitions,
    AlterTopic,
    CreateConnector,
    CreateTopic,
    DeleteConnector,
    Finding,
    MigrateConnector,
    Plan,
    Refusal,
    RestartConnector,
    ResumeConnector,
    UpdateConnector,
    ordered,
)
from cdc_platform.restarts import (
    Failing,
    RestartDecision,
    RestartPolicy,
    RestartRecord,
    Waiting,
    classify,
    decide,
)
from cdc_platform.state import OWNER_KEY, ObservedConnector, ObservedTopic, Picture, TopicRequest
from cdc_platform.topology import EMPTY, Cluster, Dataset, Shard

ConfigOf = Callable[[Dataset, Shard, Cluster], Mapping[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The bounds of one pass.

    A pass deletes at most the greater of `max_deletes` and `max_delete_fraction` of the platform's
    connectors; `allow_deletes` replaces both for one pass. A cluster or dataset that lost more than
    `shrink_fraction` of what the last pass saw there, and more than `max_deletes`, is left alone.
    """

    platform: str = "cdc"
    max_deletes: int = 5
    max_delete_fraction: float = 0.01
    allow_deletes: int | None = None
    shrink_fraction: float = 0.5
    accept_shrink: bool = False
    restarts: RestartPolicy = field(default_factory=RestartPolicy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What earlier passes left: restart records by connector, sizes seen by cluster and dataset."""

    restarts: Mapping[str, RestartRecord] = field(default_factory=dict)
    cluster_sizes: Mapping[str, int] = field(default_factory=dict)
    dataset_sizes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What should be there: topics, and the config of any shard in any cluster.

    `leftovers` says for a connector that goes which topics go with it, and what is left to a person.
    """

    topics: Sequence[TopicRequest]
    config_of: ConfigOf
    leftovers: Callable[[str, Mapping[str, str]], tuple[tuple[str, ...], tuple[str, ...]]] = lambda name, config: (
        (),
        (),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """The plan, and what goes with it: records to store once applied, why some wait, who lives where."""

    plan: Plan
    records: Mapping[str, RestartRecord | None]
    waiting: Mapping[str, Waiting]
    crash_looping: frozenset[str]
    homes: Mapping[str, str]
    cluster_sizes: Mapping[str, int]
    dataset_sizes: Mapping[str, int]


def make_plan(picture: Picture, wanted: Wanted, memory: Memory, policy: Policy) -> Planned:
    """Compare what is with what should be."""
    return _Planner(picture, wanted, memory, policy).plan()


class _Planner:
    def __init__(self, picture: Picture, wanted: Wanted, memory: Memory, policy: Policy) -> None:
        self.picture = picture
        self.wanted = wanted
        self.memory = memory
        self.policy = policy
        self.topology = picture.topology
        self.actions: list[Action] = []
        self.refusals: list[Refusal] = []
        self.findings: list[Finding] = []
        self.failing: list[tuple[Failing, str, str]] = []
        self.healthy: dict[str, str] = {}
        self.off = {(problem.kind, problem.name) for problem in self.topology.problems}

    def plan(self) -> Planned:
        for problem in self.topology.problems:
            self.refusals.append(Refusal(scope=f"{problem.kind} {problem.name}", reason=problem.message))
        ours, strangers = self._read_clusters()
        sizes = {cluster: len(names) for cluster, names in ours.items()}
        dataset_sizes = {name: len(shards) for name, shards in self.topology.shards.items()}
        placement = Placement(homes=EMPTY, moves=EMPTY, unplaced=EMPTY)
        decision = RestartDecision(restart=(), waiting={}, records={}, crash_looping=frozenset())
        if self._allowed(ours):
            blind_topics = self._plan_topics()
            placement = self._place(ours, strangers)
            self._plan_shards(placement, ours, strangers, blind_topics)
            self._plan_deletes(ours)
            decision = self._plan_restarts()
        return Planned(
            plan=Plan(actions=ordered(self.actions), refusals=tuple(self.refusals), findings=tuple(self.findings)),
            records=decision.records,
            waiting=decision.waiting,
            crash_looping=decision.crash_looping,
            homes=placement.homes,
            cluster_sizes=sizes,
            dataset_sizes=dataset_sizes,
        )

    def _read_clusters(
        self,
    ) -> tuple[dict[str, dict[str, ObservedConnector]], dict[str, dict[str, ObservedConnector]]]:
        """Our connectors, and the others, by cluster and name; clusters that could not be read are absent."""
        ours: dict[str, dict[str, ObservedConnector]] = {}
        strangers: dict[str, dict[str, ObservedConnector]] = {}
        for name in self.topology.clusters:
            seen = self.picture.clusters.get(name)
            if seen is None or seen.connectors is None:
                reason = (seen.problem if seen else None) or "it was not read"
                self.refusals.append(Refusal(scope=f"cluster {name}", reason=reason))
                continue
            ours[name], strangers[name] = {}, {}
            for connector in seen.connectors.values():
                mine = connector.owner == self.policy.platform
                (ours if mine else strangers)[name][connector.name] = connector
        return ours, strangers

    def _allowed(self, ours: Mapping[str, Mapping[str, ObservedConnector]]) -> bool:
        """The guardrails that stop the whole pass."""
        pause = self.topology.pause
        if pause is not None and pause.holds(self.picture.taken_at):
            self.findings.append(Finding(subject="platform", text=f"paused by {pause.author}: {pause.reason}"))
            return False
        if self.picture.problem:
            self.refusals.append(Refusal(scope="platform", reason=self.picture.problem))
            return False
        running = sum(len(names) for names in ours.values())
        if running and not any(self.topology.shards.values()) and self.policy.allow_deletes is None:
            self.refusals.append(
                Refusal(
                    scope="platform",
                    reason=f"the topology holds no shard but {running} connectors run; "
                    "if that is meant, pass --allow-deletes with their number",
                )
            )
            return False
        return True

    def _shrunk(self, scope: str, before: int | None, now: int) -> bool:
        """True when the inventory is suddenly smaller than the last pass saw it."""
        if before is None or self.policy.accept_shrink or self.policy.allow_deletes is not None:
            return False
        lost = before - now
        if lost > self.policy.max_deletes and lost > before * self.policy.shrink_fraction:
            self.refusals.append(
                Refusal(
                    scope=scope,
                    reason=f"{now} now, {before} at the last pass; if that is meant, pass --accept-shrink",
                )
            )
            return True
        return False

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
                self._compare_topic(topic, seen)
        return False

    def _compare_topic(self, topic: TopicRequest, seen: ObservedTopic) -> None:
        if seen.partitions < topic.partitions:
            self.actions.append(AddPartitions(topic=topic.name, before=seen.partitions, total=topic.partitions))
        elif seen.partitions > topic.partitions:
            self.findings.append(
                Finding(
                    subject=f"topic {topic.name}",
                    text=f"has {seen.partitions} partitions, {topic.partitions} wanted; it cannot shrink",
                )
            )
        if seen.replication != topic.replication:
            self.findings.append(
                Finding(
                    subject=f"topic {topic.name}",
                    text=f"replication is {seen.replication}, {topic.replication} wanted; "
                    "reassign its partitions with kafka-reassign-partitions",
                )
            )
        changes = {
            key: (seen.config.get(key), value) for key, value in topic.config.items() if seen.config.get(key) != value
        }
        if changes:
            self.actions.append(AlterTopic(topic=topic.name, changes=changes))

    def _place(
        self,
        ours: Mapping[str, Mapping[str, ObservedConnector]],
        strangers: Mapping[str, Mapping[str, ObservedConnector]],
    ) -> Placement:
        running: dict[str, list[str]] = {}
        for cluster, connectors in ours.items():
            for name in connectors:
                running.setdefault(name, []).append(cluster)
        return place(
            list(self.topology.all_shards()),
            self.topology.clusters,
            running,
            unknown=frozenset(self.topology.clusters) - ours.keys(),
            foreign={cluster: len(connectors) for cluster, connectors in strangers.items()},
        )

    def _plan_shards(
        self,
        placement: Placement,
        ours: Mapping[str, Mapping[str, ObservedConnector]],
        strangers: Mapping[str, Mapping[str, ObservedConnector]],
        blind_topics: bool,
    ) -> None:
        shrunk = {
            cluster: self._shrunk(f"cluster {cluster}", self.memory.cluster_sizes.get(cluster), len(names))
            for cluster, names in ours.items()
        }
        for dataset, shard in self.topology.all_shards():
            if self._left_alone(dataset, shard):
                continue
            name = shard.name
            if name in placement.unplaced:
                self.findings.append(Finding(subject=name, text=placement.unplaced[name]))
                continue
            home = placement.homes[name]
            if home not in ours or shrunk[home]:
                continue
            cluster = self.topology.clusters[home]
            if name in placement.moves:
                source = placement.moves[name]
                config = self.wanted.config_of(dataset, shard, cluster)
                self.actions.append(MigrateConnector(name=name, source=source, target=home, config=config))
                continue
            seen = ours[home].get(name)
            if seen is not None:
                self._compare(dataset, shard, cluster, seen)
            elif name in strangers[home]:
                self.refusals.append(
                    Refusal(
                        scope=name,
                        reason=f"cluster {home} has a connector of that name that lacks {OWNER_KEY}="
                        f"{self.policy.platform}: somebody else made it",
                    )
                )
            elif not blind_topics:
                config = self.wanted.config_of(dataset, shard, cluster)
                self.actions.append(CreateConnector(cluster=home, name=name, config=config))

    def _left_alone(self, dataset: Dataset, shard: Shard) -> bool:
        for subject, pause in ((dataset.name, dataset.pause), (shard.name, shard.pause)):
            if pause is not None and pause.holds(self.picture.taken_at):
                finding = Finding(subject=subject, text=f"paused by {pause.author}: {pause.reason}")
                if finding not in self.findings[-1:]:
                    self.findings.append(finding)
                return True
        return ("dataset", dataset.name) in self.off or ("shard", shard.name) in self.off

    def _compare(self, dataset: Dataset, shard: Shard, cluster: Cluster, seen: ObservedConnector) -> None:
        config = self.wanted.config_of(dataset, shard, cluster)
        changes = config_changes(seen.config, config)
        if changes:
            self.actions.append(UpdateConnector(cluster=cluster.name, name=seen.name, config=config, changes=changes))
        if seen.state in ("PAUSED", "STOPPED"):
            self.actions.append(ResumeConnector(cluster=cluster.name, name=seen.name, state=seen.state))
            return
        host = str(shard.leader)
        trouble = _trouble(seen)
        if trouble is None:
            if seen.running:
                self.healthy[seen.name] = host
        elif not changes:
            worker, trace = trouble
            failing = Failing(name=seen.name, failure=classify(trace), host=host, worker=worker)
            self.failing.append((failing, cluster.name, first_line(trace)))

    def _plan_restarts(self) -> RestartDecision:
        decision = decide(
            [failing for failing, _, _ in self.failing],
            self.healthy,
            self.memory.restarts,
            self.picture.taken_at,
            self.policy.restarts,
        )
        where = {failing.name: (cluster, cause) for failing, cluster, cause in self.failing}
        for failing in decision.restart:
            cluster, cause = where[failing.name]
            record = decision.records[failing.name]
            self.actions.append(
                RestartConnector(
                    cluster=cluster,
                    name=failing.name,
                    failure=failing.failure,
                    attempt=record.attempts if record else 1,
                    cause=cause,
                )
            )
        for name, waiting in decision.waiting.items():
            until = f", next at {waiting.until:%H:%M:%S}Z" if waiting.until else ""
            self.findings.append(Finding(subject=name, text=f"not restarted: {waiting.reason}{until}"))
        for name in sorted(decision.crash_looping):
            self.findings.append(Finding(subject=name, text="crash loop: restarts do not cure it"))
        return decision

    def _plan_deletes(self, ours: Mapping[str, Mapping[str, ObservedConnector]]) -> None:
        wanted = {shard.name for _, shard in self.topology.all_shards()}
        gone: list[DeleteConnector] = []
        for cluster, connectors in ours.items():
            for name, seen in connectors.items():
                dataset = name.partition(".")[0]
                if name in wanted or {("dataset", dataset), ("shard", name)} & self.off:
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
        total = sum(len(connectors) for connectors in ours.values())
        cap = max(self.policy.max_deletes, int(total * self.policy.max_delete_fraction))
        if self.policy.allow_deletes is not None:
            cap = self.policy.allow_deletes
        if len(gone) > cap:
            names = ", ".join(sorted(d.name for d in gone)[:5])
            self.refusals.append(
                Refusal(
                    scope="deletes",
                    reason=f"{len(gone)} connectors would be deleted ({names}, ...), {cap} are allowed; "
                    f"if that is meant, pass --allow-deletes {len(gone)}",
                )
            )
        else:
            self.actions.extend(gone)


def config_changes(seen: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, tuple[str | None, str | None]]:
    """Key to (value now, value wanted) where they differ. Connect adds `name` by itself."""
    if seen.items() >= wanted.items() and len(seen) - ("name" in seen and "name" not in wanted) == len(wanted):
        return {}
    keys = (seen.keys() | wanted.keys()) - {"name"}
    return {key: (seen.get(key), wanted.get(key)) for key in keys if seen.get(key) != wanted.get(key)}


def _trouble(seen: ObservedConnector) -> tuple[str, str | None] | None:
    """The worker and trace of what failed in a connector; None when nothing did."""
    if seen.state == "FAILED":
        return seen.worker, seen.trace
    for task in seen.tasks:
        if task.state == "FAILED":
            return task.worker, task.trace
    return None


def first_line(trace: str | None) -> str:
    """The sentence of a Java trace that says most: the last `Caused by`, shortened."""
    lines = [line.strip() for line in (trace or "").splitlines() if line.strip()]
    causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    text = causes[-1] if causes else (lines[0] if lines else "no trace")
    return text if len(text) <= 160 else text[:157] + "..."
