"""A pass works neither against a bootstrap nor against a backfill."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from cdc_platform.model.observed import ObservedConnector
from cdc_platform.model.topology import Cluster, Dataset, Shard
from cdc_platform.planning.actions import CreateConnector, UpdateConnector
from cdc_platform.planning.holds import HoldRecord, keep_snapshot_options
from cdc_platform.planning.inputs import PassPolicy
from cdc_platform.planning.memory import Memory
from cdc_platform.planning.plan import Plan
from cdc_platform.planning.planner import make_plan
from tests.planning.worlds import NOW, WANTED, cluster, config_of, connector, dataset, picture, topology

POLICY = PassPolicy()
HOLD = HoldRecord(run="r1", reason="started anew by bootstrap r1", since=NOW)


def config_with_options(dataset: Dataset, shard: Shard, cluster: Cluster) -> Mapping[str, str]:
    options = {"snapshot.mode": "no_data", "incremental.snapshot.chunk.size": "2048"}
    return {**config_of(dataset, shard, cluster), **options}


WITH_OPTIONS = replace(WANTED, config_of=config_with_options)


def planned_for(seen: dict[str, ObservedConnector], memory: Memory, shards: int = 2) -> Plan:
    return make_plan(picture(topology([(dataset(), shards)]), {"main": seen}), WITH_OPTIONS, memory, POLICY).plan


def seen(state: str = "RUNNING", **options: str) -> dict[str, ObservedConnector]:
    ideal = topology([(dataset(), 2)])
    found = {}
    for d, s in ideal.all_shards():
        config = {**config_with_options(d, s, cluster()), **{k.replace("_", "."): v for k, v in options.items()}}
        found[s.name] = connector(s.name, config, state=state, task="RUNNING" if state == "RUNNING" else None)
    return found


def test_a_shard_that_is_held_is_left_alone_and_the_finding_names_the_run() -> None:
    found = seen(state="STOPPED")
    plan = planned_for(found, Memory({HoldRecord: {"pins.00000": HOLD}}))
    assert {getattr(a, "name", None) for a in plan.actions} & {"pins.00000", "pins.00001"} == {"pins.00001"}
    assert [f.subject for f in plan.findings] == ["pins.00000"]
    assert "run r1" in plan.findings[0].text


def test_a_held_shard_without_a_connector_gets_none() -> None:
    plan = planned_for({}, Memory({HoldRecord: {"pins.00000": HOLD}}))
    assert [a.name for a in plan.actions if isinstance(a, CreateConnector)] == ["pins.00001"]


@pytest.mark.parametrize("mode", ["initial", "recovery", "no_data"])
def test_the_snapshot_options_of_an_existing_connector_stay(mode: str) -> None:
    found = seen(snapshot_mode=mode, incremental_snapshot_chunk_size="64")
    plan = planned_for(found, Memory())
    assert not [a for a in plan.actions if getattr(a, "name", None)]


def test_another_change_is_made_without_the_snapshot_options() -> None:
    found = seen(snapshot_mode="initial")
    drifted = {name: replace(c, config={**c.config, "heartbeat.interval.ms": "1"}) for name, c in found.items()}
    plan = planned_for(drifted, Memory())
    updates = [a for a in plan.actions if isinstance(a, UpdateConnector)]
    assert updates
    for update in updates:
        assert update.config["snapshot.mode"] == "initial"
        assert set(update.changes) == {"heartbeat.interval.ms"}


def test_nothing_is_copied_when_nothing_differs() -> None:
    wanted = {"snapshot.mode": "no_data", "a": "1"}
    assert keep_snapshot_options(wanted, {"snapshot.mode": "no_data"}) is wanted
    assert keep_snapshot_options(wanted, {}) is wanted
