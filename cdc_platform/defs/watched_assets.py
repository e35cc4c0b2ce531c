"""Watched connectors as assets: one each, observed when it comes up or goes down."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import dagster as dg

from cdc_platform.defs.translator import TAG_PLATFORM, accepted_owners
from cdc_platform.model.topology import Topology
from cdc_platform.model.watched import WatchedName
from cdc_platform.planning.watched import all_watched
from cdc_platform.reconciler.report import PassReport

GROUP = "watched_connectors"
# An event costs Dagster 11 to 17 ms: the others are observed by the next pass that looks at all.
MOST_EVENTS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedProps:
    """What is known of a watched connector when the code location loads."""

    cluster: str
    connector: str
    owners: tuple[str, ...] = ()


def watched_props(topology: Topology) -> tuple[WatchedProps, ...]:
    """All watched connectors of the topology, by cluster and name."""
    return tuple(
        WatchedProps(cluster=cluster.name, connector=name, owners=cluster.watched[name].owners)
        for _, cluster in sorted(topology.clusters.items())
        for name in sorted(cluster.watched)
    )


def watched_key(platform: str, cluster: str, connector: str) -> dg.AssetKey:
    """The asset of a watched connector."""
    return dg.AssetKey([platform, "watched", cluster, connector])


def watched_specs(watched: Iterable[WatchedProps], platform: str) -> Iterator[dg.AssetSpec]:
    """Their assets: external, like topics."""
    for props in watched:
        yield dg.AssetSpec(
            key=watched_key(platform, props.cluster, props.connector),
            description=(
                f"Connector `{props.connector}` of Connect cluster `{props.cluster}`, made and managed by "
                "another tool. Passes restart what fails of it and leave its config alone; its topics are not proven."
            ),
            group_name=GROUP,
            kinds={"debezium"},
            owners=accepted_owners(props.owners, str(WatchedName(props.cluster, props.connector))),
            tags={TAG_PLATFORM: platform},
            metadata={"connect_cluster": props.cluster, "connector": props.connector},
        )


def watched_observations(report: PassReport, topology: Topology, platform: str, *, whole: bool) -> list[
    dg.AssetObservation
]:  # fmt: skip
    """What a pass tells of watched connectors: of those whose state changed, or of all when it looks at the `whole`."""
    down = {one.shard: one for health in report.watched.values() for one in health.down}
    known = all_watched(topology)
    first = sorted(report.watched_changed & known.keys())
    rest = sorted(known.keys() - report.watched_changed) if whole else []
    found = []
    for name in [*first, *rest][:MOST_EVENTS]:
        cluster, connector = WatchedName(*name.split("/", 1))
        one = down.get(name)
        found.append(
            dg.AssetObservation(
                watched_key(platform, cluster, connector),
                description="RUNNING." if one is None else f"{one.state}: {one.reason}.",
                metadata={"state": "RUNNING" if one is None else one.state, "up": one is None},
            )
        )
    return found
