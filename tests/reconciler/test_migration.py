"""Moving a connector: killed after any step, the next pass goes on; never two run, no offset is lost."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest

from cdc_platform.model.topology import Topology
from tests.reconciler.worlds import KillAt, Killed, World, cluster, dataset, shards

OFFSETS = [{"partition": {"server": "pins.00000"}, "offset": {"file": "bin.1", "pos": 4711, "gtids": "0-1-9"}}]
NAME = "pins.00000"


def moving_world(reason: str) -> World:
    """One connector in `east` that has to go to `west`."""
    world = World("east", "west")
    east, west = cluster("east"), cluster("west")
    one = Topology(datasets={"pins": dataset()}, shards={"pins": shards("pins", 2)}, clusters={"east": east})
    world.put(replace(one, datasets={"pins": dataset(clusters=("east",))}))
    for _ in range(2):
        world.reconcile()
    world.connect["east"].model.commit_offsets(NAME, OFFSETS)
    if reason == "drain":
        world.put(replace(one, clusters={"east": replace(east, draining=True), "west": west}))
    elif reason == "capacity":
        world.put(replace(one, clusters={"east": replace(east, capacity=1), "west": west}))
    else:
        world.put(replace(one, datasets={"pins": dataset(clusters=("west",))}, clusters={"east": east, "west": west}))
    return world


def moved_name(reason: str) -> str:
    return "pins.00001" if reason == "capacity" else NAME


@pytest.mark.parametrize("reason", ["drain", "cluster", "capacity"])
def test_a_moved_connector_takes_its_offsets_along(reason: str) -> None:
    world = moving_world(reason)
    name = moved_name(reason)
    world.connect["east"].model.commit_offsets(name, OFFSETS)
    report = world.reconcile()
    assert not report.failed
    assert world.running(name) == ["west"]
    assert world.connect["west"].offsets(name) == OFFSETS
    assert name not in world.connect["east"].connectors()


@pytest.mark.parametrize("reason", ["drain", "cluster", "capacity"])
@pytest.mark.parametrize("step", range(1, 12))
def test_killed_after_any_step_the_next_passes_finish_the_move(reason: str, step: int) -> None:
    world = moving_world(reason)
    name = moved_name(reason)
    world.connect["east"].model.commit_offsets(name, OFFSETS)
    kill = KillAt(step)

    def after(verb: str, which: str) -> None:
        assert len(world.running(name)) <= 1, f"two run after {verb} {which}"
        held = [cluster for cluster, client in world.connect.items() if _offsets(world, cluster, name)]
        assert held, f"the offsets are gone after {verb} {which}"
        kill(verb, which)

    world.after = after
    with contextlib.suppress(Killed):
        world.reconcile()
    kill.left = 10**9
    for _ in range(3):
        world.reconcile()
    assert world.running(name) == ["west"], kill.done
    assert world.connect["west"].offsets(name) == OFFSETS
    assert name not in world.connect["east"].connectors()


def test_a_drain_that_is_taken_back_in_mid_move_leaves_the_shard_running_where_it_is() -> None:
    world = moving_world("drain")
    kill = KillAt(4)
    world.after = kill
    with pytest.raises(Killed):
        world.reconcile()
    kill.left = 10**9
    store = world.control_plane().topology
    store.put_cluster(cluster("east"))
    for _ in range(3):
        world.reconcile()
    assert len(world.running(NAME)) == 1
    (home,) = world.running(NAME)
    assert world.connect[home].offsets(NAME) == OFFSETS


def test_different_offsets_on_both_sides_are_left_to_a_person() -> None:
    world = moving_world("drain")
    config = world.connect["east"].connectors()[NAME].config
    other = [{"partition": OFFSETS[0]["partition"], "offset": {"file": "bin.1", "pos": 1}}]
    world.connect["west"].create(NAME, dict(config), stopped=True)
    world.connect["west"].model.commit_offsets(NAME, other)
    report = world.reconcile()
    (failed,) = report.failed
    assert "different offsets" in str(failed.error)
    assert world.running(NAME) == []
    assert world.connect["east"].offsets(NAME) == OFFSETS


def _offsets(world: World, cluster: str, name: str) -> bool:
    client = world.connect[cluster]
    return name in client.connectors() and bool(client.offsets(name))
