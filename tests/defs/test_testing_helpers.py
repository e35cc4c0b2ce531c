"""`cdc_platform.testing.dagster`: the test of docs/dagster.md, executed, and what topics can be made to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from cdc_platform.defs import audit_key, require_check
from cdc_platform.defs.latest_checks import latest_evaluations
from cdc_platform.errors import BadInput
from cdc_platform.testing.dagster import FakeCdc, FakeTopic, fake_cdc

PAGE = Path(__file__).parents[2] / "docs" / "dagster.md"


def test_dagster_the_documented_test_of_a_users_asset_passes() -> None:
    section = PAGE.read_text().partition("## Test your project")[2].partition("\n## ")[0]
    test, asset = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    names: dict[str, Any] = {"dg": dg, "pa": pa, "require_check": require_check}
    exec(compile(asset + test, str(PAGE), "exec", dont_inherit=True), names)
    assert "assert " in test
    names["test_popular_pins"]()


def result(cdc: FakeCdc, key: dg.AssetKey, check: str) -> dg.AssetCheckEvaluation:
    (found,) = latest_evaluations(cdc.instance, [dg.AssetCheckKey(key, check)]).values()
    return found.evaluation


def test_dagster_failures_and_lag_of_a_fake_topic_fail_their_checks() -> None:
    topic = FakeTopic(dataset="pins", table="pins", rows={"00000": [{"id": 1}], "00001": [{"id": 2}]})
    shards, audit = dg.AssetKey(["cdc", "pins", "shards"]), audit_key(topic.key)
    with fake_cdc(topic) as cdc:
        assert [result(cdc, shards, "captured").passed, result(cdc, audit, "fresh").passed] == [True, True]
        topic.fail("00001", "Access denied")
        topic.lag("00000", 7200.0)
        cdc.report()
        assert result(cdc, shards, "captured").description == "1 of 2 shards up, 1 FAILED."
        assert not result(cdc, audit, "fresh").passed
        topic.recover()
        cdc.report()
        assert result(cdc, shards, "captured").passed
        with pytest.raises(BadInput, match="no shard '9'"):
            topic.put("9", {"id": 3})


def test_dagster_a_partition_of_the_axis_reads_the_rows_of_its_shard() -> None:
    topic = FakeTopic(dataset="pins", table="pins", rows={"00000": [{"id": 1}], "00001": [{"id": 2}]})

    @dg.asset(
        ins={"pins": dg.AssetIn(topic.key)}, partitions_def=dg.DynamicPartitionsDefinition(name="cdc_pins_shards")
    )
    def per_shard(pins: pa.Table) -> list[int]:
        return list(pins["id"].to_pylist())

    with fake_cdc(topic) as cdc:
        found = cdc.materialize(per_shard, partition_key="00001")
        assert found.output_for_node("per_shard") == [2]
