"""What readers by key are left with: rows of nobody, old keys, two spellings of a key, keys in two partitions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cdc_platform.model.positions import MariaDbPosition
from cdc_platform.model.topology import Topology
from cdc_platform.verification.proof.completeness import ShardRange, verify_shards
from cdc_platform.verification.proof.verdicts import EXTRA_KINDS, LEFTOVER, ShardVerdict, Verdict
from tests.verification.proof.memory import MemoryTopic, MemoryWorld, event, key_json


def _world(tmp_path: Path, rows: int = 30, shards: tuple[str, ...] = ("00000",)) -> MemoryWorld:
    world = MemoryWorld(tmp_path, MemoryTopic(by_hash=True), shards=shards)
    for table in world.tables.values():
        for key in range(rows):
            table.put(key, f"row {key}")
    return world


def _named(verdict: ShardVerdict) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for sample in verdict.samples:
        found.setdefault(sample.kind, []).append(sample.key)
    return {kind: sorted(keys) for kind, keys in found.items()}


def _ids(*keys: int) -> list[str]:
    return sorted(f'{{"id": "{key}"}}' for key in keys)


def _removed(world: MemoryWorld, verdict: ShardVerdict) -> None:
    """Tombstones under the bytes and in the partitions that the samples name, as `repair` writes them."""
    for sample in verdict.samples:
        if sample.kind in EXTRA_KINDS:
            assert sample.partition is not None and sample.offset is not None
            key = world.topic.fetch(sample.partition, [sample.offset])[sample.offset][0]
            assert key is not None
            world.topic.send(key, None, sample.partition)


def _by_key(topic: MemoryTopic) -> dict[tuple[int, bytes | None], str]:
    """The topic, folded as a reader by key folds it: partition and key to the row."""
    found: dict[tuple[int, bytes | None], str] = {}
    for number, part in enumerate(topic.partitions):
        for key, value in part.values():
            after = None if value is None else json.loads(value)["after"]
            found.pop((number, key), None)
            if after is not None:
                found[number, key] = after["title"]
    return found


def assert_equal_by_key(world: MemoryWorld) -> None:
    rows = sorted(title for table in world.tables.values() for title in table.rows.values())
    assert sorted(_by_key(world.topic).values()) == rows


def _without(world: MemoryWorld, *gone: str) -> MemoryWorld:
    """The topology lacks these shards from now on."""
    world.shards = tuple(shard for shard in world.shards if shard not in gone)
    return world


def test_rows_of_a_shard_that_is_gone_are_a_finding_of_the_table(tmp_path: Path) -> None:
    world = _world(tmp_path, shards=("00000", "00001", "00002"))
    assert [(one.verdict, one.foreign_rows) for one in world.verify_all("one")] == [(Verdict.PROVEN, 0)] * 3
    world.tables["00001"].delete(5)
    found = _without(world, "00001").verify_all("two")
    assert [(one.verdict, one.foreign_rows, one.foreign_shards) for one in found] == [
        (Verdict.PROVEN, 29, ("00001",))
    ] * 2
    for key in range(30):
        world.topic.send(key_json(key, "00001"), None)
    found = world.verify_all("three")
    assert [(one.verdict, one.foreign_rows, one.foreign_shards) for one in found] == [(Verdict.PROVEN, 0, ())] * 2


def test_foreign_rows_are_counted_whichever_shards_are_asked_for(tmp_path: Path) -> None:
    world = _world(tmp_path, shards=("00000", "00001", "00002"))
    _without(world, "00001")
    part = ShardRange(dataset="d", table="t", shards=("00002",))
    [verdict] = verify_shards(world.outside(), world.topology, part, run_id="one")
    assert (verdict.verdict, verdict.foreign_rows) == (Verdict.PROVEN, 30)
    world.table.committed = 1
    part = ShardRange(dataset="d", table="t", shards=("00000",))
    [verdict] = verify_shards(world.outside(), world.topology, part, run_id="two")
    assert (verdict.verdict, verdict.foreign_rows) == (Verdict.PENDING, None)


def test_a_shard_that_was_added_meanwhile_is_not_foreign(tmp_path: Path) -> None:
    world = _world(tmp_path, shards=("00000", "00001"))
    before = world.topology
    old = Topology(datasets=before.datasets, shards={"d": before.shards["d"][:1]}, clusters=before.clusters)
    [verdict] = verify_shards(world.outside(), old, ShardRange(dataset="d", table="t", shards=("00000",)), run_id="r")
    assert (verdict.verdict, verdict.foreign_rows) == (Verdict.PROVEN, 0)


@pytest.mark.parametrize(
    ("key", "shard"),
    [
        (b'{"id":1}', "?"),
        (b"\x00", "?"),
        (b'{"id":1,"shard":7}', "?"),
        (b'{"id":1,"shard":"A name that no shard may have"}', "?"),
        (b'{"id":"no number","shard":"other"}', "other"),
        (b'{"nothing":1,"shard":"other"}', "other"),
    ],
)
@pytest.mark.parametrize("value", [event(1, "x", 3), b"no JSON"])
def test_records_of_nobody_cost_no_shard_its_verdict_and_are_named(
    tmp_path: Path, key: bytes, shard: str, value: bytes
) -> None:
    world = _world(tmp_path)
    world.topic.send(key, value, 1)
    verdict = world.verify("one")
    assert (verdict.verdict, verdict.foreign_rows, verdict.foreign_shards) == (Verdict.PROVEN, 1, (shard,))
    world.topic.send(key, None, 1)
    verdict = world.verify("two")
    assert (verdict.verdict, verdict.foreign_rows, verdict.foreign_shards) == (Verdict.PROVEN, 0, ())


def test_keys_of_before_the_key_was_changed_are_extra_until_they_are_removed(tmp_path: Path) -> None:
    """The shard's key has another column now; an unmigrated one beside it stays proven."""
    world = _world(tmp_path, rows=0, shards=("00000", "00001"))
    for key in range(8):
        world.topic.send(json.dumps({"tenant": 1, "shard": "00000"} | {"nr": key}).encode(), event(key, "old", key + 1))
    for table in world.tables.values():
        for key in range(10):
            table.put(key, f"row {key}")
    first, second = world.verify_all("one")
    assert (first.verdict, first.missing, first.extra, first.mismatched) == (Verdict.MISMATCHED, 0, 8, 0)
    assert second.verdict is Verdict.PROVEN
    assert _named(first)["extra"] == [json.dumps({"tenant": 1, "shard": "00000", "nr": key}) for key in range(8)]
    _removed(world, first)
    assert [one.verdict for one in world.verify_all("two")] == [Verdict.PROVEN] * 2
    assert_equal_by_key(world)


def test_longer_keys_of_before_are_left_over_beside_the_row(tmp_path: Path) -> None:
    """The other way: the old key had a column more, and names the same row."""
    world = _world(tmp_path, rows=0)
    world.table.put(0, "first")
    for key in range(8):
        world.topic.send(json.dumps({"tenant": 1, "id": key, "shard": "00000"}).encode(), event(key, "old", 1))
    for key in range(10):
        world.table.put(key, f"row {key}")
    world.table.delete(3)
    verdict = world.verify("one")
    assert (verdict.missing, verdict.extra, verdict.mismatched) == (0, 8, 0)
    assert _named(verdict) == {LEFTOVER: _ids(*range(8))}
    assert "8 of the extra under another spelling" in verdict.reason
    _removed(world, verdict)
    assert world.verify("two").verdict is Verdict.PROVEN
    assert_equal_by_key(world)


@pytest.mark.parametrize("compacted", [False, True])
def test_a_key_with_two_spellings_is_never_proven_while_both_live(tmp_path: Path, compacted: bool) -> None:
    """A snapshot spells it otherwise than the stream: the deleted row lives on for readers by key."""
    world = _world(tmp_path)
    other = {key: key_json(key).replace(b": ", b":") for key in range(30)}
    for key in (1, 2, 3):
        world.topic.send(other[key], event(key, world.table.rows[key], 0, op="r", snapshot="incremental"))
    world.table.delete(2)
    world.table.put(3, "newer")
    if compacted:
        part = next(part for part in world.topic.partitions if (key_json(2), None) in part.values())
        for offset in [offset for offset, (key, _) in part.items() if key == key_json(2)]:
            del part[offset]
    verdict = world.verify("one")
    kinds = {"extra": _ids(2), LEFTOVER: _ids(1, 3)} if compacted else {LEFTOVER: _ids(1, 2, 3)}
    assert (verdict.verdict, verdict.missing, verdict.extra, verdict.mismatched) == (Verdict.MISMATCHED, 0, 3, 0)
    assert _named(verdict) == kinds
    _removed(world, verdict)
    assert world.verify("two").verdict is Verdict.PROVEN
    assert_equal_by_key(world)


def test_a_tombstone_of_the_spelling_that_holds_the_row_is_a_missing_row(tmp_path: Path) -> None:
    world = _world(tmp_path)
    other = key_json(1).replace(b": ", b":")
    world.topic.send(other, event(1, "row 1", 0, op="r", snapshot="incremental"), 0)
    world.topic.send(key_json(1), None)
    world.topic.send(other, None, 0)
    verdict = world.verify("one")
    assert _named(verdict) == {"missing": _ids(1)}, _by_key(world.topic)


def test_partitions_that_were_added_leave_old_rows_behind(tmp_path: Path) -> None:
    world = _world(tmp_path, rows=60)
    assert world.verify("one").verdict is Verdict.PROVEN
    world.topic.partitions += [{} for _ in range(4)]
    for key in range(0, 60, 2):
        world.table.put(key, "moved")
    for key in range(0, 60, 10):
        world.table.delete(key)
    # Read anew by a snapshot whose partition has seen nothing of the stream.
    for key in range(1, 9, 2):
        world.topic.append(key, event(key, f"row {key}", 0, op="r", snapshot="incremental"))
    left = len(_by_key(world.topic)) - len(world.table.rows)
    assert left > 20
    verdict = world.verify("two")
    assert (verdict.verdict, verdict.missing, verdict.mismatched) == (Verdict.MISMATCHED, 0, 0)
    assert verdict.extra == left
    for at in range(1 + left // len(verdict.samples)):
        assert (verdict.missing, verdict.mismatched) == (0, 0)
        _removed(world, verdict)
        verdict = world.verify(f"after removal {at}")
    assert verdict.verdict is Verdict.PROVEN
    assert_equal_by_key(world)


@pytest.mark.parametrize("restarts", [False, True])
def test_changes_of_one_row_in_several_gtid_domains_are_in_the_order_of_the_log(tmp_path: Path, restarts: bool) -> None:
    """Numbers of two domains do not compare: 0-1-900 may come before 7-1-3."""
    world = _world(tmp_path, rows=0)
    table = world.table
    sent: list[tuple[int, bytes]] = []
    for step in range(12):
        domain, seq = (0, 900 + step) if step % 2 == 0 else (7, 3 + step)
        table.rows[1], table.rows[step + 2] = f"step {step}", f"step {step}"
        for key in (1, step + 2):
            value = event(key, f"step {step}", seq).replace(f'"0-1-{seq}"'.encode(), f'"{domain}-1-{seq}"'.encode())
            sent.append((key, value))
    for key, value in sent:
        world.topic.append(key, value)
    # Read by a snapshot: its place is that of the highest number, which is another domain's.
    world.topic.append(3, event(3, "step 1", 0, op="r", snapshot="incremental"))
    table.position = lambda: MariaDbPosition.parse("0-1-910,7-1-14")  # type: ignore[method-assign]
    world.offsets = lambda name: [{"partition": {}, "offset": {"gtids": "0-1-910,7-1-14"}}]  # type: ignore[method-assign]
    verdict = world.verify("one")
    assert (verdict.verdict, verdict.warnings) == (Verdict.PROVEN, ()), verdict
    if restarts:
        for key, value in sent[5:]:
            world.topic.append(key, value)
        assert world.verify("two").verdict is Verdict.PROVEN
    del world.topic.partitions[:]
    world.topic.partitions += [{}, {}, {}]
    world.topic.topic_id = "the last change is lost"
    for key, value in sent[:-2]:
        world.topic.append(key, value)
    verdict = world.verify("three")
    assert (verdict.missing, verdict.extra, verdict.mismatched) == (1, 0, 1)
