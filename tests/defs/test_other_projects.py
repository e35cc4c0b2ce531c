"""The platform inside other people's projects: names, selection, development, their own code in it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest
import yaml

from cdc_platform.defs import CdcPlatformComponent, CdcTableProps
from cdc_platform.defs.component import CdcPlatformScaffolder, ScaffoldParams, TableSelectorArgs
from cdc_platform.defs.names import Names
from cdc_platform.defs.reconcile_sensor import reload_hint
from cdc_platform.defs.run_kinds import RunOf
from cdc_platform.settings import Settings
from tests.defs.harness import WORLDS, Harness, HarnessResource, topology


@pytest.fixture
def second(tmp_path: Path) -> Iterator[HarnessResource]:
    """Another platform with the same datasets."""
    name = secrets.token_hex(4)
    WORLDS[name] = found = Harness(
        settings=Settings(platform="eu-west", cache_dir=str(tmp_path / "eu"), audit_dir=str(tmp_path / "eu-audit"))
    )
    found.put(topology())
    yield HarnessResource(config_file=name)
    del WORLDS[name]


def built(resource: HarnessResource, **attributes: object) -> dg.Definitions:
    return dg.build_defs_for_component(CdcPlatformComponent(platform=resource, **attributes))  # type: ignore[arg-type]


def jobs(defs: dg.Definitions) -> set[str]:
    return {name for name in defs.get_repository_def().job_names if not name.startswith("__")}


def test_two_platforms_and_a_job_of_the_users_own_load_together(
    resource: HarnessResource, second: HarnessResource, instance: dg.DagsterInstance
) -> None:
    @dg.job(name="backfill")
    def mine() -> None: ...

    together = dg.Definitions.merge(built(resource), built(second), dg.Definitions(jobs=[mine]))
    dg.Definitions.validate_loadable(together)
    # Runs of single shards are of an asset, not of a job.
    kinds = {str(kind) for kind in RunOf if kind is not RunOf.SHARD}
    assert jobs(together) == {*(f"cdc_{k}" for k in kinds), *(f"eu_west_{k}" for k in kinds), "backfill"}
    sensors = {sensor.name for sensor in together.get_repository_def().sensor_defs}
    assert {"reconcile_sensor", "eu_west_reconcile_sensor", "alert_sensor", "eu_west_alert_sensor"} <= sensors
    for job, harness in (("cdc_reconcile", resource), ("eu_west_reconcile", second)):
        assert together.resolve_job_def(job).execute_in_process(instance=instance).success
        world = WORLDS[str(harness.config_file)]
        assert len(world.connect.connectors()) == 5, "each pass works on its own platform"


def test_a_sensor_of_a_second_platform_asks_for_its_own_job(
    second: HarnessResource, instance: dg.DagsterInstance
) -> None:
    defs = built(second)
    sensor = defs.get_repository_def().get_sensor_def("eu_west_reconcile_sensor")
    found = sensor(dg.build_sensor_context(instance=instance, resources={"eu_west_platform": second}))
    assert isinstance(found, dg.SensorResult) and found.run_requests
    run = defs.resolve_job_def("eu_west_reconcile").execute_in_process(
        instance=instance, run_config=found.run_requests[0].run_config
    )
    assert run.success


def test_old_job_names_resolve_where_they_are_asked_for(
    resource: HarnessResource, harness: Harness, instance: dg.DagsterInstance
) -> None:
    before = {"reconcile", "bootstrap", "backfill", "verify", "repair", "checks"}
    assert not before & jobs(built(resource))
    defs = built(resource, old_job_names=True)
    assert before <= jobs(defs)
    old = defs.resolve_job_def("reconcile")
    assert old.tags == defs.resolve_job_def("cdc_reconcile").tags
    assert "cdc_reconcile" in (old.description or "")
    config = {"ops": {"reconcile_pass": {"config": {"reason": "a script of before"}}}}
    assert old.execute_in_process(instance=instance, run_config=config).success
    assert len(harness.connect.connectors()) == 5


def test_a_run_under_an_old_name_keeps_the_next_pass_waiting(
    resource: HarnessResource, instance: dg.DagsterInstance
) -> None:
    defs = built(resource, old_job_names=True)
    old = defs.resolve_job_def("reconcile")
    instance.create_run_for_job(old, status=dg.DagsterRunStatus.STARTED, tags=old.tags)
    sensor = defs.get_repository_def().get_sensor_def("reconcile_sensor")
    found = sensor(dg.build_sensor_context(instance=instance, resources={"cdc_platform": resource}))
    assert isinstance(found, dg.SensorResult)
    assert not found.run_requests and "is STARTED" in str(found.skip_reason)


@pytest.mark.parametrize(("attributes", "on"), [({}, False), ({"allow_dev": True}, True)])
def test_sensors_and_schedules_are_off_in_dev_unless_allowed(
    resource: HarnessResource, monkeypatch: pytest.MonkeyPatch, attributes: dict[str, bool], on: bool
) -> None:
    def states() -> set[str]:
        repository = built(resource, **attributes).get_repository_def()
        sensors = {one.default_status.value for one in repository.sensor_defs}
        return sensors | {one.default_status.value for one in repository.schedule_defs}

    assert states() == {"RUNNING"}
    monkeypatch.setenv("DAGSTER_IS_DEV_CLI", "1")
    assert states() == ({"RUNNING"} if on else {"STOPPED"})


def test_a_selection_leaves_out_tables_and_no_hint_asks_for_them(resource: HarnessResource) -> None:
    chosen = TableSelectorArgs(include=["pins", "orders.*"], exclude=["pins.boards"])
    defs = built(resource, tables=chosen)
    keys = {spec.key.to_user_string() for spec in defs.resolve_all_asset_specs()}
    assert {"cdc/pins/pins", "cdc/orders/orders"} <= keys
    assert not any("boards" in key for key in keys)
    loaded = frozenset({("pins", "pins"), ("orders", "orders")})
    assert reload_hint(loaded, topology(), platform="cdc", chosen=chosen.has) is None
    assert "pins.boards" in str(reload_hint(loaded, topology(), platform="cdc"))


@pytest.mark.parametrize(
    ("include", "exclude", "has"),
    [
        (["*"], [], True),
        (["pins"], [], True),
        (["pins.pins"], [], True),
        (["pins.*"], ["*.pins"], False),
        (["orders"], [], False),
        (["p"], [], False),
        ([], [], False),
        (["*"], ["pins"], False),
    ],
)
def test_patterns_are_of_the_dataset_or_of_both(include: list[str], exclude: list[str], has: bool) -> None:
    assert TableSelectorArgs(include=include, exclude=exclude).has("pins", "pins") is has


class Renamed(CdcPlatformComponent):
    def get_asset_spec(self, props: CdcTableProps) -> dg.AssetSpec:
        return super().get_asset_spec(props).replace_attributes(key=["raw", props.table])


def test_get_asset_spec_of_a_subclass_names_assets_audits_and_checks(resource: HarnessResource) -> None:
    defs = dg.build_defs_for_component(Renamed(platform=resource))
    keys = {spec.key.to_user_string() for spec in defs.resolve_all_asset_specs()}
    assert {"raw/pins", "raw/pins/audit"} <= keys
    checked = {key.asset_key.to_user_string() for one in defs.asset_checks or () for key in one.check_keys}
    assert "raw/pins/audit" in checked


class Broken(CdcPlatformComponent):
    def get_asset_spec(self, props: CdcTableProps) -> dg.AssetSpec:
        raise KeyError("no such tag")


def test_a_key_error_of_a_users_code_is_raised_and_zookeeper_is_read_once(
    resource: HarnessResource, harness: Harness
) -> None:
    opened = harness.opened
    with pytest.raises(KeyError, match="no such tag"):
        dg.build_defs_for_component(Broken(platform=resource))
    assert harness.opened == opened + 1


def test_scaffolding_takes_addresses_and_otherwise_leaves_them_to_the_environment(tmp_path: Path) -> None:
    assert CdcPlatformScaffolder.get_scaffold_params() is ScaffoldParams
    assert ScaffoldParams().zookeeper.startswith("{{ env.")
    for given, zookeeper in (
        (ScaffoldParams(), ScaffoldParams().zookeeper),
        (ScaffoldParams(zookeeper="zk:1"), "zk:1"),
    ):
        place = tmp_path / zookeeper.strip("{} ").replace(":", "-")
        place.mkdir()
        request = dg.ScaffoldRequest(
            type_name="cdc_platform.defs.CdcPlatformComponent",
            target_path=place,
            scaffold_format="yaml",
            project_root=tmp_path,
            params=given,
        )
        CdcPlatformScaffolder().scaffold(request)
        written = yaml.safe_load((place / "defs.yaml").read_text())
        assert written["attributes"]["platform"]["zookeeper"] == zookeeper


def test_names_of_a_platform_are_names_to_dagster() -> None:
    names = Names("eu-west.1")
    assert (names.job(RunOf.VERIFY), names.of("x"), names.resource) == (
        "eu_west_1_verify", "eu_west_1_x", "eu_west_1_platform"
    )  # fmt: skip
    assert replace(names, platform="cdc").of("x") == "x"
