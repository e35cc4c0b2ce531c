"""The lake in memory: what a run writes, the merged view, merges, kills at each point of a commit, two writers."""

from __future__ import annotations

import inspect
import os
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO

from cdc_platform.canonical.columns import Column
from cdc_platform.errors import LakeConflict, LakeHeld, NotFound
from cdc_platform.lake import append
from cdc_platform.lake.append import LakeRun, append_events, due_buckets
from cdc_platform.lake.current import LakeView, merge, open_view
from cdc_platform.lake.policy import LakePolicy
from cdc_platform.lake.proof import LakeVerdict, prove_lake
from cdc_platform.lake.standing import standings
from cdc_platform.lake.tables import LakeState, ShardState, open_tables, write_state
from cdc_platform.model.topology import Engine
from cdc_platform.verification.audit_frame import AuditFrame
from cdc_platform.verification.proof.verdicts import Verdict
from tests.verification.proof.memory import MemoryWorld, event
from tests.verification.proof.test_bad_records import BAD_KEYS, BAD_VALUES


@pytest.fixture
def world(tmp_path: Path) -> MemoryWorld:
    made = MemoryWorld(tmp_path / "cache", shards=("00000", "00001"))
    made.cache.mkdir()
    return made


@pytest.fixture
def policy(tmp_path: Path) -> LakePolicy:
    (tmp_path / "lake").mkdir()
    return LakePolicy(catalog=f"sqlite:///{tmp_path}/lake/catalog.db", warehouse=f"file://{tmp_path}/lake", buckets=4)


def run(world: MemoryWorld, policy: LakePolicy) -> LakeRun:
    return append_events(world.outside(), world.topology, "d", "t", policy)


def rows(view: LakeView) -> dict[tuple[str, int], str]:
    found = [row for table in view.rows() for row in table.to_pylist()]
    assert len({(row["cdc_shard"], row["id"]) for row in found}) == len(found), "each row once"
    return {(row["cdc_shard"], row["id"]): row["title"] for row in found}


def source_rows(world: MemoryWorld) -> dict[tuple[str, int], str]:
    return {(shard, key): title for shard, table in world.tables.items() for key, title in table.rows.items()}


def worked(world: MemoryWorld, turn: int = 0) -> None:
    for table in world.tables.values():
        for key in range(turn, 120 + turn):
            table.put(key, f"{table.shard} {turn} {key}")
        for key in range(turn, 120, 7):
            table.delete(key)


def events(policy: LakePolicy) -> Counter[tuple[int, int]]:
    """Partition and offset of each event of `changes`, and how often it is there."""
    changes = open_tables(policy, "d", "t").changes()
    if changes is None:
        return Counter()
    found = changes.scan().to_arrow()
    return Counter(zip(found["cdc_partition"].to_pylist(), found["cdc_offset"].to_pylist(), strict=True))


def of_the_topic(world: MemoryWorld) -> Counter[tuple[int, int]]:
    return Counter((number, offset) for number, part in enumerate(world.topic.partitions) for offset in part)


def test_lake_run_writes_each_event_once_and_the_view_is_the_source_at_once(
    world: MemoryWorld, policy: LakePolicy
) -> None:
    for turn in range(4):
        worked(world, turn)
        found = run(world, policy)
        assert found.run == turn + 1
        assert rows(open_view(policy, "d", "t")) == source_rows(world)
        assert events(policy) == of_the_topic(world)


def test_lake_run_without_news_makes_no_snapshot(world: MemoryWorld, policy: LakePolicy) -> None:
    worked(world)
    first = run(world, policy)
    again = run(world, policy)
    assert (again.events, again.snapshot) == (0, first.snapshot)


def test_lake_view_goes_by_source_position_across_runs(world: MemoryWorld, policy: LakePolicy) -> None:
    world.topic.append(1, event(1, "new", 9))
    world.topic.append(2, event(2, None, 8, op="d"))
    run(world, policy)
    world.topic.append(1, event(1, "old, sent late by a zombie", 5))
    world.topic.append(2, event(2, "sent again", 6))
    run(world, policy)
    assert rows(open_view(policy, "d", "t")) == {("00000", 1): "new"}
    assert events(policy) == of_the_topic(world)


def test_lake_merge_changes_nothing_of_the_view(world: MemoryWorld, policy: LakePolicy) -> None:
    worked(world)
    run(world, policy)
    assert merge(policy, "d", "t") == [0, 1, 2, 3]
    view = open_view(policy, "d", "t")
    assert rows(view) == source_rows(world)
    assert view.changed() == {}
    assert merge(policy, "d", "t") == []
    world.table.put(5, "one change is not worth it")
    run(world, policy)
    assert merge(policy, "d", "t") == []
    assert rows(open_view(policy, "d", "t")) == source_rows(world)
    worked(world, 3)
    run(world, policy)
    assert merge(policy, "d", "t") == [0, 1, 2, 3]
    assert rows(open_view(policy, "d", "t")) == source_rows(world)


def test_lake_buckets_are_merged_by_their_share_of_changes() -> None:
    assert due_buckets({0: 100, 1: 100}, {0: 20, 1: 19, 2: 1}, 0.2) == [0, 2]


def test_lake_view_of_an_earlier_snapshot_is_the_source_as_it_was(world: MemoryWorld, policy: LakePolicy) -> None:
    was = {}
    for turn in range(3):
        worked(world, turn)
        snapshot = run(world, policy).snapshot
        was[snapshot] = source_rows(world)
        if turn == 1:
            merge(policy, "d", "t")
    for snapshot, expected in was.items():
        assert rows(open_view(policy, "d", "t", snapshot)) == expected


def test_lake_state_names_offsets_and_what_connectors_had_committed(world: MemoryWorld, policy: LakePolicy) -> None:
    worked(world)
    run(world, policy)
    state = open_view(policy, "d", "t").state
    assert state.offsets == {number: world.topic.end(number) for number in range(3)}
    assert {shard: found.position for shard, found in state.shards.items()} == {
        shard: f"0-1-{table.seq}" for shard, table in world.tables.items()
    }


# What a run does to catalog and store, in their order: the calls before or after which it is killed.
POINTS: list[tuple[type[Any], str]] = [
    (PyArrowFileIO, "new_output"),
    (PyArrowFile, "create"),
    (SqlCatalog, "create_table"),
    (SqlCatalog, "_write_metadata"),
    (SqlCatalog, "commit_table"),
]


def killed(work: Callable[[], object], kind: type[Any], name: str, call: int, after: bool) -> bool:
    """Do it in a child that dies at this call, without a word to anybody. True when it came so far."""
    child = os.fork()
    if child == 0:
        real, calls = getattr(kind, name), 0

        def watched(*args: Any, **more: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call and not after:
                os._exit(9)
            found = real(*args, **more)
            if calls == call:
                os._exit(9)
            return found

        static = isinstance(inspect.getattr_static(kind, name), staticmethod)
        setattr(kind, name, staticmethod(watched) if static else watched)
        try:
            work()
        except BaseException:  # noqa: BLE001 -- a child has nobody to raise to
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9), "the child failed by itself"
    return code == 9


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("kind", "name"), POINTS, ids=lambda found: getattr(found, "__name__", found))
def test_lake_run_killed_at_any_point_of_a_commit_loses_and_doubles_nothing(
    world: MemoryWorld, policy: LakePolicy, kind: type[Any], name: str, after: bool
) -> None:
    worked(world)
    kills = 0
    for call in (1, 2, 4):
        seen = events(policy)
        if killed(lambda: run(world, policy), kind, name, call, after):
            kills += 1
            assert events(policy) in (seen, of_the_topic(world)), "half a snapshot"
        run(world, policy)
        assert events(policy) == of_the_topic(world)
        assert rows(open_view(policy, "d", "t")) == source_rows(world)
        worked(world, call)
    assert kills, "no run came to this point"


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_lake_merge_killed_at_any_point_of_a_commit_leaves_the_view_as_it_is(
    world: MemoryWorld, policy: LakePolicy, after: bool
) -> None:
    worked(world)
    run(world, policy)
    kills = 0
    for kind, name in POINTS:
        for call in (1, 2, 4):
            kills += killed(lambda: merge(policy, "d", "t", 0.0), kind, name, call, after)
            assert rows(open_view(policy, "d", "t")) == source_rows(world)
            worked(world, call)
            run(world, policy)
    assert kills > 5


def test_lake_of_two_writers_one_wins_and_the_other_says_so(
    world: MemoryWorld, policy: LakePolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    worked(world)
    run(world, policy)
    worked(world, 1)
    real = write_state

    def meanwhile(*args: Any) -> None:
        monkeypatch.setattr(append, "write_state", real)
        assert run(world, policy).run == 2
        real(*args)

    monkeypatch.setattr(append, "write_state", meanwhile)
    with pytest.raises(LakeConflict, match=r"another writer has committed.*nothing of this run was written"):
        run(world, policy)
    assert events(policy) == of_the_topic(world)
    assert run(world, policy).events == 0
    assert rows(open_view(policy, "d", "t")) == source_rows(world)


def test_lake_takes_a_new_column_and_holds_one_that_changed_its_type(world: MemoryWorld, policy: LakePolicy) -> None:
    worked(world)
    run(world, policy)
    shape = world.table.shape
    for table in world.tables.values():
        table.shape = replace(shape, columns=(*shape.columns, Column(name="n", type="int")))
    worked(world, 1)
    run(world, policy)
    assert open_view(policy, "d", "t").schema.field("n").type == pa.int32()
    assert rows(open_view(policy, "d", "t")) == source_rows(world)
    for table in world.tables.values():
        table.shape = replace(shape, columns=(shape.columns[0], Column(name="title", type="int")))
    worked(world, 2)
    with pytest.raises(LakeHeld, match=r"no longer fits the lake's.*Cure: Rename the lake's tables"):
        run(world, policy)


def test_lake_of_a_topic_that_was_recreated_is_held(world: MemoryWorld, policy: LakePolicy) -> None:
    worked(world)
    run(world, policy)
    world.topic.topic_id = "another"
    with pytest.raises(LakeHeld, match="recreated"):
        run(world, policy)


def test_lake_without_a_run_has_no_rows(policy: LakePolicy) -> None:
    with pytest.raises(NotFound, match=r"the lake has no rows of d.t"):
        open_view(policy, "d", "t")


def verdicts(world: MemoryWorld, policy: LakePolicy) -> dict[str, LakeVerdict]:
    return {found.shard: found for found in prove_lake(world.outside(), world.topology, "d", "t", policy)}


def test_lake_is_proven_against_the_topic_and_pending_while_it_is_behind(
    world: MemoryWorld, policy: LakePolicy
) -> None:
    for turn in range(3):
        worked(world, turn)
        run(world, policy)
        merge(policy, "d", "t")
        found = verdicts(world, policy)
        assert {verdict.verdict for verdict in found.values()} == {Verdict.PROVEN}
        assert sum(verdict.rows for verdict in found.values()) == len(source_rows(world))
    world.table.put(7, "later")
    found = verdicts(world, policy)
    assert (found["00000"].verdict, found["00000"].behind) == (Verdict.PENDING, 1)
    assert found["00001"].verdict is Verdict.PROVEN


def spoilt(policy: LakePolicy, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change the data file of shard 00001's key 30, behind the lake's back."""
    base = open_tables(policy, "d", "t").base()
    assert base is not None
    for task in base.scan().plan_files():
        path = task.file.file_path.removeprefix("file://")
        table = pq.read_table(path)
        at = pc.and_(pc.equal(table["cdc_shard"], "00001"), pc.equal(table["id"], 30))
        if pc.any(at).as_py():
            pq.write_table(change(table), path)
            return
    raise AssertionError("no file has the row")


def one_value(table: pa.Table) -> pa.Table:
    chosen = pc.and_(pc.equal(table["cdc_shard"], "00001"), pc.equal(table["id"], 30))
    titles = pc.if_else(chosen, "spoilt", table["title"])
    at = table.schema.get_field_index("title")
    return table.set_column(at, table.schema.field(at), titles)


def one_row(table: pa.Table) -> pa.Table:
    return table.filter(pc.invert(pc.and_(pc.equal(table["cdc_shard"], "00001"), pc.equal(table["id"], 30))))


@pytest.mark.parametrize(
    ("change", "expected"),
    [(one_value, ("30", "mismatched", ("title",))), (one_row, ("30", "missing", ()))],
    ids=["value", "row"],
)
def test_lake_whose_data_file_was_changed_is_named_by_key_and_column(
    world: MemoryWorld, policy: LakePolicy, change: Callable[[pa.Table], pa.Table], expected: tuple[Any, ...]
) -> None:
    worked(world, 1)
    run(world, policy)
    merge(policy, "d", "t")
    spoilt(policy, change)
    found = verdicts(world, policy)
    assert found["00000"].verdict is Verdict.PROVEN
    assert found["00001"].verdict is Verdict.MISMATCHED
    assert [(sample.key, sample.kind, sample.columns) for sample in found["00001"].samples] == [expected]


def other_type(table: pa.Table) -> pa.Table:
    at = table.schema.get_field_index("title")
    numbers = pa.array(range(len(table)), pa.int64())
    return table.set_column(at, table.schema.field(at).with_type(pa.int64()), numbers)


def test_lake_whose_data_file_has_another_type_is_named_by_key_and_column_and_not_read_by_the_view(
    world: MemoryWorld, policy: LakePolicy
) -> None:
    worked(world, 1)
    run(world, policy)
    merge(policy, "d", "t")
    spoilt(policy, other_type)
    with pytest.raises(LakeHeld, match=r"not of the table's types: Cannot promote long to string.*Cure"):
        rows(open_view(policy, "d", "t"))
    found = verdicts(world, policy)
    wrong = {sample.key for verdict in found.values() for sample in verdict.samples if sample.columns == ("title",)}
    assert "30" in wrong
    base = open_tables(policy, "d", "t").base()
    assert base is not None
    [rows_of_file] = [task.file.record_count for task in base.scan().plan_files() if _has_key_30(task.file.file_path)]
    assert sum(verdict.mismatched for verdict in found.values()) == rows_of_file
    assert all(verdict.missing == verdict.extra == 0 for verdict in found.values())
    [said] = found["00001"].files
    assert said.endswith(("has title as int64, the table as large_string.", "as string."))


def _has_key_30(path: str) -> bool:
    table = pq.read_table(path.removeprefix("file://"))
    return bool(pc.any(pc.and_(pc.equal(table["cdc_shard"], "00001"), pc.equal(table["id"], 30))).as_py())


def test_lake_keeps_the_topics_verdicts_in_the_commit_and_an_old_snapshot_still_has_them(
    world: MemoryWorld, policy: LakePolicy
) -> None:
    frame = AuditFrame(world.outside().platform.settings.audit_dir)
    worked(world)
    frame.write(world.verify_all("first"))
    old = run(world, policy).snapshot
    state = open_view(policy, "d", "t").state
    assert {shard: (kept.verdict, kept.verification) for shard, kept in state.shards.items()} == {
        "00000": ("proven", "first"),
        "00001": ("proven", "first"),
    }
    assert all(kept.proven_to == kept.position for kept in state.shards.values())
    worked(world, 1)
    frame.write(world.verify_all("second"))
    found = standings(Engine.MARIADB, open_view(policy, "d", "t", old).state, frame.latest("d", "t"))
    assert [each.topic_proven_to for each in found] == [each.position for each in found]


def test_lake_keeps_no_verdict_of_positions_that_the_run_does_not_have(world: MemoryWorld, policy: LakePolicy) -> None:
    worked(world)
    AuditFrame(world.outside().platform.settings.audit_dir).write(world.verify_all("ahead"))
    world.table.committed = 3
    run(world, policy)
    view = open_view(policy, "d", "t")
    assert view.state.shards["00000"] == ShardState(position="0-1-3")
    assert next(each.said for each in standings(Engine.MARIADB, view.state, ())) == "not proven"


def test_lake_state_of_before_verdicts_is_read(world: MemoryWorld, policy: LakePolicy) -> None:
    text = b'{"run":3,"topic_id":"id","offsets":{"0":5},"shards":{"00000":{"position":"0-1-7"}},"events":0,"version":1}'
    state = msgspec.json.decode(text, type=LakeState)
    assert [(each.position, each.said) for each in standings(Engine.MARIADB, state, ())] == [("0-1-7", "not proven")]


def test_lake_passes_over_records_that_cannot_be_read_and_its_proof_names_their_keys(
    world: MemoryWorld, policy: LakePolicy
) -> None:
    worked(world)
    run(world, policy)
    for at, value in enumerate(BAD_VALUES.values()):
        world.topic.append(30 + at, value)
    for key in BAD_KEYS.values():
        world.topic.send(key, b"no JSON", 0)
    world.tables["00001"].put(5, "later")
    found = run(world, policy)
    assert found.unreadable >= len(BAD_VALUES) - 1 and found.events >= 1
    verdicts = {one.shard: one for one in prove_lake(world.outside(), world.topology, "d", "t", policy)}
    assert verdicts["00001"].verdict is Verdict.PROVEN
    bad = verdicts["00000"]
    assert bad.verdict is Verdict.MISMATCHED and 0 < bad.mismatched + bad.missing <= len(BAD_VALUES)
