"""Every column type of each engine through to the lake: no difference that is none, and a changed value is named."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from cdc_platform.lake.append import append_events
from cdc_platform.lake.current import merge
from cdc_platform.lake.policy import LakePolicy
from cdc_platform.lake.proof import LakeVerdict, prove_lake
from cdc_platform.lake.tables import open_tables
from cdc_platform.model.topology import Engine
from cdc_platform.verification.proof.verdicts import Verdict
from tests.reading.test_reading_torture import tortured
from tests.verification.proof.harness import Harness, MakeHarness

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("engine", list(Engine))
def test_lake_of_every_type_is_proven_and_a_changed_value_is_named(
    make_harness: MakeHarness, engine: Engine, tmp_path: Path
) -> None:
    harness, _, table = tortured(make_harness, engine)
    (tmp_path / "lake").mkdir()
    policy = LakePolicy(catalog=f"sqlite:///{tmp_path}/lake/c.db", warehouse=f"file://{tmp_path}/lake", buckets=4)
    append_events(harness.outside(), harness.topology, harness.name, "t", policy)
    found = verdict(harness, policy)
    assert (found.verdict, found.rows) == (Verdict.PROVEN, len(table.live)), found
    merge(policy, harness.name, "t")
    assert verdict(harness, policy).verdict is Verdict.PROVEN
    key = changed(policy, harness.name)
    found = verdict(harness, policy)
    assert [(sample.key, sample.kind, sample.columns) for sample in found.samples] == [(str(key), "mismatched", ("i",))]


def verdict(harness: Harness, policy: LakePolicy) -> LakeVerdict:
    [found] = prove_lake(harness.outside(), harness.topology, harness.name, "t", policy)
    return found


def changed(policy: LakePolicy, dataset: str) -> int:
    """Change `i` of one row in a data file of `base`; the row's key."""
    base = open_tables(policy, dataset, "t").base()
    assert base is not None
    path = next(iter(base.scan().plan_files())).file.file_path.removeprefix("file://")
    rows = pq.read_table(path)
    chosen = rows.filter(pc.is_valid(rows["i"]))["id"][0].as_py()
    other = pc.if_else(pc.equal(rows["i"], 7), pa.scalar(8, pa.int32()), pa.scalar(7, pa.int32()))
    at = rows.schema.get_field_index("i")
    values = pc.if_else(pc.equal(rows["id"], chosen), other, rows["i"])
    pq.write_table(rows.set_column(at, rows.schema.field(at), values), path)
    return int(chosen)
