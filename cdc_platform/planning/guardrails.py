"""What stops a plan or a part of it. Each refusal says why, and how to allow it where it is meant."""

from __future__ import annotations

from collections.abc import Mapping

from cdc_platform.model.naming import some_of
from cdc_platform.model.observed import CLUSTER_KEY, ObservedConnector, ObservedState
from cdc_platform.model.topology import Pause, Topology
from cdc_platform.planning.actions import DeleteConnector
from cdc_platform.planning.inputs import Memory, PassPolicy
from cdc_platform.planning.plan import Finding, Refusal

# Names shown of a list.
_NAMED = 6

Connectors = Mapping[str, Mapping[str, ObservedConnector]]


def split(picture: ObservedState, platform: str) -> tuple[Connectors, Connectors, list[Refusal]]:
    """Our connectors, and the others, by cluster and name; clusters that could not be read are absent."""
    ours: dict[str, dict[str, ObservedConnector]] = {}
    strangers: dict[str, dict[str, ObservedConnector]] = {}
    refusals: list[Refusal] = []
    for name in picture.topology.clusters:
        seen = picture.clusters.get(name)
        if seen is None or seen.connectors is None:
            reason = (seen.problem if seen else None) or "it was not read"
            refusals.append(Refusal(scope=f"cluster {name}", reason=reason))
            continue
        ours[name], strangers[name] = {}, {}
        for connector in seen.connectors.values():
            mine = connector.owner == platform
            (ours if mine else strangers)[name][connector.name] = connector
    for one, other in _same_groups(ours):
        for name in {one, other} & ours.keys():
            reason = f"clusters {one} and {other} show the same connectors on the same workers: they are one group"
            refusals.append(Refusal(scope=f"cluster {name}", reason=reason))
            del ours[name], strangers[name]
    return ours, strangers, refusals


def _same_groups(ours: Connectors) -> list[tuple[str, str]]:
    """Clusters under two names: moving a connector from one to the other would delete it.

    In mid-move a connector is in two clusters, but made for each of them.
    """
    seen: dict[tuple[str, str, str | None], str] = {}
    same: set[tuple[str, str]] = set()
    for cluster in sorted(ours):
        for connector in ours[cluster].values():
            if connector.worker:
                key = (connector.name, connector.worker, connector.config.get(CLUSTER_KEY))
                if seen.setdefault(key, cluster) != cluster:
                    same.add((seen[key], cluster))
    return sorted(same)


def whole_pass(
    picture: ObservedState, ours: Connectors, memory: Memory, policy: PassPolicy
) -> Refusal | Finding | None:
    """Why nothing at all may be planned; None when something may."""
    pause = picture.topology.pause
    if pause is not None and pause.holds(picture.taken_at):
        return Finding(subject="platform", text=paused(pause))
    if picture.problem:
        return Refusal(scope="platform", reason=picture.problem)
    running = sum(len(names) for names in ours.values())
    if running and not any(picture.topology.shards.values()) and policy.allow_deletes is None:
        return Refusal(
            scope="platform",
            reason=f"the topology holds no shard but {running} connectors run; "
            "if that is meant, pass --allow-deletes with their number",
        )
    before = _before(memory)
    if before and not any(picture.topology.shards.values()) and not shrink_is_meant(policy):
        return Refusal(
            scope="platform",
            reason=f"the topology holds no shard; at the last pass there were {before}; "
            "look whether `zookeeper_root` is the right one; if that is meant, pass --accept-shrink",
        )
    return None


def _before(memory: Memory) -> str:
    """What the last pass saw, by name; empty when there was nothing."""
    parts = [f"{n} shards of dataset {name}" for name, n in sorted(memory.dataset_sizes.items()) if n]
    parts += [f"{n} connectors in cluster {name}" for name, n in sorted(memory.cluster_sizes.items()) if n]
    return some_of(parts, _NAMED)


def shrink_is_meant(policy: PassPolicy) -> bool:
    """True when a person said that what is gone is meant to be."""
    return policy.accept_shrink or policy.allow_deletes is not None


def lost_clusters(topology: Topology, memory: Memory) -> dict[str, str]:
    """Clusters that had connectors of ours at the last pass and left the topology since, and what to do.

    Nobody watches these connectors any more; a shard that one of them captures must not get a second one.
    """
    off = {problem.name for problem in topology.problems if problem.kind == "cluster"}
    return {
        name: f"it left the topology with {n} connectors, which may still run: what ran before is not created "
        "elsewhere. Put it back with `draining: true`; if it is gone for good, pass --accept-shrink"
        for name, n in sorted(memory.cluster_sizes.items())
        if n and name not in topology.clusters and name not in off
    }


def hidden_clusters(picture: ObservedState, ours: Connectors, memory: Memory, policy: PassPolicy) -> frozenset[str]:
    """Clusters that had connectors of ours at the last pass and cannot be looked at now."""
    hidden = {name for name, n in memory.cluster_sizes.items() if n and name not in ours}
    if shrink_is_meant(policy):
        hidden -= lost_clusters(picture.topology, memory).keys()
    return frozenset(hidden)


def may_run_in(name: str, memory: Memory, hidden: frozenset[str]) -> str | None:
    """The hidden cluster in which the shard may run; None when it ran elsewhere, or never."""
    known = memory.captured.get(name)
    if known is None or not hidden:
        return None
    if known.cluster is None:
        return min(hidden)
    return known.cluster if known.cluster in hidden else None


def shrunk(scope: str, before: int | None, now: int, policy: PassPolicy) -> Refusal | None:
    """A refusal when an inventory is suddenly smaller than the last pass saw it."""
    if before is None or shrink_is_meant(policy):
        return None
    lost = before - now
    if lost > policy.max_deletes and lost > before * policy.shrink_fraction:
        reason = f"{now} now, {before} at the last pass; if that is meant, pass --accept-shrink"
        return Refusal(scope=scope, reason=reason)
    return None


def too_many_deletes(gone: list[DeleteConnector], total: int, policy: PassPolicy) -> Refusal | None:
    """A refusal of all deletes when there are more than the cap."""
    cap = max(policy.max_deletes, int(total * policy.max_delete_fraction))
    if policy.allow_deletes is not None:
        cap = policy.allow_deletes
    if len(gone) <= cap:
        return None
    names = some_of(sorted(d.name for d in gone), _NAMED)
    return Refusal(
        scope="deletes",
        reason=f"{len(gone)} connectors would be deleted ({names}), {cap} are allowed; "
        f"if that is meant, pass --allow-deletes {len(gone)}",
    )


def paused(pause: Pause) -> str:
    """Who paused it, why and until when."""
    until = f" until {pause.until:%Y-%m-%d %H:%M}Z" if pause.until else ""
    return f"paused by {pause.author}{until}: {pause.reason}"
