"""Checks are judged after each verification, once."""

from __future__ import annotations

import dagster as dg

from cdc_platform.defs import build_cdc_asset_checks, build_check_job, build_check_sensor
from cdc_platform.defs.table_inventory import load_tables
from tests.defs.harness import Harness, HarnessResource

PINS, BOARDS = dg.AssetKey(["cdc", "pins", "pins"]), dg.AssetKey(["cdc", "pins", "boards"])


def audited(instance: dg.DagsterInstance, *tables: dg.AssetKey) -> None:
    """As a run of `verify` ends."""
    for table in tables:
        instance.report_runless_asset_event(dg.AssetMaterialization(dg.AssetKey([*table.path, "audit"])))


def test_checks_are_judged_once_after_each_verification(
    harness: Harness, resource: HarnessResource, instance: dg.DagsterInstance
) -> None:
    checks = build_cdc_asset_checks(tables=load_tables(resource=resource).tables)
    job = build_check_job(checks=checks)
    sensor = build_check_sensor(job=job, checks=checks)
    cursor: str | None = None

    def tick() -> dict[dg.AssetKey, set[str]]:
        nonlocal cursor
        found = sensor.evaluate_tick(dg.build_sensor_context(instance=instance, cursor=cursor))
        cursor = found.cursor or cursor
        wanted: dict[dg.AssetKey, set[str]] = {}
        for request in found.run_requests or ():
            for check in request.asset_check_keys or ():
                wanted.setdefault(check.asset_key, set()).add(check.name)
        return wanted

    assert tick() == {}
    audited(instance, PINS)
    wanted = tick()
    assert wanted.keys() == {PINS} and {"complete", "no_duplicates"} <= wanted[PINS]
    assert tick() == {}
    audited(instance, PINS, BOARDS)
    assert tick().keys() == {PINS, BOARDS}
    assert tick() == {}


def test_the_job_of_checks_judges_just_the_tables_asked_for(
    harness: Harness, resource: HarnessResource, instance: dg.DagsterInstance
) -> None:
    checks = build_cdc_asset_checks(tables=load_tables(resource=resource).tables)
    keys = [key for one in checks for key in one.check_keys if key.asset_key == PINS]
    defs = dg.Definitions(
        asset_checks=checks, jobs=[build_check_job(checks=checks)], resources={"cdc_platform": resource}
    )
    job = defs.resolve_job_def("checks").get_subset(asset_check_selection=set(keys))
    done = job.execute_in_process(instance=instance)
    assert {one.asset_key for one in done.get_asset_check_evaluations()} == {PINS}
