"""The lake's asset in Dagster: what a run of it writes and shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from cdc_platform import wiring
from cdc_platform.defs import build_cdc_assets, build_cdc_jobs, build_lake_assets, build_lake_checks, lake_key
from cdc_platform.defs.latest_checks import latest_evaluations
from cdc_platform.defs.translator import table_props
from cdc_platform.lake.append import append_events
from cdc_platform.lake.current import merge, open_view, replace_buckets
from cdc_platform.lake.policy import LakePolicy
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


def test_lake_check_names_keys_when_run_and_a_run_of_verify_judges_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lake").mkdir()
    (tmp_path / "cache").mkdir()
    policy = LakePolicy(catalog=f"sqlite:///{tmp_path}/lake/c.db", warehouse=f"file://{tmp_path}/lake", buckets=1)
    lake = {"catalog": policy.catalog, "warehouse": policy.warehouse, "buckets": policy.buckets}
    world = WORLDS[str(tmp_path)] = MemoryWorld(tmp_path / "cache", more={"lake": lake})
    monkeypatch.setattr(wiring, "verification_of", lambda platform: replace(world.outside(), platform=platform))
    for key in range(20):
        world.table.put(key, f"row {key}")
    append_events(world.outside(), world.topology, "d", "t", policy)
    merge(policy, "d", "t")
    tables = table_props(world.topology, platform="cdc")
    defs = dg.Definitions(
        assets=[*build_cdc_assets(tables=tables), *build_lake_assets(tables=tables)],
        asset_checks=build_lake_checks(tables=tables),
        resources={"cdc_platform": MemoryResource(config_file=str(tmp_path))},
        jobs=[
            build_cdc_jobs().verify,
            dg.define_asset_job("check", dg.AssetSelection.checks_for_assets("cdc/d/t/lake")),
        ],
    )
    of = dg.AssetCheckKey(lake_key(dg.AssetKey(["cdc", "d", "t"])), "equals_topic")
    with dg.DagsterInstance.ephemeral() as instance:
        config = {"ops": {"plan_verification": {"config": {"dataset": "d"}}}}
        defs.resolve_job_def("cdc_verify").execute_in_process(run_config=config, instance=instance)
        assert evaluation(instance, of).passed
        view = open_view(policy, "d", "t")
        replace_buckets(view, [0], view.bucket(0).slice(1))
        [found] = defs.resolve_job_def("check").execute_in_process(instance=instance).get_asset_check_evaluations()
        assert (found.passed, found.metadata["keys"].value) == (False, "00000: missing 0")
        assert "lake repair d.t --apply" in str(found.metadata["advice"].value)
        defs.resolve_job_def("cdc_verify").execute_in_process(run_config=config, instance=instance)
        assert evaluation(instance, of).description == "0 of 1 shards are the topic's, 1 are not."


def evaluation(instance: dg.DagsterInstance, check: dg.AssetCheckKey) -> dg.AssetCheckEvaluation:
    [record] = latest_evaluations(instance, [check]).values()
    return record.evaluation
