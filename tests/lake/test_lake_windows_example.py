"""examples/downstream/windows.py: each window that became whole is started and aggregated, once."""

from __future__ import annotations

import runpy
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from cdc_platform import wiring
from cdc_platform.defs.translator import table_props
from cdc_platform.lake.append import append_events
from cdc_platform.lake.policy import LakePolicy
from tests.defs.test_reading_inputs import WORLDS, MemoryResource
from tests.verification.proof.memory import MemoryWorld

EXAMPLE = Path(__file__).parents[2] / "examples" / "downstream" / "windows.py"
HOUR = 3600
TOPIC = dg.AssetKey(["cdc", "d", "t"])


def test_lake_watermark_example_aggregates_each_whole_window_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lake").mkdir()
    (tmp_path / "cache").mkdir()
    lake = {"catalog": f"sqlite:///{tmp_path}/lake/c.db", "warehouse": f"file://{tmp_path}/lake", "buckets": 1}
    more = {"lake": lake, "windows": {"minutes": 60}}
    world = WORLDS[str(tmp_path)] = MemoryWorld(tmp_path / "cache", shards=("00000", "00001"), more=more)

    @contextmanager
    def writer(platform: object) -> Any:
        yield world.state

    monkeypatch.setattr(wiring, "open_windows", writer)
    monkeypatch.setattr(wiring, "verification_of", lambda platform: replace(world.outside(), platform=platform))
    example = runpy.run_path(str(EXAMPLE))
    monkeypatch.setitem(example["build"].__globals__, "load_tables", lambda resource: _Tables(world))
    defs = example["build"](MemoryResource(config_file=str(tmp_path)), "d", "t", tmp_path / "made")
    policy = LakePolicy.of(world.topology.datasets["d"])
    assert policy is not None
    start = 1_780_000_000 // HOUR * HOUR

    with dg.DagsterInstance.ephemeral() as instance:

        def tick(hour: int) -> list[str | None]:
            """windows_sensor in that hour; the windows that it says are whole."""
            monkeypatch.setattr(time, "time", lambda: float(start + hour * HOUR + 5))
            [sensor] = list(defs.sensors or ())
            with dg.build_sensor_context(
                instance, resources={"cdc_platform": MemoryResource(config_file=str(tmp_path))}
            ) as context:
                found = sensor(context)
            for event in found.asset_events:
                instance.report_runless_asset_event(event)
            return [event.partition for event in found.asset_events]

        tick(-1)
        for hour in (0, 1, 2):
            tick(hour)
            for table in world.tables.values():
                for key in range(3 + hour):
                    table.put(key, f"{hour} {key}")
            world.table.delete(0)
            append_events(world.outside(), world.topology, "d", "t", policy)
        assert tick(3), "two windows are whole by now, and the lake has them"
        whole = instance.get_materialized_partitions(dg.AssetKey([*TOPIC.path, "windows"]))
        assert len(whole) == 3
        for name in whole:
            job = defs.resolve_implicit_global_asset_job_def()
            job.get_subset(asset_selection={dg.AssetKey(["activity", "d", "t"])}).execute_in_process(
                instance=instance, partition_key=name
            )
    made = [pl.read_parquet(file).to_dicts() for file in sorted((tmp_path / "made").iterdir())]
    assert made == [
        [
            {"cdc_shard": "00000", "changed": 3 + hour, "deleted": 1},
            {"cdc_shard": "00001", "changed": 3 + hour, "deleted": 0},
        ]
        for hour in (0, 1, 2)
    ]


class _Tables:
    def __init__(self, world: MemoryWorld) -> None:
        self.tables = table_props(world.topology, platform="cdc")
