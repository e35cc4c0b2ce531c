"""The connectors of the whole platform, read without the rest of a pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from cdc_platform.clients.platform import Platform
from cdc_platform.model.observed import ObservedConnector, ObservedState
from cdc_platform.model.topology import Topology
from cdc_platform.planning.guardrails import split
from cdc_platform.planning.placement import place_observed
from cdc_platform.reconciler.observe import observe_again


def observe_connectors(platform: Platform, topology: Topology) -> ObservedState:
    """The connectors of all clusters, and nothing else; clusters that do not answer are marked so."""
    clusters = observe_again(platform, topology)
    return ObservedState(taken_at=datetime.now(UTC), topology=topology, clusters=clusters, topics=None)


def own_connectors(
    platform: Platform, topology: Topology, clusters: Iterable[str]
) -> dict[str, tuple[str, ObservedConnector]]:
    """Our connectors in these clusters, by name, each with its cluster.

    Raises:
        Unavailable: a cluster does not answer.
    """
    return {
        connector.name: (name, connector)
        for name in sorted(topology.clusters.keys() & set(clusters))
        for connector in platform.connect(topology.clusters[name]).connectors().values()
        if connector.owner == platform.settings.platform
    }


def connector_homes(observed: ObservedState, platform: str) -> Mapping[str, str]:
    """Connector name to the cluster in which it is, or in which a pass would create it. Pure.

    Args:
        observed: topology and clusters.
        platform: the name that our connectors carry.
    """
    ours, strangers, _ = split(observed, platform)
    return place_observed(observed.topology, ours, strangers).homes
