"""Shards as dynamic partitions."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_platform.defs.partitions import diff_partitions, sync_partitions
from cdc_platform.model.topology import Problem
from tests.defs.harness import topology


def test_10_000_shards_are_added_in_one_call_and_not_again(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    add = instance.add_dynamic_partitions

    def counted(partitions_def_name: str, partition_keys: Any) -> None:
        calls.append(len(partition_keys))
        add(partitions_def_name, partition_keys)

    monkeypatch.setattr(instance, "add_dynamic_partitions", counted)
    world = topology(pins=10_000, orders=0)
    sentence = sync_partitions(instance, world, platform="cdc", may_delete=True)
    assert sentence == "Partitions: cdc_pins_shards +10000 -0."
    assert calls == [10_000]
    assert len(instance.get_dynamic_partitions("cdc_pins_shards")) == 10_000
    assert sync_partitions(instance, world, platform="cdc", may_delete=True) is None
    assert calls == [10_000]


def test_a_shard_that_left_the_topology_loses_its_partition(instance: dg.DagsterInstance) -> None:
    sync_partitions(instance, topology(pins=3), platform="cdc", may_delete=True)
    sync_partitions(instance, topology(pins=2), platform="cdc", may_delete=True)
    assert set(instance.get_dynamic_partitions("cdc_pins_shards")) == {"00000", "00001"}


def test_nothing_is_deleted_while_the_picture_is_not_whole(instance: dg.DagsterInstance) -> None:
    sync_partitions(instance, topology(pins=3), platform="cdc", may_delete=True)
    sync_partitions(instance, topology(pins=0), platform="cdc", may_delete=False)
    assert len(instance.get_dynamic_partitions("cdc_pins_shards")) == 3


def test_deletes_are_bounded_for_one_tick() -> None:
    known = {"pins": [f"{n:05d}" for n in range(900)]}
    found = diff_partitions(topology(pins=0), platform="cdc", known=known, may_delete=True, most_deletes=500)
    assert sum(len(change.delete) for change in found) == 500


def test_a_dataset_that_is_gone_gives_up_its_partitions() -> None:
    world = topology(datasets={}, shards={})
    found = diff_partitions(world, platform="cdc", known={"pins": ["00000"]}, may_delete=True)
    assert [(change.axis, change.delete) for change in found] == [("cdc_pins_shards", ("00000",))]


@pytest.mark.parametrize(
    "problem", [Problem("dataset", "pins", "malformed"), Problem("shard", "pins.00007", "malformed")]
)
def test_what_could_not_be_read_keeps_its_partition(problem: Problem) -> None:
    world = topology(problems=(problem,))
    found = diff_partitions(world, platform="cdc", known={"pins": ["00000", "00007"]}, may_delete=True)
    assert not any(change.delete for change in found)


KEYS = st.sets(st.integers(0, 30).map(lambda n: f"{n:05d}"))


@given(known=KEYS, pins=st.integers(0, 20))
def test_applied_diffs_make_the_axis_equal_to_the_topology(known: set[str], pins: int) -> None:
    world = topology(pins=pins, orders=0)
    for change in diff_partitions(world, platform="cdc", known={"pins": known}, may_delete=True):
        assert change.axis == "cdc_pins_shards"
        known = (known | set(change.add)) - set(change.delete)
    assert known == {shard.id for shard in world.shards["pins"]}
    assert diff_partitions(world, platform="cdc", known={"pins": known}, may_delete=True) == ()
