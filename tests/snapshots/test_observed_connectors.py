"""Where the connector of a shard is, or would be created, by the connectors alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from cdc_platform.model.observed import OWNER_KEY, ObservedCluster, ObservedConnector, ObservedState
from cdc_platform.model.topology import Cluster
from cdc_platform.snapshots.observed_connectors import connector_homes
from tests.defs.harness import dataset, topology


def observed(**connectors: tuple[str, ...] | None) -> ObservedState:
    """Clusters by name with the connectors in them; None: it does not answer."""
    names = tuple(connectors)
    clusters = {name: Cluster(name=name, urls=(f"http://{name}:8083",), capacity=10) for name in names}
    return ObservedState(
        taken_at=datetime(2026, 11, 23, tzinfo=UTC),
        topology=replace(topology(datasets={"pins": dataset("pins", clusters=names[:2])}), clusters=clusters),
        clusters={
            name: ObservedCluster(
                name=name,
                connectors=None
                if found is None
                else {
                    one: ObservedConnector(name=one, config={OWNER_KEY: "cdc"}, state="RUNNING", worker="w0:8083")
                    for one in found
                },
            )
            for name, found in connectors.items()
        },
        topics=None,
    )


def homes(**connectors: tuple[str, ...] | None) -> dict[str, str]:
    found = connector_homes(observed(**connectors), "cdc")
    return {name: cluster for name, cluster in found.items() if name.startswith("pins.")}


def test_a_connector_stays_where_it_is_and_a_missing_one_goes_where_there_is_room() -> None:
    assert homes(one=("pins.00000", "pins.00001"), two=()) == {
        "pins.00000": "one",
        "pins.00001": "one",
        "pins.00002": "two",
    }


def test_a_shard_that_may_run_in_a_cluster_that_does_not_answer_has_no_home() -> None:
    assert homes(one=("pins.00000",), two=None) == {"pins.00000": "one"}
