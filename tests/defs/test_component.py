"""The platform as a YAML component."""

from __future__ import annotations

import threading
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster.components.testing import create_defs_folder_sandbox

from cdc_platform.defs import CdcPlatformComponent, load_tables
from cdc_platform.defs.reconcile_sensor import SENSOR
from cdc_platform.defs.table_inventory import cache_file
from tests.defs.harness import Harness, HarnessResource, topology

TYPE = "cdc_platform.defs.CdcPlatformComponent"


def assets(defs: dg.Definitions) -> set[str]:
    return {spec.key.to_user_string() for spec in defs.resolve_all_asset_specs()}


@pytest.fixture
def in_memory(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> Harness:
    """Clients built from settings are those of the harness."""
    monkeypatch.setattr("cdc_platform.wiring.open_platform", lambda settings: harness.platform())
    return harness


def load(attributes: dict[str, Any]) -> dg.Definitions:
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(
            component_cls=CdcPlatformComponent, defs_yaml_contents={"type": TYPE, "attributes": attributes}
        )
        with sandbox.load_component_and_build_defs(defs_path=path) as (component, defs):
            assert isinstance(component, CdcPlatformComponent)
            dg.Definitions.validate_loadable(defs)
            return defs


def test_yaml_gives_assets_sensor_and_job(in_memory: Harness, tmp_path: Path) -> None:
    defs = load({"platform": {"zookeeper": "zk:2181", "cache_dir": str(tmp_path)}, "sensor": {"interval_seconds": 30}})
    tables = {"cdc/orders/orders", "cdc/pins/pins", "cdc/pins/boards"}
    assert assets(defs) == {
        "cdc/platform",
        "cdc/orders/shards",
        "cdc/pins/shards",
        *tables,
        *(f"{table}/audit" for table in tables),
    }
    sensor = defs.get_repository_def().get_sensor_def(SENSOR)
    assert sensor.minimum_interval_seconds == 30
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    assert defs.resolve_job_def("cdc_reconcile").tags["cdc/reconcile"] == "cdc"


def test_yaml_may_leave_everything_to_the_settings(
    in_memory: Harness, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CDC_PLATFORM_CACHE_DIR", str(tmp_path))
    assert "cdc/pins/pins" in assets(load({}))


def test_yaml_may_switch_the_sensor_off(in_memory: Harness, tmp_path: Path) -> None:
    defs = load({"platform": {"cache_dir": str(tmp_path)}, "sensor": {"running": False}})
    sensor = defs.get_repository_def().get_sensor_def(SENSOR)
    assert sensor.default_status is dg.DefaultSensorStatus.STOPPED


def test_yaml_may_make_checks_blocking_and_datasets_verified_by_schedule(in_memory: Harness, tmp_path: Path) -> None:
    found = topology()
    pins = replace(found.datasets["pins"], verification={"schedule": "0 4 * * *"})
    in_memory.put(replace(found, datasets={**found.datasets, "pins": pins}))
    for blocking in (True, False):
        defs = load({"platform": {"cache_dir": str(tmp_path)}, "blocking": blocking})
        specs = {
            (spec.asset_key.path[-2], spec.name): spec
            for checks in defs.asset_checks or ()
            for spec in checks.check_specs
        }
        assert specs["pins", "complete"].blocking is blocking
        assert defs.get_repository_def().get_schedule_def("verify_pins").cron_schedule == "0 4 * * *"


def test_yaml_may_translate_the_assets(in_memory: Harness, tmp_path: Path) -> None:
    defs = load(
        {
            "platform": {"cache_dir": str(tmp_path)},
            "translation": {"key": "raw/{{ props.dataset }}_{{ props.table }}", "tags": {"tier": "gold"}},
        }
    )
    assert {"raw/pins_pins", "raw/pins_boards"} <= assets(defs)
    spec = next(s for s in defs.resolve_all_asset_specs() if s.key.to_user_string() == "raw/pins_pins")
    assert spec.tags["tier"] == "gold" and spec.tags["cdc/dataset"] == "pins"


def test_scaffolding_writes_a_file_that_loads(in_memory: Harness) -> None:
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(component_cls=CdcPlatformComponent)
        text = (path / "defs.yaml").read_text()
        assert TYPE.rpartition(".")[2] in text and "zookeeper" in text
        with sandbox.load_component_and_build_defs(defs_path=path) as (_, defs):
            assert "cdc/pins/pins" in assets(defs)


def test_fields_may_be_environment_variables(
    in_memory: Harness, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MY_CACHE", str(tmp_path / "mine"))
    load({"platform": {"cache_dir": "{{ env.MY_CACHE }}"}})
    assert list((tmp_path / "mine").rglob("*.json"))


def test_a_process_that_is_handed_the_state_does_not_read_zookeeper(
    resource: HarnessResource, harness: Harness, tmp_path: Path
) -> None:
    component = CdcPlatformComponent(platform=resource)
    component.write_state_to_path(tmp_path / "state")
    opened = harness.opened
    harness.zookeeper.down = True
    context = dg.ComponentTree.for_test().load_context
    defs = CdcPlatformComponent(platform=resource).build_defs_from_state(context, tmp_path / "state")
    assert "cdc/pins/pins" in assets(defs)
    assert harness.opened == opened


def test_zookeeper_away_gives_the_last_good_assets_and_says_so(
    resource: HarnessResource, harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    fresh = load_tables(resource=resource)
    assert fresh.problem is None
    harness.zookeeper.down = True
    kept = load_tables(resource=resource)
    assert kept.tables == fresh.tables
    assert kept.problem is not None and "ZooKeeper does not answer" in kept.problem
    assert any("ZooKeeper does not answer" in record.message for record in caplog.records)
    defs = dg.build_defs_for_component(CdcPlatformComponent(platform=resource))
    platform = next(s for s in defs.resolve_all_asset_specs() if s.key.to_user_string() == "cdc/platform")
    assert "ZooKeeper does not answer" in platform.metadata["tables_problem"]


def test_zookeeper_away_from_the_start_gives_sensor_and_job_without_tables(
    resource: HarnessResource, harness: Harness
) -> None:
    harness.zookeeper.down = True
    defs = dg.build_defs_for_component(CdcPlatformComponent(platform=resource))
    assert assets(defs) == {"cdc/platform"}
    dg.Definitions.validate_loadable(defs)
    assert defs.get_repository_def().get_sensor_def(SENSOR)


def test_a_slow_zookeeper_does_not_hold_up_the_load(
    resource: HarnessResource, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    monkeypatch.setattr("cdc_platform.testing.InMemoryTopologyStore.load", lambda self: release.wait(30))
    found = load_tables(resource=resource, deadline=0.1)
    release.set()
    assert found.problem is not None and "took longer than" in found.problem


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"platform": 1}', b"\xff"])
def test_a_garbled_copy_is_ignored(resource: HarnessResource, harness: Harness, text: bytes) -> None:
    file = cache_file(harness.settings)
    file.parent.mkdir(parents=True)
    file.write_bytes(text)
    harness.zookeeper.down = True
    assert load_tables(resource=resource).tables == ()
    harness.zookeeper.down = False
    assert load_tables(resource=resource).tables
    harness.zookeeper.down = True
    assert load_tables(resource=resource).tables


def test_a_malformed_dataset_keeps_its_last_good_tables(resource: HarnessResource, harness: Harness) -> None:
    before = load_tables(resource=resource)
    harness.zookeeper.write("/cdc/datasets/pins", b"{")
    found = load_tables(resource=resource)
    assert found.tables == before.tables
    assert found.problem is not None and "pins" in found.problem
    harness.zookeeper.down = True
    assert load_tables(resource=resource).tables == before.tables


def test_a_new_table_is_an_asset_after_a_reload(resource: HarnessResource, harness: Harness) -> None:
    load_tables(resource=resource)
    harness.put(topology(pins=1))
    wider = topology()
    harness.put(wider)
    assert len(load_tables(resource=resource).tables) == 3


def test_a_cache_that_cannot_be_written_costs_no_load(
    resource: HarnessResource, harness: Harness, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("a file where the directory should be")
    assert load_tables(resource=resource).tables
    assert any("could not be kept" in record.message for record in caplog.records)


def test_dg_finds_the_component() -> None:
    """`dg list components` and `dg scaffold defs` go by this entry point."""
    (entry,) = entry_points(group="dagster_dg_cli.registry_modules", name="cdc_platform")
    assert entry.load().CdcPlatformComponent is CdcPlatformComponent
    assert TYPE.startswith(entry.value)
