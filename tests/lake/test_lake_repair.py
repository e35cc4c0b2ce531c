"""Rows of the lake that something changed are written again from the topic, and no others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from cdc_platform.lake.current import merge, open_view, replace_buckets
from cdc_platform.lake.policy import LakePolicy
from cdc_platform.lake.repair import LakeRepair, repair_lake
from cdc_platform.verification.proof.verdicts import Verdict
from tests.lake.test_lake import one_row, one_value, other_type, rows, run, source_rows, spoilt, verdicts, worked
from tests.verification.proof.memory import MemoryWorld


@pytest.fixture
def world(tmp_path: Path, policy: LakePolicy) -> MemoryWorld:
    made = MemoryWorld(tmp_path / "cache", shards=("00000", "00001"))
    made.cache.mkdir()
    worked(made, 1)
    run(made, policy)
    merge(policy, "d", "t")
    return made


def repair(world: MemoryWorld, policy: LakePolicy, *, apply: bool = True) -> LakeRepair:
    return repair_lake(world.outside(), world.topology, "d", "t", policy, apply=apply)


@pytest.mark.parametrize(
    ("change", "rewritten"), [(one_value, 1), (one_row, 1), (other_type, 50)], ids=["value", "row", "type"]
)
def test_lake_repair_writes_wrong_rows_again_and_proves_it(
    world: MemoryWorld, policy: LakePolicy, change: Callable[[pa.Table], pa.Table], rewritten: int
) -> None:
    spoilt(policy, change)
    shown = repair(world, policy, apply=False)
    assert shown.rewritten == rewritten if rewritten == 1 else shown.rewritten >= rewritten
    assert any(verdict.verdict is Verdict.MISMATCHED for verdict in verdicts(world, policy).values()), "only shown"
    world.table.put(5, "meanwhile")
    found = repair(world, policy)
    assert (found.rewritten, found.removed, len(found.buckets)) == (shown.rewritten, 0, 1)
    assert {verdict.verdict for verdict in found.verdicts} == {Verdict.PROVEN}
    assert rows(open_view(policy, "d", "t")) == source_rows(world)
    assert repair(world, policy) == LakeRepair(rewritten=0, removed=0)
    worked(world, 2)
    run(world, policy)
    merge(policy, "d", "t")
    assert rows(open_view(policy, "d", "t")) == source_rows(world)


def test_lake_repair_removes_a_row_that_the_topic_does_not_have(world: MemoryWorld, policy: LakePolicy) -> None:
    view = open_view(policy, "d", "t")
    own = view.bucket(0)
    stray = own.slice(0, 1)
    for name, value in (("id", 9_999), ("cdc_key", "9999")):
        at = stray.schema.get_field_index(name)
        stray = stray.set_column(at, stray.schema.field(at), pa.array([value], stray.schema.field(at).type))
    replace_buckets(view, [0], pa.concat_tables([own, stray]))
    assert sum(verdict.extra for verdict in verdicts(world, policy).values()) == 1
    found = repair(world, policy)
    assert (found.rewritten, found.removed, found.buckets) == (0, 1, (0,))
    assert {verdict.verdict for verdict in found.verdicts} == {Verdict.PROVEN}
    assert not pc.any(pc.equal(open_view(policy, "d", "t").bucket(0)["id"], 9_999)).as_py()
