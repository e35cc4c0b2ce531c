"""Import and generations: an older leader never wins, deletes are counted, nothing else is touched."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings

from cdc_platform.documents import Layout
from cdc_platform.documents.edits import (
    Change,
    Edit,
    Stored,
    check_deletes,
    edit_leader,
    edit_pause,
    edit_shard,
    plan_import,
)
from cdc_platform.documents.topology_fields import encode_shard
from cdc_platform.documents.znodes import generation_floor, read_generation_floor, serialize
from cdc_platform.errors import NotFound, PlanRefused, TopologyError
from cdc_platform.model.topology import Address, Cluster, Credentials, Dataset, Engine, Pause, Shard, Table, Topology
from cdc_platform.testing import InMemoryTopologyStore
from tests.documents.strategies import topologies

LAYOUT = Layout()
OLD, NEW = Address("old", 3306), Address("new", 3306)
CLUSTER = Cluster(name="main", urls=("http://c:8083",))
DATASET = Dataset(
    name="pins",
    engine=Engine.MARIADB,
    tables=(Table(name="pins"),),
    clusters=("main",),
    credentials=Credentials(user="${env:U}", password="${env:P}"),
)


def shard(number: int = 0, *, leader: Address = OLD, generation: int = 0, **more: object) -> Shard:
    made = Shard(dataset="pins", id=f"{number:05d}", leader=leader, database="p", generation=generation)
    return replace(made, **more)  # type: ignore[arg-type]


def topology(*shards: Shard, dataset: Dataset = DATASET) -> Topology:
    return Topology(clusters={"main": CLUSTER}, datasets={"pins": dataset}, shards={"pins": shards})


def stored(*shards: Shard) -> InMemoryTopologyStore:
    store = InMemoryTopologyStore()
    store.import_topology(topology(*shards))
    return store


def lines(changes: Iterable[Change]) -> list[str]:
    return [str(change) for change in changes]


@given(topologies())
@settings(max_examples=30, deadline=None)
def test_import_makes_the_store_equal_and_a_second_import_changes_nothing(wanted: Topology) -> None:
    store = InMemoryTopologyStore()
    first = store.import_topology(wanted, dry_run=True)
    assert store.load() == Topology(), "a dry run writes nothing"
    assert store.import_topology(wanted) == first
    assert store.load() == wanted
    assert store.import_topology(wanted) == ()


@given(topologies(), topologies())
@settings(max_examples=30, deadline=None)
def test_a_pruning_import_over_anything_converges(before: Topology, wanted: Topology) -> None:
    store = InMemoryTopologyStore()
    store.import_topology(before)
    store.import_topology(wanted, prune=True)
    found = store.load()
    assert found.datasets.keys() == wanted.datasets.keys()
    assert found.clusters.keys() == wanted.clusters.keys()
    assert {s.name for _, s in found.all_shards()} == {s.name for _, s in wanted.all_shards()}
    again = store.import_topology(wanted, prune=True)
    assert {change.action for change in again} <= {"keep"}


def test_a_change_names_its_fields() -> None:
    store = stored(shard(0), shard(1))
    wanted = topology(shard(0, database="q", replicas=(NEW,)), shard(1))
    assert lines(store.import_topology(wanted)) == ["update shard pins.00000 (database, replicas)"]


def test_shards_absent_from_the_file_are_deleted_and_named() -> None:
    store = stored(shard(0), shard(1), shard(2))
    assert lines(store.import_topology(topology(shard(0)))) == ["delete shard pins.00001", "delete shard pins.00002"]
    assert [s.id for s in store.load().shards["pins"]] == ["00000"]


def test_too_many_deletes_are_refused_and_nothing_is_written() -> None:
    store = stored(*(shard(number) for number in range(9)))
    before = store.load()
    with pytest.raises(PlanRefused, match=r"9 documents would be deleted .*pass --allow-deletes 9"):
        store.import_topology(topology(dataset=replace(DATASET, owners=("me",))), max_deletes=8)
    assert store.load() == before


def test_datasets_absent_from_the_file_are_left_alone_unless_pruned() -> None:
    store = stored(shard(0))
    nothing = Topology(clusters={"main": CLUSTER})
    assert lines(store.import_topology(nothing)) == [
        "keep dataset pins: not in the file, left alone; --prune deletes it"
    ]
    assert store.load().shard("pins", "00000")
    assert lines(store.import_topology(nothing, prune=True)) == ["delete shard pins.00000", "delete dataset pins"]
    assert not store.load().datasets


def test_an_old_file_does_not_move_leaders_back() -> None:
    store = stored(shard(0, database="p"))
    moved = store.set_leader("pins", "00000", NEW)
    assert moved.generation == 1
    changes = store.import_topology(topology(shard(0, database="q")))
    assert [(change.action, change.fields) for change in changes] == [("keep", ()), ("update", ("database",))]
    assert "its leader stays new:3306 (generation 1)" in changes[0].note
    kept = store.load().shard("pins", "00000")
    assert (kept.leader, kept.generation, kept.database) == (NEW, 1, "q")


def test_a_file_with_a_greater_generation_moves_the_leader() -> None:
    store = stored(shard(0, generation=3))
    store.import_topology(topology(shard(0, leader=NEW, generation=4)))
    assert store.load().shard("pins", "00000") == shard(0, leader=NEW, generation=4)


def test_a_pause_outlives_an_import_that_does_not_speak_of_it() -> None:
    store = stored(shard(0))
    pause = Pause(reason="maintenance", author="ann", until=datetime(2030, 1, 1, tzinfo=UTC))
    store.set_pause("pins", None, pause)
    store.set_pause("pins", "00000", pause)
    assert store.import_topology(topology(shard(0))) == ()
    assert store.load().dataset("pins").pause == store.load().shard("pins", "00000").pause == pause


def test_a_malformed_document_is_mended_by_an_import_and_keeps_its_generation() -> None:
    store = stored(shard(0))
    store.zookeeper.write("/cdc/datasets/pins/shards/00000", b'{"leader":"x","generation":7}')
    assert [problem.name for problem in store.load().problems] == ["pins.00000"]
    assert lines(store.import_topology(topology(shard(0)))) == ["update shard pins.00000: what is stored is malformed"]
    assert store.load().shard("pins", "00000").generation == 7


def test_a_shard_made_again_starts_above_its_old_generation() -> None:
    store = stored(shard(0))
    for leader in (NEW, OLD, NEW):
        store.set_leader("pins", "00000", leader)
    store.delete_shard("pins", "00000")
    store.put_shard(shard(0))
    assert store.load().shard("pins", "00000").generation == 4
    store.delete_dataset("pins")
    store.import_topology(topology(shard(0), shard(1)))
    assert {s.generation for s in store.load().shards["pins"]} == {5}
    assert store.import_topology(topology(shard(0), shard(1))) == ()


def test_generation_floor_only_rises() -> None:
    raised = generation_floor(None, [("pins", 3), ("pins", 1)])
    assert read_generation_floor(raised, "pins") == 4
    assert generation_floor(raised, [("pins", 3)]) is None
    assert read_generation_floor(b"garbage", "pins") == read_generation_floor(None, "pins") == 0
    kept = generation_floor(b'{"other": 1, "generation_floor": 1}', [("pins", 0), ("pins", 1)])
    assert kept is not None
    assert json.loads(kept) == {"other": 1, "generation_floor": 1, "generation_floors": {"pins": 2}}


def test_a_changed_leader_raises_the_generation_and_a_stale_shard_is_refused() -> None:
    raw = serialize(encode_shard(shard(0, generation=5)), "")
    written = edit_shard(LAYOUT, raw, shard(0, leader=NEW, generation=5), None)
    assert written is not None and json.loads(written)["generation"] == 6
    with pytest.raises(TopologyError, match="meanwhile changed to old:3306"):
        edit_shard(LAYOUT, raw, shard(0, leader=NEW, generation=4), None)


def test_set_leader_to_the_leader_writes_nothing() -> None:
    raw = serialize(encode_shard(shard(0)), "")
    assert edit_leader(LAYOUT, raw, "pins", "00000", OLD) == (shard(0), None)


def test_edits_of_what_is_absent_or_malformed_are_clear_errors() -> None:
    with pytest.raises(NotFound, match="/cdc/datasets/pins/shards/00000"):
        edit_leader(LAYOUT, None, "pins", "00000", NEW)
    with pytest.raises(TopologyError, match="is no JSON"):
        edit_leader(LAYOUT, b"{", "pins", "00000", NEW)
    with pytest.raises(TopologyError, match="/cdc/datasets/pins: is empty"):
        edit_pause(LAYOUT, b"", "pins", None, None)


def test_a_naive_expiry_is_refused() -> None:
    pause = Pause(reason="r", author="a", until=datetime(2030, 1, 1))
    with pytest.raises(TopologyError, match="no UTC offset"):
        edit_pause(LAYOUT, serialize(encode_shard(shard(0)), ""), "pins", "00000", pause)


def test_edits_come_creates_first_and_delete_the_dataset_after_its_shards() -> None:
    edits = plan_import(LAYOUT, Stored(), topology(shard(0)))
    assert [edit.path for edit in edits] == [
        "/cdc/clusters/main",
        "/cdc/datasets/pins",
        "/cdc/datasets/pins/shards/00000",
    ]
    check_deletes([edit.change for edit in edits], 0)
    assert all(isinstance(edit, Edit) and edit.data for edit in edits)
