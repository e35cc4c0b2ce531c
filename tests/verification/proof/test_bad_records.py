"""A record that cannot be read costs itself: it is named and counted, and all else is read on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdc_platform.verification.proof.change_events import NO_SHARD
from cdc_platform.verification.proof.verdicts import ShardVerdict, Verdict
from cdc_platform.verification.repair.repair_plan import find_repair
from tests.verification.proof.memory import MemoryWorld, event, key_json

DEEP = b'{"op":"u","x":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
BAD_VALUES = {
    "not JSON": b"no JSON",
    "empty": b"",
    "deep": DEEP,
    "not UTF-8": b'{"op":"\xff"}',
    "null bytes": b"\0" * 40,
    "another schema": b'{"id":3,"title":"x"}',
    "no source": b'{"op":"u","after":{"id":3,"title":"x"}}',
    "an unknown operation": event(3, "x", 9, op="x"),
    "a number beyond all": b'{"op":"u","source":{"gtid":"0-1-9","pos":'
    + b"9" * 400
    + b'},"after":{"id":3,"title":"x"}}',
    "a position beyond all": b'{"op":"u","source":{"gtid":"0-1-' + b"9" * 30 + b'","pos":1},"after":{"id":3}}',
    "a row that is none": b'{"op":"u","source":{"gtid":"0-1-1","pos":1},"after":[5]}',
    "huge": b'{"op":"u","x":"' + b"y" * 8_000_000,
}
BAD_KEYS = {
    "deep": b'{"id":1,"shard":' + b"[" * 200_000,
    "not JSON": b"\0\0\0",
    "not UTF-8": b'{"id":1,"shard":"\xff"}',
    "of no shard": b'{"id":1}',
    "shard is a number": b'{"id":1,"shard":7}',
    "empty": b"",
    "scalar": b"7",
}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[MemoryWorld]:
    world = MemoryWorld(tmp_path, shards=("00000", "00001"))
    for key in range(30):
        world.tables["00000"].put(key, f"row {key}")
        world.tables["00001"].put(key, f"row {key}")
    yield world


def verdicts(world: MemoryWorld) -> dict[str, ShardVerdict]:
    return {one.shard: one for one in world.verify_all()}


def place(world: MemoryWorld, partition: int) -> str:
    return f"record {world.topic.end(partition) - 1} of partition {partition} of cdc.d.t: not readable"


@pytest.mark.parametrize("value", BAD_VALUES.values(), ids=BAD_VALUES)
def test_a_bad_value_costs_its_key_and_a_repair_names_it(world: MemoryWorld, value: bytes) -> None:
    assert {one.verdict for one in verdicts(world).values()} == {Verdict.PROVEN}
    world.topic.append(3, value)
    found = verdicts(world)
    bad, good = found["00000"], found["00001"]
    assert bad.verdict is not Verdict.PROVEN and good.verdict is Verdict.PROVEN and good.warnings == ()
    assert [json.loads(sample.key) for sample in bad.samples] == [{"id": "3"}]
    if bad.verdict is Verdict.UNVERIFIABLE:
        assert place(world, 0) in bad.reason and "1 keys whose last record cannot be read" in bad.reason
        assert any(place(world, 0) in warning for warning in bad.warnings)
    plan = find_repair(world.outside(), world.topology, "d", "t", ["00000", "00001"], run_id="r")
    (repair,) = plan.shards
    assert (repair.shard, repair.emit, repair.extra, plan.left) == ("00000", (("3",),), (), {})


def test_a_bad_value_that_was_followed_by_a_good_one_is_named_and_costs_nothing(world: MemoryWorld) -> None:
    for _ in range(3):
        world.topic.append(3, b"no JSON")
    last = world.topic.end(0) - 1
    world.tables["00000"].put(3, "again")
    found = verdicts(world)
    assert {one.verdict for one in found.values()} == {Verdict.PROVEN}
    (said,) = found["00000"].warnings
    assert f"record {last} of partition 0" in said and "3 such records" in said
    assert found["00001"].warnings == ()


def test_what_is_missing_besides_is_a_mismatch_as_ever(world: MemoryWorld) -> None:
    world.topic.append(3, b"no JSON")
    world.tables["00000"].lose = True
    world.tables["00000"].put(99, "lost")
    found = verdicts(world)["00000"]
    assert (found.verdict, found.missing, found.mismatched) == (Verdict.MISMATCHED, 1, 1)
    assert any(place(world, 0) in warning for warning in found.warnings)


@pytest.mark.parametrize("key", BAD_KEYS.values(), ids=BAD_KEYS)
def test_a_bad_key_is_nobodys_row_and_named_to_all(world: MemoryWorld, key: bytes) -> None:
    world.topic.send(key, event(3, "x", 9), 0)
    world.topic.send(key, b"no JSON", 1)
    found = verdicts(world)
    assert {one.verdict for one in found.values()} == {Verdict.PROVEN}
    for one in found.values():
        assert one.foreign_rows and one.foreign_shards == (NO_SHARD,), "the check `complete` fails by it"
        assert any(f"record {world.topic.end(1) - 1} of partition 1" in warning for warning in one.warnings)


@pytest.mark.parametrize("number", [1 << 64, (1 << 64) + 3, -(1 << 63) - 1, 10**400])
def test_a_key_beyond_64_bits_is_no_other_key(world: MemoryWorld, number: int) -> None:
    world.topic.send(json.dumps({"id": number, "shard": "00000"}).encode(), event(3, "row 3", 4), 0)
    found = verdicts(world)
    assert (found["00000"].verdict, found["00000"].extra, found["00000"].mismatched) == (Verdict.MISMATCHED, 1, 0)
    assert found["00001"].verdict is Verdict.PROVEN


def test_a_record_without_a_key_is_no_row_and_a_truncate_is_its_shards(world: MemoryWorld) -> None:
    world.topic.partitions[0][world.topic.end(0)] = (None, b"no JSON")
    found = verdicts(world)
    assert {one.verdict for one in found.values()} == {Verdict.PROVEN}
    assert all("it has no key" in one.warnings[0] for one in found.values())
    truncate = b'{"op":"t","source":{"name":"d.00001"}}'
    world.topic.partitions[1][world.topic.end(1)] = (None, truncate)
    world.topic.append(4, b"no JSON", "00001")
    found = verdicts(world)
    assert found["00000"].verdict is Verdict.PROVEN
    assert found["00001"].verdict is Verdict.UNVERIFIABLE and "a TRUNCATE" in found["00001"].reason


def test_bad_records_in_all_places_leave_the_other_shard_proven(world: MemoryWorld) -> None:
    for at, value in enumerate((*BAD_VALUES.values(), *BAD_VALUES.values())):
        world.topic.append(at, value)
        world.topic.send(key_json(at), None, at % 3)
    found = verdicts(world)
    assert found["00000"].verdict is not Verdict.PROVEN and found["00001"].verdict is Verdict.PROVEN
