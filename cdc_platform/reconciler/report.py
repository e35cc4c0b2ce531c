"""What one pass did: a value that ends in one sentence."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from cdc_platform.model.naming import ShardName, some_of
from cdc_platform.model.observed import ObservedCluster, ObservedConnector, ObservedState
from cdc_platform.model.topology import EMPTY, Topology
from cdc_platform.model.watched import WatchedName
from cdc_platform.planning.actions import Action, ConnectorAction, DeleteConnector, RestartConnector
from cdc_platform.planning.health.watched_states import LEFT_ALONE
from cdc_platform.planning.inputs import Planned
from cdc_platform.planning.plan import Finding, Plan
from cdc_platform.planning.watched import state_of


class ActionStatus(StrEnum):
    """What became of an action of the plan."""

    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionOutcome:
    """What became of one action; `seconds` is the call's.

    `unreachable`: it failed because its Connect cluster did not answer, or rebalanced all the time.
    """

    action: Action
    status: ActionStatus
    error: str | None = None
    seconds: float = 0.0
    unreachable: bool = False

    def sentence(self) -> str:
        """The action and what became of it, in one sentence."""
        text = self.action.sentence()
        text = text[0].upper() + text[1:]
        return f"{text}: {self.status}{f' ({self.error})' if self.error else ''}."


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardDown:
    """A shard that is not captured now, why, and what happens next."""

    shard: str
    state: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetHealth:
    """How the shards of one dataset are, by Connect's word."""

    dataset: str
    shards: int
    up: int
    down: tuple[ShardDown, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PassReport:
    """One pass from the first observation to the report.

    `number` counts the passes since the state topic was made. `phases` are seconds by name;
    `homes` maps each connector of ours to its cluster; `lags`
    a shard to the seconds it is behind its source, where that is known. `watched` is the health of the watched
    connectors by Connect cluster, `watched_changed` names those that came up, went down or were not known before.
    """

    generation: int
    taken_at: datetime
    plan: Plan
    outcomes: tuple[ActionOutcome, ...]
    health: Mapping[str, DatasetHealth]
    captured: tuple[str, ...]
    number: int
    phases: Mapping[str, float] = EMPTY
    watched: Mapping[str, DatasetHealth] = EMPTY
    watched_changed: frozenset[str] = frozenset()
    homes: Mapping[str, str] = EMPTY
    lags: Mapping[str, float] = EMPTY

    @property
    def failed(self) -> tuple[ActionOutcome, ...]:
        """The actions that did not come through."""
        return tuple(outcome for outcome in self.outcomes if outcome.status is ActionStatus.FAILED)

    def changed_datasets(self) -> frozenset[str]:
        """The datasets whose connectors this pass touched."""
        actions = (outcome.action for outcome in self.outcomes)
        return frozenset(
            ShardName.parse(a.name).dataset
            for a in actions
            if isinstance(a, ConnectorAction) and not (isinstance(a, RestartConnector) and a.watched)
        )

    def sentence(self) -> str:
        """The pass in one sentence, as the Dagster event log shows it."""
        counts = Counter(f"{outcome.action.kind.verb}: {outcome.status}" for outcome in self.outcomes)
        did = ", ".join(f"{key} {n}" for key, n in counts.items()) or "nothing to change"
        up = sum(health.up for health in self.health.values())
        total = sum(health.shards for health in self.health.values())
        scopes = [refusal.scope for refusal in self.plan.refusals]
        others = self.watched.values()
        watched = f", {sum(h.up for h in others)} of {sum(h.shards for h in others)} watched" if others else ""
        refused = f"; refused for {some_of(scopes, 5)}" if scopes else ""
        seconds = sum(self.phases.values())
        return f"Pass {self.number}: {did}; {up} of {total} shards up{watched}{refused}; {seconds:.1f} s."


def health_of(
    topology: Topology, planned: Planned | None, clusters: Mapping[str, ObservedCluster]
) -> dict[str, DatasetHealth]:
    """How each dataset's shards are in this observed of the clusters."""
    connectors: dict[str, ObservedConnector] = {}
    for cluster in clusters.values():
        for connector in (cluster.connectors or {}).values():
            # In two clusters while it migrates: the one that runs counts.
            if connector.owner is not None and (connector.name not in connectors or connector.running):
                connectors[connector.name] = connector
    unknown = frozenset(name for name, cluster in clusters.items() if not cluster.known)
    malformed: dict[str, list[ShardDown]] = defaultdict(list)
    known = {shard.name for _, shard in topology.all_shards()}
    for problem in topology.problems:
        # One whose options are refused is in the topology, and is judged by its connector.
        if problem.kind == "shard" and problem.name not in known:
            down_one = ShardDown(shard=problem.name, state="MALFORMED", reason=problem.message)
            malformed[problem.name.partition(".")[0]].append(down_one)
    health: dict[str, DatasetHealth] = {}
    for name, dataset in sorted(topology.datasets.items()):
        shards = topology.shards.get(name, ())
        blind = [cluster for cluster in dataset.clusters if cluster in unknown]
        found = [
            fault
            for shard in shards
            if (fault := _down(shard.name, connectors.get(shard.name), planned, blind)) is not None
        ]
        up, unread = len(shards) - len(found), malformed.get(name, [])
        down = tuple(sorted([*found, *unread], key=lambda fault: fault.shard)) if unread else tuple(found)
        health[name] = DatasetHealth(dataset=name, shards=len(shards) + len(unread), up=up, down=down)
    return health


def _down(
    shard: str, connector: ObservedConnector | None, planned: Planned | None, blind: Sequence[str]
) -> ShardDown | None:
    """Why the shard is not captured now; None when it is."""
    unwell = planned.unwell.get(shard) if planned else None
    losing = planned.incomplete.get(shard) if planned else None
    if connector is not None and connector.running and unwell is None:
        return None if losing is None else ShardDown(shard=shard, state="INCOMPLETE", reason=losing)
    waiting = planned.waiting.get(shard) if planned else None
    if connector is None:
        if blind:
            return ShardDown(shard=shard, state="UNKNOWN", reason=f"cluster {blind[0]} could not be read")
        return ShardDown(shard=shard, state="MISSING", reason=waiting.reason if waiting else "no connector yet")
    if unwell is not None and connector.running:
        state, plain = "SILENT", unwell
    else:
        states = {task.state for task in connector.tasks} - {"RUNNING"}
        state = connector.state if connector.state != "RUNNING" else (sorted(states) or ["NO TASK"])[0]
        plain = f"Connect says {state}"
    return ShardDown(shard=shard, state=state, reason=f"{plain}; {waiting.reason}" if waiting else plain)


def watched_health(
    topology: Topology, planned: Planned | None, clusters: Mapping[str, ObservedCluster]
) -> dict[str, DatasetHealth]:
    """How the watched connectors are, by Connect cluster; each is named by its `<cluster>/<connector>`."""
    health: dict[str, DatasetHealth] = {}
    for cluster, found in sorted(topology.clusters.items()):
        seen = clusters[cluster].connectors if cluster in clusters else None
        down: list[ShardDown] = []
        for one in sorted(found.watched):
            name = str(WatchedName(cluster, one))
            connector = None if seen is None else seen.get(one)
            state = "UNKNOWN" if seen is None else state_of(connector)
            if state == "RUNNING":
                continue
            unread = f"cluster {cluster} could not be read"
            reason = unread if seen is None else LEFT_ALONE.get(state, f"Connect says {state}")
            waiting = planned.waiting.get(name) if planned else None
            down.append(ShardDown(shard=name, state=state, reason=f"{reason}; {waiting.reason}" if waiting else reason))
        if found.watched:
            total = len(found.watched)
            health[cluster] = DatasetHealth(dataset=cluster, shards=total, up=total - len(down), down=tuple(down))
    return health


def running_shards(observed: ObservedState, clusters: Mapping[str, ObservedCluster]) -> dict[str, str]:
    """The shards whose connector and tasks run, with the cluster where they do."""
    return {
        shard.name: cluster
        for dataset, shard in observed.topology.all_shards()
        for cluster in dataset.clusters
        if cluster in clusters
        and (connector := (clusters[cluster].connectors or {}).get(shard.name)) is not None
        and connector.running
    }


def homes_of(clusters: Mapping[str, ObservedCluster], *, platform: str) -> dict[str, str]:
    """Connector name to cluster, for the connectors that are ours."""
    return {
        connector.name: name
        for name, cluster in clusters.items()
        for connector in (cluster.connectors or {}).values()
        if connector.owner == platform
    }


def lags_of(observed: ObservedState) -> dict[str, float]:
    """Shard to seconds behind its source, by the workers' metrics; the worst where two show one shard."""
    lags: dict[str, float] = {}
    for worker in observed.workers.values():
        for shard, ms in worker.lag_ms.items():
            lags[shard] = max(ms / 1000, lags.get(shard, 0.0))
    return lags


def leftovers_of(outcomes: tuple[ActionOutcome, ...]) -> tuple[Finding, ...]:
    """What deletes left for an operator to remove."""
    return tuple(
        Finding(subject=outcome.action.name, text=text)
        for outcome in outcomes
        if isinstance(outcome.action, DeleteConnector) and outcome.status is ActionStatus.DONE
        for text in outcome.action.leftovers
    )
