"""Watched connectors as assets: named by the topology, observed when their state changes."""

from __future__ import annotations

from dataclasses import replace

import dagster as dg

from cdc_platform.defs.assets import build_cdc_assets
from cdc_platform.defs.watched_assets import MOST_EVENTS, watched_key, watched_observations, watched_props
from cdc_platform.model.topology import Topology
from cdc_platform.model.watched import WatchedConnector
from cdc_platform.planning.plan import Plan
from cdc_platform.reconciler.report import DatasetHealth, PassReport, ShardDown
from tests.planning import worlds


def watching(count: int) -> Topology:
    watched = {f"shop-{n:03}": WatchedConnector(owners=("team:shop",)) for n in range(count)}
    return worlds.topology([], worlds.cluster(watched=watched))


def report(topology: Topology, *down: str, changed: tuple[str, ...] = ()) -> PassReport:
    faults = tuple(ShardDown(shard=name, state="FAILED", reason="Connect says FAILED") for name in down)
    total = len(topology.clusters["main"].watched)
    health = DatasetHealth(dataset="main", shards=total, up=total - len(down), down=faults)
    return PassReport(
        generation=1,
        taken_at=worlds.NOW,
        plan=Plan(),
        outcomes=(),
        health={},
        captured=(),
        number=1,
        watched={"main": health},
        watched_changed=frozenset(changed),
    )


def test_each_is_an_asset_with_its_owners() -> None:
    specs = {spec.key: spec for spec in build_cdc_assets(tables=(), watched=watched_props(watching(2)))}
    spec = specs[watched_key("cdc", "main", "shop-001")]
    assert (spec.owners, spec.group_name) == (["team:shop"], "watched_connectors")
    assert dg.Definitions(assets=list(specs.values())).resolve_asset_graph()


def test_a_pass_observes_those_whose_state_changed_and_all_when_it_looks_at_all() -> None:
    topology = watching(3)
    seen = report(topology, "main/shop-001", changed=("main/shop-001", "main/released"))
    (event,) = watched_observations(seen, topology, "cdc", whole=False)
    assert (event.asset_key, event.description) == (
        watched_key("cdc", "main", "shop-001"),
        "FAILED: Connect says FAILED.",
    )
    every = watched_observations(seen, topology, "cdc", whole=True)
    assert [event.description == "RUNNING." for event in every] == [False, True, True]
    assert watched_observations(replace(seen, watched_changed=frozenset()), topology, "cdc", whole=False) == []


def test_events_of_one_pass_are_bounded() -> None:
    topology = watching(MOST_EVENTS + 50)
    assert len(watched_observations(report(topology), topology, "cdc", whole=True)) == MOST_EVENTS
