"""Moving a connector: killed after any step, the next pass goes on; never two run, no offset is lost."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest

from cdc_platform.model.topology import Topology
from tests.reconciler.harness import Harness, KillAt, Killed, cluster, dataset, shards

OFFSETS = [{"partition": {"server": "pins.00000"}, "offset": {"file": "bin.1", "pos": 4711, "gtids": "0-1-9"}}]
NAME = "pins.00000"


def moving(reason: str) -> Harness:
    """One connector in `east` that has to go to `west`."""
    harness = Harness("east", "west")
    east, west = cluster("east"), cluster("west")
    one = Topology(datasets={"pins": dataset()}, shards={"pins": shards("pins", 2)}, clusters={"east": east})
    harness.put(replace(one, datasets={"pins": dataset(clusters=("east",))}))
    for _ in range(2):
        harness.reconcile()
    harness.connect["east"].model.commit_offsets(NAME, OFFSETS)
    if reason == "drain":
        harness.put(replace(one, clusters={"east": replace(east, draining=True), "west": west}))
    elif reason == "capacity":
        harness.put(replace(one, clusters={"east": replace(east, capacity=1), "west": west}))
    else:
        harness.put(replace(one, datasets={"pins": dataset(clusters=("west",))}, clusters={"east": east, "west": west}))
    return harness


def moved_name(reason: str) -> str:
    return "pins.00001" if reason == "capacity" else NAME


@pytest.mark.parametrize("reason", ["drain", "cluster", "capacity"])
def test_a_moved_connector_takes_its_offsets_along(reason: str) -> None:
    harness = moving(reason)
    name = moved_name(reason)
    harness.connect["east"].model.commit_offsets(name, OFFSETS)
    report = harness.reconcile()
    assert not report.failed
    assert harness.running(name) == ["west"]
    assert harness.connect["west"].offsets(name) == OFFSETS
    assert name not in harness.connect["east"].connectors()


@pytest.mark.parametrize("reason", ["drain", "cluster", "capacity"])
@pytest.mark.parametrize("step", range(1, 12))
def test_killed_after_any_step_the_next_passes_finish_the_move(reason: str, step: int) -> None:
    harness = moving(reason)
    name = moved_name(reason)
    harness.connect["east"].model.commit_offsets(name, OFFSETS)
    kill = KillAt(step)

    def after(verb: str, which: str) -> None:
        assert len(harness.running(name)) <= 1, f"two run after {verb} {which}"
        held = [cluster for cluster, client in harness.connect.items() if _offsets(harness, cluster, name)]
        assert held, f"the offsets are gone after {verb} {which}"
        kill(verb, which)

    harness.after = after
    with contextlib.suppress(Killed):
        harness.reconcile()
    kill.left = 10**9
    for _ in range(3):
        harness.reconcile()
    assert harness.running(name) == ["west"], kill.done
    assert harness.connect["west"].offsets(name) == OFFSETS
    assert name not in harness.connect["east"].connectors()


def test_a_drain_that_is_taken_back_in_mid_move_leaves_the_shard_running_where_it_is() -> None:
    harness = moving("drain")
    kill = KillAt(4)
    harness.after = kill
    with pytest.raises(Killed):
        harness.reconcile()
    kill.left = 10**9
    store = harness.control_plane().topology
    store.put_cluster(cluster("east"))
    for _ in range(3):
        harness.reconcile()
    assert len(harness.running(NAME)) == 1
    (home,) = harness.running(NAME)
    assert harness.connect[home].offsets(NAME) == OFFSETS


def test_different_offsets_on_both_sides_are_left_to_a_person() -> None:
    harness = moving("drain")
    config = harness.connect["east"].connectors()[NAME].config
    other = [{"partition": OFFSETS[0]["partition"], "offset": {"file": "bin.1", "pos": 1}}]
    harness.connect["west"].create(NAME, dict(config), stopped=True)
    harness.connect["west"].model.commit_offsets(NAME, other)
    report = harness.reconcile()
    (failed,) = report.failed
    assert "different offsets" in str(failed.error)
    assert harness.running(NAME) == []
    assert harness.connect["east"].offsets(NAME) == OFFSETS


def _offsets(harness: Harness, cluster: str, name: str) -> bool:
    client = harness.connect[cluster]
    return name in client.connectors() and bool(client.offsets(name))
