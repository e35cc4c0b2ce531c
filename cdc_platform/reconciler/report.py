"""What one pass did: a value that ends in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from cdc_platform.plan import VERBS, Action, DeleteConnector, Finding, Plan
from cdc_platform.planner import Planned
from cdc_platform.state import ObservedCluster, Picture
from cdc_platform.topology import EMPTY, Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one action: `status` is done, failed or skipped; `seconds` is the call's."""

    action: Action
    status: str
    error: str | None = None
    seconds: float = 0.0

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
    """One pass from look to report.

    `phases` are seconds by name; `homes` maps each connector of ours to its cluster.
    """

    generation: int
    taken_at: datetime
    plan: Plan
    outcomes: tuple[Outcome, ...]
    health: Mapping[str, DatasetHealth]
    captured: tuple[str, ...]
    phases: Mapping[str, float] = EMPTY
    homes: Mapping[str, str] = EMPTY

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """The actions that did not come through."""
        return tuple(outcome for outcome in self.outcomes if outcome.status == "failed")

    def changed_datasets(self) -> frozenset[str]:
        """The datasets whose connectors this pass touched."""
        touched = (getattr(outcome.action, "name", "") for outcome in self.outcomes)
        return frozenset(name.partition(".")[0] for name in touched if name)

    def sentence(self) -> str:
        """The pass in one sentence, as the Dagster event log shows it."""
        counts: dict[str, int] = {}
        for outcome in self.outcomes:
            key = f"{VERBS[type(outcome.action)]}: {outcome.status}"
            counts[key] = counts.get(key, 0) + 1
        did = ", ".join(f"{key} {n}" for key, n in counts.items()) or "nothing to change"
        up = sum(health.up for health in self.health.values())
        total = sum(health.shards for health in self.health.values())
        refused = f"; refused for {', '.join(r.scope for r in self.plan.refusals[:5])}" if self.plan.refusals else ""
        seconds = sum(self.phases.values())
        return f"Pass {self.generation}: {did}; {up} of {total} shards up{refused}; {seconds:.1f} s."


def health_of(
    topology: Topology, planned: Planned | None, clusters: Mapping[str, ObservedCluster]
) -> dict[str, DatasetHealth]:
    """How each dataset's shards are in this picture of the clusters."""
    found: dict[str, DatasetHealth] = {}
    unknown = sorted(name for name, cluster in clusters.items() if not cluster.known)
    for name, dataset in sorted(topology.datasets.items()):
        down: list[ShardDown] = []
        shards = topology.shards.get(name, ())
        for shard in shards:
            seen = next(
                (
                    clusters[c].connectors[shard.name]  # type: ignore[index]
                    for c in dataset.clusters
                    if c in clusters and shard.name in (clusters[c].connectors or {})
                ),
                None,
            )
            if seen is not None and seen.running:
                continue
            waiting = planned.waiting.get(shard.name) if planned else None
            if seen is None:
                blind = [c for c in dataset.clusters if c in unknown]
                state = "UNKNOWN" if blind else "MISSING"
                reason = f"cluster {blind[0]} could not be read" if blind else "no connector yet"
            else:
                states = {task.state for task in seen.tasks} - {"RUNNING"}
                state = seen.state if seen.state != "RUNNING" else (sorted(states) or ["NO TASK"])[0]
                reason = waiting.reason if waiting else f"Connect says {state}"
            down.append(ShardDown(shard=shard.name, state=state, reason=reason))
        found[name] = DatasetHealth(dataset=name, shards=len(shards), up=len(shards) - len(down), down=tuple(down))
    return found


def running_shards(picture: Picture, clusters: Mapping[str, ObservedCluster]) -> frozenset[str]:
    """The names of the shards whose connector and tasks run."""
    return frozenset(
        shard.name
        for dataset, shard in picture.topology.all_shards()
        for cluster in dataset.clusters
        if cluster in clusters
        and (seen := (clusters[cluster].connectors or {}).get(shard.name)) is not None
        and seen.running
    )


def homes_of(clusters: Mapping[str, ObservedCluster], *, platform: str) -> dict[str, str]:
    """Connector name to cluster, for the connectors that are ours."""
    return {
        connector.name: name
        for name, cluster in clusters.items()
        for connector in (cluster.connectors or {}).values()
        if connector.owner == platform
    }


def leftovers_of(outcomes: tuple[Outcome, ...]) -> tuple[Finding, ...]:
    """What deletes left for a person to remove."""
    return tuple(
        Finding(subject=outcome.action.name, text=text)
        for outcome in outcomes
        if isinstance(outcome.action, DeleteConnector) and outcome.status == "done"
        for text in outcome.action.leftovers
    )
