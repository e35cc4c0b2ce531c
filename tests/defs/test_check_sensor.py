"""Checks are judged after each verification, and when their verdict grows old."""

from __future__ import annotations

import dagster as dg
import pytest

from cdc_platform.defs import build_cdc_asset_checks, build_check_job, build_check_sensor
from cdc_platform.defs.table_inventory import load_tables
from tests.defs.harness import Harness, HarnessResource

PINS, BOARDS = dg.AssetKey(["cdc", "pins", "pins", "audit"]), dg.AssetKey(["cdc", "pins", "boards", "audit"])


class Checks:
    """The sensor on an instance, and what it has asked for."""

    def __init__(self, resource: HarnessResource, instance: dg.DagsterInstance) -> None:
        self.resource, self.instance = resource, instance
        self.checks = build_cdc_asset_checks(tables=load_tables(resource=resource).tables)
        self.job = build_check_job(checks=self.checks)

    def verified(self, *tables: dg.AssetKey) -> None:
        """As a run of `verify` ends."""
        for table in tables:
            self.instance.report_runless_asset_event(dg.AssetMaterialization(table))

    def judged(self, *tables: dg.AssetKey) -> None:
        """As a run of the job ends."""
        for key in self.checks[0].check_keys:
            if key.asset_key in tables:
                self.instance.report_runless_asset_event(
                    dg.AssetCheckEvaluation(asset_key=key.asset_key, check_name=key.name, passed=True, metadata={})
                )

    def asked(self, cadence_seconds: float = 3600.0) -> dict[dg.AssetKey, set[str]]:
        sensor = build_check_sensor(job=self.job, checks=self.checks, cadence_seconds=cadence_seconds)
        found = sensor.evaluate_tick(dg.build_sensor_context(instance=self.instance))
        wanted: dict[dg.AssetKey, set[str]] = {}
        for request in found.run_requests or ():
            for check in request.asset_check_keys or ():
                wanted.setdefault(check.asset_key, set()).add(check.name)
        return wanted

    def run(self, status: dg.DagsterRunStatus) -> None:
        """A run of the job in this state."""
        defs = dg.Definitions(asset_checks=self.checks, jobs=[self.job], resources={"cdc_platform": self.resource})
        self.instance.create_run_for_job(
            defs.resolve_job_def("cdc_checks"), status=status, tags={"cdc/platform": "cdc", "cdc/kind": "checks"}
        )


@pytest.fixture
def checks(harness: Harness, resource: HarnessResource, instance: dg.DagsterInstance) -> Checks:
    return Checks(resource, instance)


def test_checks_are_judged_after_each_verification(checks: Checks) -> None:
    assert checks.asked() == {}
    checks.verified(PINS)
    wanted = checks.asked()
    assert wanted.keys() == {PINS} and {"complete", "no_duplicates"} <= wanted[PINS]
    checks.judged(PINS)
    assert checks.asked() == {}
    checks.verified(PINS, BOARDS)
    assert checks.asked().keys() == {PINS, BOARDS}


def test_checks_are_asked_for_again_until_they_were_judged_and_one_run_at_a_time(checks: Checks) -> None:
    checks.verified(PINS)
    checks.run(dg.DagsterRunStatus.STARTED)
    assert checks.asked() == {}
    checks.run(dg.DagsterRunStatus.FAILURE)
    assert checks.asked() == {}, "not at once"
    checks.run(dg.DagsterRunStatus.SUCCESS)
    assert checks.asked().keys() == {PINS}, "it judged nothing"


def test_checks_grow_old_without_a_verification(checks: Checks) -> None:
    checks.verified(PINS)
    checks.judged(PINS)
    assert checks.asked(cadence_seconds=0.0).keys() == {PINS}


def test_the_job_of_checks_judges_just_the_tables_asked_for(
    harness: Harness, resource: HarnessResource, instance: dg.DagsterInstance
) -> None:
    checks = build_cdc_asset_checks(tables=load_tables(resource=resource).tables)
    keys = [key for one in checks for key in one.check_keys if key.asset_key == PINS]
    defs = dg.Definitions(
        asset_checks=checks, jobs=[build_check_job(checks=checks)], resources={"cdc_platform": resource}
    )
    job = defs.resolve_job_def("cdc_checks").get_subset(asset_check_selection=set(keys))
    done = job.execute_in_process(instance=instance)
    assert {one.asset_key for one in done.get_asset_check_evaluations()} == {PINS}
