"""Which Connect cluster runs which shard. Pure.

Sticky: a connector stays where it is as long as that cluster may have it.
Deterministic: the same input gives the same answer, whatever its order. New
connectors go where the share of used capacity is lowest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cdc_platform.model.topology import Cluster, Dataset, Shard, Topology
from cdc_platform.planning.guardrails import Connectors


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The answer for all shards.

    `homes` maps a connector name to its cluster. A name that is in `moves` runs
    in `moves[name]` today and leaves it for `homes[name]`. `unplaced` maps a
    name to the reason why nothing is decided for it.
    """

    homes: Mapping[str, str]
    moves: Mapping[str, str]
    unplaced: Mapping[str, str]


def place(
    shards: Sequence[tuple[Dataset, Shard]],
    clusters: Mapping[str, Cluster],
    running: Mapping[str, Sequence[str]],
    unknown: frozenset[str] = frozenset(),
    foreign: Mapping[str, int] | None = None,
) -> Placement:
    """Decide for each shard.

    Args:
        shards: every shard with its dataset.
        clusters: the Connect clusters by name.
        running: the clusters in which a connector of that name exists now.
        unknown: clusters that could not be read: a shard that may live in one is not placed
            elsewhere, so that no connector ever runs twice.
        foreign: connectors per cluster that are not ours; they use capacity too.
    """
    homes: dict[str, str] = {}
    moves: dict[str, str] = {}
    unplaced: dict[str, str] = {}
    load = {name: (foreign or {}).get(name, 0) for name in clusters}
    waiting: list[tuple[str, Dataset, str | None]] = []
    doubled: list[tuple[str, list[str], list[str]]] = []
    ordered = sorted(shards, key=lambda pair: pair[1].name)

    for dataset, shard in ordered:
        name = shard.name
        here = [cluster for cluster in running.get(name, ()) if cluster in clusters]
        allowed = [c for c in dataset.clusters if c in clusters]
        if not allowed:
            unplaced[name] = f"none of its clusters ({', '.join(dataset.clusters)}) exists"
            continue
        if not here:
            blind = sorted(unknown.intersection(allowed))
            if blind:
                unplaced[name] = f"cluster {blind[0]} could not be read and may run it already"
            else:
                waiting.append((name, dataset, None))
            continue
        staying = [cluster for cluster in allowed if cluster in here and not clusters[cluster].draining]
        if len(here) == 1 and not staying:
            load[here[0]] += 1
            waiting.append((name, dataset, here[0]))
        elif len(here) == 1:
            homes[name] = staying[0]
            load[staying[0]] += 1
        else:
            doubled.append((name, here, staying))

    for name, here, staying in doubled:
        # Migrating, or made by hand: it becomes one first, where there is most room, as the migration wanted.
        home = min(staying or here, key=lambda cluster: (load[cluster] / clusters[cluster].capacity, cluster))
        homes[name] = home
        load[home] += 1
        moves[name] = next(cluster for cluster in here if cluster != home)

    _relieve(homes, load, clusters, {s.name: d for d, s in ordered}, unknown, moves)

    for name, dataset, source in waiting:
        target = _lightest(dataset.clusters, load, clusters, unknown)
        if target is None:
            if source is not None:
                homes[name] = source  # nowhere to go: it stays rather than stops
            else:
                unplaced[name] = "all its clusters are full, draining or unreadable"
            continue
        homes[name] = target
        load[target] += 1
        if source is not None:
            load[source] -= 1
            moves[name] = source
    return Placement(homes=homes, moves=moves, unplaced=unplaced)


def place_observed(topology: Topology, ours: Connectors, strangers: Connectors) -> Placement:
    """Decide for each shard of a topology by the connectors that were observed.

    Args:
        topology: all shards and clusters.
        ours: the platform's connectors by cluster and name; a cluster that could not be read is absent.
        strangers: the others, likewise.
    """
    running: dict[str, list[str]] = {}
    for cluster, connectors in ours.items():
        for name in connectors:
            running.setdefault(name, []).append(cluster)
    return place(
        list(topology.all_shards()),
        topology.clusters,
        running,
        unknown=frozenset(topology.clusters) - ours.keys(),
        foreign={cluster: len(connectors) for cluster, connectors in strangers.items()},
    )


def _lightest(
    names: Iterable[str], load: Mapping[str, int], clusters: Mapping[str, Cluster], unknown: frozenset[str]
) -> str | None:
    """Of these clusters that with the least used share; None when no one has room."""
    free = (n for n in names if n in clusters and n not in unknown and not clusters[n].draining)
    rooms = (n for n in free if load[n] < clusters[n].capacity)
    return min(rooms, key=lambda n: (load[n] / clusters[n].capacity, n), default=None)


def _relieve(
    homes: dict[str, str],
    load: dict[str, int],
    clusters: Mapping[str, Cluster],
    datasets: Mapping[str, Dataset],
    unknown: frozenset[str],
    moves: dict[str, str],
) -> None:
    """Move the last connectors (by name) of a cluster over capacity to where there is room."""
    for cluster in sorted(clusters):
        surplus = load[cluster] - clusters[cluster].capacity
        if surplus <= 0 or cluster in unknown:
            continue
        names = sorted((n for n, home in homes.items() if home == cluster and n not in moves), reverse=True)
        for name in names:
            if surplus <= 0:
                break
            target = _lightest(datasets[name].clusters, load, clusters, unknown)
            if target is None:
                continue
            homes[name], moves[name] = target, cluster
            load[target] += 1
            load[cluster] -= 1
            surplus -= 1
