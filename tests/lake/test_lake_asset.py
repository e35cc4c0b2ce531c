"""The lake's asset in Dagster: what a run of it writes and shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from cdc_platform import wiring
from cdc_platform.defs import build_cdc_assets, build_lake_assets
from cdc_platform.defs.translator import table_props
from tests.defs.test_reading_inputs import WORLDS, MemoryResource
from tests.verification.proof.memory import MemoryWorld


def test_lake_asset_takes_what_is_new_and_says_what_was_proven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lake").mkdir()
    (tmp_path / "cache").mkdir()
    lake = {"catalog": f"sqlite:///{tmp_path}/lake/c.db", "warehouse": f"file://{tmp_path}/lake", "buckets": 2}
    world = WORLDS[str(tmp_path)] = MemoryWorld(tmp_path / "cache", more={"lake": lake})
    monkeypatch.setattr(wiring, "verification_of", lambda platform: replace(world.outside(), platform=platform))
    for key in range(20):
        world.table.put(key, f"row {key}")
    tables = table_props(world.topology, platform="cdc")
    job = dg.Definitions(
        assets=[*build_cdc_assets(tables=tables), *build_lake_assets(tables=tables)],
        resources={"cdc_platform": MemoryResource(config_file=str(tmp_path))},
        jobs=[dg.define_asset_job("job", dg.AssetSelection.assets("cdc/d/t/lake"))],
    ).resolve_job_def("job")
    with dg.DagsterInstance.ephemeral() as instance:
        shown = []
        for _ in range(2):
            [event] = job.execute_in_process(instance=instance).get_asset_materialization_events()
            shown.append({name: value.value for name, value in event.materialization.metadata.items()})
    first, again = shown
    assert (first["events"], first["run"], first["buckets_merged"], first["proof"]) == (20, 1, 2, "not proven")
    assert again["events"] == 0
