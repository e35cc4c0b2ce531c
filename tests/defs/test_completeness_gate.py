"""The example of a gate: the Parquet file is not built while `complete` fails, in its run or in any other."""

from __future__ import annotations

import runpy
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cdc_platform.defs import FakeCdcTopicIOManager
from cdc_platform.verification.audit_frame import AuditFrame
from cdc_platform.verification.proof.verdicts import Verdict
from tests.defs.harness import Harness, HarnessResource
from tests.defs.test_check_suites import verdict

EXAMPLE = Path(__file__).parents[2] / "examples" / "downstream" / "definitions.py"
PARQUET = dg.AssetKey(["lake", "pins", "pins"])
COMPLETE = dg.AssetCheckKey(dg.AssetKey(["cdc", "pins", "pins", "audit"]), "complete")


ROWS = pa.table({"cdc_shard": ["00000", "00000"], "id": [1, 2], "n": [9, 0]})


@pytest.fixture
def downstream(resource: HarnessResource, tmp_path: Path) -> dg.Definitions:
    example = runpy.run_path(str(EXAMPLE))
    topics = FakeCdcTopicIOManager({"cdc/pins/pins": ROWS})
    made: dg.Definitions = example["build"](resource, "pins", "pins", tmp_path / "lake" / "pins.parquet", topics)
    return made


def say(harness: Harness, found: Verdict) -> None:
    now = datetime.now(UTC)
    AuditFrame(harness.settings.audit_dir).write([verdict(f"{n:05d}", found, checked_at=now) for n in range(3)])


def run(
    downstream: dg.Definitions, instance: dg.DagsterInstance, selection: dg.AssetSelection
) -> dg.ExecuteInProcessResult:
    job = dg.Definitions(
        assets=downstream.assets,
        asset_checks=downstream.asset_checks,
        resources=downstream.resources,
        jobs=[dg.define_asset_job("all", selection)],
    ).resolve_job_def("all")
    return job.execute_in_process(instance=instance, raise_on_error=False)


def built(result: dg.ExecuteInProcessResult) -> bool:
    return any(event.asset_key == PARQUET for event in result.get_asset_materialization_events())


def both() -> dg.AssetSelection:
    return dg.AssetSelection.assets(PARQUET).without_checks() | dg.AssetSelection.checks(COMPLETE)


def alone() -> dg.AssetSelection:
    return dg.AssetSelection.assets(PARQUET).without_checks()


def test_gate_in_the_same_run(
    downstream: dg.Definitions, harness: Harness, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    say(harness, Verdict.MISMATCHED)
    stopped = run(downstream, instance, both())
    assert not stopped.success
    assert not built(stopped)
    say(harness, Verdict.PROVEN)
    passed = run(downstream, instance, both())
    assert passed.success
    assert built(passed)
    assert pq.read_table(tmp_path / "lake" / "pins.parquet").equals(ROWS)


def test_gate_of_declarative_automation_opens_with_each_proof_and_is_shut_while_it_fails(
    downstream: dg.Definitions, harness: Harness, instance: dg.DagsterInstance
) -> None:
    cursor = None

    def asked() -> int:
        nonlocal cursor
        found = dg.evaluate_automation_conditions(defs=downstream, instance=instance, cursor=cursor)
        cursor = found.cursor
        return found.total_requested

    def judged(found: Verdict) -> None:
        say(harness, found)
        run(downstream, instance, dg.AssetSelection.checks(COMPLETE))

    # As reconcile_sensor leaves them: a table of no shards is nothing to depend on.
    instance.add_dynamic_partitions("cdc_pins_shards", [f"{n:05d}" for n in range(3)])
    # The other critical checks hold it back, too.
    for name in ("shard_count", "no_duplicates", "continuous"):
        fine = dg.AssetCheckEvaluation(asset_key=COMPLETE.asset_key, check_name=name, passed=True, metadata={})
        instance.report_runless_asset_event(fine)
    assert asked() == 0  # never proven
    judged(Verdict.PROVEN)
    assert (asked(), asked()) == (1, 0)
    judged(Verdict.PROVEN)
    assert (asked(), asked()) == (1, 0)
    judged(Verdict.MISMATCHED)
    assert (asked(), asked()) == (0, 0)
    judged(Verdict.PROVEN)
    assert (asked(), asked()) == (1, 0)


@pytest.mark.parametrize("known", [Verdict.PROVEN, Verdict.MISMATCHED], ids=str)
def test_gate_while_a_check_is_under_way_goes_by_the_one_before(
    downstream: dg.Definitions, harness: Harness, instance: dg.DagsterInstance, known: Verdict
) -> None:
    say(harness, known)
    run(downstream, instance, dg.AssetSelection.checks(COMPLETE))
    job = dg.Definitions(
        assets=downstream.assets,
        asset_checks=downstream.asset_checks,
        resources=downstream.resources,
        jobs=[dg.define_asset_job("judge", selection=dg.AssetSelection.checks(COMPLETE))],
    ).resolve_job_def("judge")
    instance.create_run_for_job(job)
    latest = instance.get_latest_asset_check_evaluation_record(COMPLETE)
    assert latest is not None and latest.status.value == "PLANNED"
    assert built(run(downstream, instance, alone())) is (known is Verdict.PROVEN)


def test_gate_across_runs(downstream: dg.Definitions, harness: Harness, instance: dg.DagsterInstance) -> None:
    # Never checked is not known to be right.
    assert not built(run(downstream, instance, alone()))
    say(harness, Verdict.PROVEN)
    assert run(downstream, instance, dg.AssetSelection.checks(COMPLETE)).success
    assert built(run(downstream, instance, alone()))
    say(harness, Verdict.MISMATCHED)
    run(downstream, instance, dg.AssetSelection.checks(COMPLETE))
    stopped = run(downstream, instance, alone())
    assert not stopped.success
    assert not built(stopped)
    say(harness, Verdict.PROVEN)
    run(downstream, instance, dg.AssetSelection.checks(COMPLETE))
    assert built(run(downstream, instance, alone()))
