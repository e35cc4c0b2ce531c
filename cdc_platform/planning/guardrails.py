"""What stops a plan or a part of it. Each refusal says why, and how to allow it where it is meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cdc_platform.model.naming import some_of
from cdc_platform.model.observed import CLUSTER_KEY, ObservedConnector, ObservedState
from cdc_platform.model.topology import Pause, Topology
from cdc_platform.planning.actions import Action, AddPartitions, AlterTopic, DeleteConnector
from cdc_platform.planning.health.liveness import CapturedRecord
from cdc_platform.planning.inputs import Part, PassPolicy
from cdc_platform.planning.memory import ClusterSize, DatasetSize, Memory, RecordChanges
from cdc_platform.planning.plan import Finding, Refusal

# Names shown of a list.
_NAMED = 6

Connectors = Mapping[str, Mapping[str, ObservedConnector]]


def split(observed: ObservedState, platform: str) -> tuple[Connectors, Connectors, list[Refusal]]:
    """Our connectors, and the others, by cluster and name; clusters that could not be read are absent.

    A watched one counts among the others, also if this platform made it: nothing but a restart may be planned for it.
    """
    ours: dict[str, dict[str, ObservedConnector]] = {}
    others: dict[str, dict[str, ObservedConnector]] = {}
    refusals: list[Refusal] = []
    for name in observed.topology.clusters:
        cluster = observed.clusters.get(name)
        if cluster is None or cluster.connectors is None:
            reason = (cluster.problem if cluster else None) or "it was not read"
            refusals.append(Refusal(scope=f"cluster {name}", reason=reason))
            continue
        ours[name], others[name] = {}, {}
        for connector in cluster.connectors.values():
            watched = connector.name in observed.topology.clusters[name].watched
            group = ours if connector.owner == platform and not watched else others
            group[name][connector.name] = connector
    for one, other in _same_groups(ours):
        for name in {one, other} & ours.keys():
            reason = f"clusters {one} and {other} show the same connectors on the same workers: they are one group"
            refusals.append(Refusal(scope=f"cluster {name}", reason=reason))
            del ours[name], others[name]
    return ours, others, refusals


def _same_groups(ours: Connectors) -> list[tuple[str, str]]:
    """Clusters under two names: migrating a connector from one to the other would delete it.

    In mid-migration a connector is in two clusters, but made for each of them.
    """
    first: dict[tuple[str, str, str | None], str] = {}
    same: set[tuple[str, str]] = set()
    for cluster in sorted(ours):
        for connector in ours[cluster].values():
            if connector.worker:
                key = (connector.name, connector.worker, connector.config.get(CLUSTER_KEY))
                if first.setdefault(key, cluster) != cluster:
                    same.add((first[key], cluster))
    return sorted(same)


def whole_pass(observed: ObservedState, ours: Connectors, memory: Memory, policy: PassPolicy) -> Part | None:
    """Why nothing at all may be planned; None when something may."""
    pause = observed.topology.pause
    if pause is not None and pause.holds(observed.taken_at):
        return Part(findings=(Finding(subject="platform", text=paused(pause)),))
    reason = observed.problem or _empty_topology(observed, ours, memory, policy)
    return Part(refusals=(Refusal(scope="platform", reason=reason),)) if reason else None


def _empty_topology(observed: ObservedState, ours: Connectors, memory: Memory, policy: PassPolicy) -> str | None:
    if any(observed.topology.shards.values()):
        return None
    running = sum(len(names) for names in ours.values())
    if running and policy.allow_deletes is None:
        return (
            f"the topology holds no shard but {running} connectors run; "
            "if that is meant, pass --allow-deletes with their number"
        )
    before = _before(memory)
    if before and not shrink_is_meant(policy):
        return (
            f"the topology holds no shard; at the last pass there were {before}; "
            "check whether `zookeeper_root` is the right one; if that is meant, pass --accept-shrink"
        )
    return None


def _before(memory: Memory) -> str:
    """What the last pass saw, by name; empty when there was nothing."""
    datasets, clusters = sorted(memory.of(DatasetSize).items()), sorted(memory.of(ClusterSize).items())
    parts = [f"{size.shards} shards of dataset {name}" for name, size in datasets if size.shards]
    parts += [f"{size.connectors} connectors in cluster {name}" for name, size in clusters if size.connectors]
    return some_of(parts, _NAMED)


def shrink_is_meant(policy: PassPolicy) -> bool:
    """True when an operator said that what is gone is meant to be."""
    return policy.accept_shrink or policy.allow_deletes is not None


def lost(topology: Topology, memory: Memory, policy: PassPolicy) -> Part:
    """Clusters with connectors of ours that left the topology: refused, or no longer remembered when that is meant."""
    clusters = _lost_clusters(topology, memory)
    if shrink_is_meant(policy):
        return Part(records=RecordChanges({ClusterSize: dict.fromkeys(clusters)}))
    return Part(refusals=[Refusal(scope=f"cluster {name}", reason=reason) for name, reason in clusters.items()])


def _lost_clusters(topology: Topology, memory: Memory) -> dict[str, str]:
    """Clusters that had connectors of ours at the last pass and left the topology since, and what to do.

    No pass watches these connectors any more; a shard that one of them captures must not get a second one.
    """
    off = {problem.name for problem in topology.problems if problem.kind == "cluster"}
    return {
        name: f"it left the topology with {size.connectors} connectors, which may still run: "
        "what ran before is not created elsewhere. Put it back with `draining: true`; "
        "if it is gone for good, pass --accept-shrink"
        for name, size in sorted(memory.of(ClusterSize).items())
        if size.connectors and name not in topology.clusters and name not in off
    }


def hidden_clusters(observed: ObservedState, ours: Connectors, memory: Memory, policy: PassPolicy) -> frozenset[str]:
    """Clusters that had connectors of ours at the last pass and cannot be looked at now."""
    hidden = {name for name, size in memory.of(ClusterSize).items() if size.connectors and name not in ours}
    if shrink_is_meant(policy):
        hidden -= _lost_clusters(observed.topology, memory).keys()
    return frozenset(hidden)


def may_run_in(name: str, memory: Memory, hidden: frozenset[str]) -> str | None:
    """The hidden cluster in which the shard may run; None when it ran elsewhere, or never."""
    known = memory.of(CapturedRecord).get(name)
    if known is None or not hidden:
        return None
    if known.cluster is None:
        return min(hidden)
    return known.cluster if known.cluster in hidden else None


def shrunk_clusters(ours: Connectors, memory: Memory, policy: PassPolicy) -> dict[str, Refusal]:
    """Clusters that have suddenly far fewer connectors of ours than at the last pass."""
    before = {name: size.connectors for name, size in memory.of(ClusterSize).items()}
    return _shrunk("cluster", before, {name: len(connectors) for name, connectors in ours.items()}, policy)


def shrunk_datasets(topology: Topology, memory: Memory, policy: PassPolicy) -> dict[str, Refusal]:
    """Datasets that have suddenly far fewer shards than at the last pass; not those that could not be read."""
    off = {problem.name for problem in topology.problems if problem.kind == "dataset"}
    before = {name: size.shards for name, size in memory.of(DatasetSize).items() if name not in off}
    return _shrunk("dataset", before, {name: len(topology.shards.get(name, ())) for name in before}, policy)


def _shrunk(kind: str, before: Mapping[str, int], now: Mapping[str, int], policy: PassPolicy) -> dict[str, Refusal]:
    refusals: dict[str, Refusal] = {}
    for name in now if not shrink_is_meant(policy) else ():
        was = before.get(name, 0)
        if was - now[name] > max(policy.max_deletes, was * policy.shrink_fraction):
            reason = f"{now[name]} now, {was} at the last pass; if that is meant, pass --accept-shrink"
            refusals[name] = Refusal(scope=f"{kind} {name}", reason=reason)
    return refusals


# What these settings of a topic become smaller by, Kafka deletes or compacts sooner.
_KEEPS_RECORDS = ("retention.ms", "retention.bytes", "min.compaction.lag.ms", "delete.retention.ms")


def loses_records(action: Action) -> bool:
    """True for a change of a topic after which Kafka may delete records that it kept before."""
    if not isinstance(action, AlterTopic):
        return False
    if "cleanup.policy" in action.changes:
        return True
    return any(_less(*action.changes[name]) for name in _KEEPS_RECORDS if name in action.changes)


def is_growth(action: Action) -> bool:
    """True for more partitions: what an operator allowed counts it among the deletes."""
    return isinstance(action, AddPartitions)


def _less(now: str | None, desired: str | None) -> bool:
    """True unless the desired number is known to be as much as now; -1 is without end."""
    try:
        before, after = (float("inf") if int(text or "x") < 0 else int(text or "x") for text in (now, desired))
    except ValueError:
        return True
    return after < before


def unasked_growth(actions: Sequence[Action], policy: PassPolicy) -> list[Refusal]:
    """Refusals of more partitions for topics that exist, unless an operator allowed deletes."""
    growing = [action for action in actions if isinstance(action, AddPartitions)]
    if policy.allow_deletes is not None:
        return []
    return [
        Refusal(
            scope=f"topic {action.topic}",
            reason=f"it has {action.before} partitions, {action.total} are wanted: keys would move to others, and "
            "readers by key keep what stands where they were, deleted rows too, until `repair --tombstones` removes "
            f"it; if that is meant, pass --allow-deletes {len(growing)}",
        )
        for action in growing
    ]


def too_many_deletes(
    gone: Sequence[DeleteConnector], losing: Sequence[Action], total: int, policy: PassPolicy
) -> Refusal | None:
    """A refusal of all deletes, and of the changes of topics that lose records, when there are more than the cap."""
    cap = max(policy.max_deletes, int(total * policy.max_delete_fraction))
    if policy.allow_deletes is not None:
        cap = policy.allow_deletes
    count = len(gone) + len(losing)
    if count <= cap:
        return None
    parts = []
    if gone:
        parts.append(f"{len(gone)} connectors would be deleted ({some_of(sorted(d.name for d in gone), _NAMED)})")
    if losing:
        topics = sorted(action.topic for action in losing if isinstance(action, AlterTopic | AddPartitions))
        parts.append(f"{len(losing)} topics would keep less or get partitions ({some_of(topics, _NAMED)})")
    return Refusal(
        scope="deletes",
        reason=f"{' and '.join(parts)}, {cap} are allowed; if that is meant, pass --allow-deletes {count}",
    )


def paused(pause: Pause) -> str:
    """Who paused it, why and until when."""
    until = f" until {pause.until:%Y-%m-%d %H:%M}Z" if pause.until else ""
    return f"paused by {pause.author}{until}: {pause.reason}"
