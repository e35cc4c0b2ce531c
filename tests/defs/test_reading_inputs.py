"""Topics as inputs of assets: forms, shards of the run, what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from cdc_platform import errors
from cdc_platform.clients.platform import Platform
from cdc_platform.defs import (
    CdcPlatformResource,
    CdcTopic,
    CdcTopicIOManager,
    FakeCdcTopicIOManager,
    build_cdc_assets,
    topic_input,
)
from cdc_platform.defs.translator import table_props
from cdc_platform.errors import ExtraMissing
from cdc_platform.settings import Settings
from tests.verification.proof.memory import MemoryWorld

TOPIC = dg.AssetKey(["cdc", "d", "t"])
AXIS = "cdc_d_shards"
SHARDS = dg.DynamicPartitionsDefinition(name=AXIS)


class MemoryResource(CdcPlatformResource):
    """The platform of a world in memory."""

    def settings(self) -> Settings:
        return WORLDS[str(self.config_file)].outside().platform.settings

    @contextmanager
    def platform(self) -> Iterator[Platform]:
        yield WORLDS[str(self.config_file)].outside().platform


WORLDS: dict[str, MemoryWorld] = {}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MemoryWorld:
    made = WORLDS[str(tmp_path)] = MemoryWorld(tmp_path, shards=("00000", "00001"))
    monkeypatch.setattr(topic_input, "verification_of", lambda platform: replace(made.outside(), platform=platform))
    for number, table in enumerate(made.tables.values()):
        for key in range(10 + number):
            table.put(key, f"{table.shard} {key}")
        table.delete(0)
    return made


@pytest.fixture
def resource(tmp_path: Path, world: MemoryWorld) -> MemoryResource:
    return MemoryResource(config_file=str(tmp_path))


def specs(world: MemoryWorld) -> list[dg.AssetSpec]:
    tables = table_props(world.topology, platform="cdc")
    return [spec.with_io_manager_key("cdc_topic") for spec in build_cdc_assets(tables=tables)]


def loaded(
    world: MemoryWorld,
    topics: Any,
    form: Any,
    partitions: dg.PartitionsDefinition[Any] | None = None,
    key: Any = None,
    tags: dict[str, str] | None = None,
) -> Any:
    """What an asset gets that is annotated with the form."""
    got: list[Any] = []

    def consumer(topic) -> None:  # type: ignore[no-untyped-def]
        got.append(topic.read_all() if isinstance(topic, pa.RecordBatchReader) else topic)

    consumer.__annotations__["topic"] = form
    policy = dg.BackfillPolicy.single_run() if tags else None
    asset = dg.asset(ins={"topic": dg.AssetIn(TOPIC)}, partitions_def=partitions, backfill_policy=policy)(consumer)
    job = dg.Definitions(
        assets=[*specs(world), asset],
        resources={"cdc_topic": topics},
        jobs=[dg.define_asset_job("job", dg.AssetSelection.assets("consumer"))],
    ).resolve_job_def("job")
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(AXIS, ["00000", "00001", "00002"])
        job.execute_in_process(instance=instance, partition_key=key, tags=tags)
    return got[0]


def shards(table: pa.Table) -> dict[str, int]:
    counts = table.group_by("cdc_shard").aggregate([("id", "count")]).to_pylist()
    return {row["cdc_shard"]: row["id_count"] for row in counts}


@pytest.mark.parametrize(
    ("form", "count"),
    [
        (pa.RecordBatchReader, lambda found: found.num_rows),
        (pa.Table, lambda found: found.num_rows),
        (pl.DataFrame, lambda found: found.height),
        (pl.LazyFrame, lambda found: found.collect().height),
        (pd.DataFrame, len),
        (duckdb.DuckDBPyRelation, lambda found: len(found.fetchall())),
        (Any, lambda found: found.num_rows),
    ],
    ids=str,
)
def test_reading_an_input_in_the_form_that_it_is_annotated_with(
    world: MemoryWorld, resource: MemoryResource, form: Any, count: Any
) -> None:
    assert count(loaded(world, CdcTopicIOManager(cdc_platform=resource), form)) == 19


def test_reading_an_input_by_the_partition_of_the_run(world: MemoryWorld, resource: MemoryResource) -> None:
    topics = CdcTopicIOManager(cdc_platform=resource)
    assert shards(loaded(world, topics, pa.Table)) == {"00000": 9, "00001": 10}
    assert shards(loaded(world, topics, pa.Table, SHARDS, "00001")) == {"00001": 10}
    days = dg.StaticPartitionsDefinition(["00000"])
    both = dg.MultiPartitionsDefinition({"day": days, "shard": SHARDS})
    key = dg.MultiPartitionKey({"day": "00000", "shard": "00001"})
    assert shards(loaded(world, topics, pa.Table, both, key)) == {"00001": 10}
    assert shards(loaded(world, topics, pa.Table, days, "00000")) == {"00000": 9, "00001": 10}, "another axis"
    ranged = {"dagster/asset_partition_range_start": "00000", "dagster/asset_partition_range_end": "00001"}
    assert shards(loaded(world, topics, pa.Table, SHARDS, tags=ranged)) == {"00000": 9, "00001": 10}


def test_reading_an_input_from_the_fake_picks_shards_alike(world: MemoryWorld) -> None:
    rows = pa.table({"cdc_shard": ["00000", "00001", "00001"], "id": [1, 2, 3]})
    topics = FakeCdcTopicIOManager({"cdc/d/t": rows})
    assert shards(loaded(world, topics, pa.Table)) == {"00000": 1, "00001": 2}
    assert shards(loaded(world, topics, pa.Table, SHARDS, "00001")) == {"00001": 2}
    with pytest.raises(errors.BadInput, match=r"no rows for cdc/d/t"):
        loaded(world, FakeCdcTopicIOManager({"cdc/d/u": rows}), pa.Table)


def test_reading_an_input_in_an_unknown_form_names_those_that_are_known(
    world: MemoryWorld, resource: MemoryResource
) -> None:
    with pytest.raises(errors.BadInput, match=r"cannot be loaded as builtins.dict.*duckdb.DuckDBPyRelation"):
        loaded(world, CdcTopicIOManager(cdc_platform=resource), dict)


def test_reading_by_the_resource_in_each_form(world: MemoryWorld, resource: MemoryResource) -> None:
    topic = CdcTopic(cdc_platform=resource, dataset="d", table="t")
    assert topic.batches().read_all().num_rows == 19
    assert topic.polars(["00000"]).height == 9
    assert sorted(topic.pandas(["00001"])["id"]) == list(range(1, 11))
    relation = topic.duckdb()
    assert (
        relation.filter("cdc_shard = '00001'").count("*").fetchall()
        == relation.filter("cdc_shard = '00001'").count("*").fetchall()
        == [(10,)]
    )
    since = {shard: str(table.position()) for shard, table in world.tables.items()}
    world.table.put(3, "changed")
    assert [row["title"] for row in topic.changes(since).read_all().to_pylist()] == ["changed"]


def test_reading_without_the_extra_is_refused_in_a_sentence(
    world: MemoryWorld, resource: MemoryResource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errors, "_installed", lambda name: name != "polars")
    topic = CdcTopic(cdc_platform=resource, dataset="d", table="t")
    with pytest.raises(ExtraMissing, match=r"'lake' is not installed: polars missing.*cdc-platform\[lake\]"):
        topic.polars()
    assert topic.batches().read_all().num_rows == 19, "Arrow comes with the package"
