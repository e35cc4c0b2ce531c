"""The jobs `verify` and `repair`: cut by shard range; what is wrong in the request is one clear sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from cdc_platform.defs import build_cdc_jobs, verification_jobs
from cdc_platform.model.topology import Topology
from cdc_platform.verification.audit_frame import AuditFrame
from cdc_platform.verification.proof.completeness import ShardRange
from cdc_platform.verification.proof.verdicts import ShardVerdict, Verdict
from cdc_platform.verification.repair.reemit import RepairReport
from cdc_platform.verification.repair.repair_plan import RepairPlan, ShardRepair, keys_repair
from tests.defs.harness import Harness, HarnessResource
from tests.defs.test_check_suites import verdict

JOBS = {job.tags["cdc/kind"]: job for job in build_cdc_jobs()}


def run(
    name: str, op: str, resource: HarnessResource, instance: dg.DagsterInstance, **config: Any
) -> dg.ExecuteInProcessResult:
    return JOBS[name].execute_in_process(
        run_config={"ops": {op: {"config": config}}},
        resources={"cdc_platform": resource},
        instance=instance,
        raise_on_error=False,
    )


def failure(result: dg.ExecuteInProcessResult) -> str:
    for event in result.all_events:
        if event.is_step_failure and event.step_failure_data.user_failure_data:
            return str(event.step_failure_data.user_failure_data.description)
    return ""


def test_verify_proves_range_by_range_and_writes_the_audit_frame(
    harness: Harness, resource: HarnessResource, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: list[ShardRange] = []

    def prove(outside: object, topology: object, part: ShardRange, *, run_id: str) -> tuple[ShardVerdict, ...]:
        parts.append(part)
        return tuple(verdict(shard, table=part.table, run_id=run_id) for shard in part.shards)

    monkeypatch.setattr(verification_jobs, "verify_shards", prove)
    done = run("verify", "plan_verification", resource, instance, dataset="pins", range_size=2)
    assert done.success
    assert sorted((part.table, part.shards) for part in parts) == [
        ("boards", ("00000", "00001")),
        ("boards", ("00002",)),
        ("pins", ("00000", "00001")),
        ("pins", ("00002",)),
    ]
    kept = AuditFrame(harness.settings.audit_dir).run("pins", "pins", done.run_id)
    assert [one.shard for one in kept] == ["00000", "00001", "00002"]
    observed = [event.asset_observation_data.asset_observation for event in done.get_asset_observation_events()]
    assert [one.description for one in observed] == ["3 of 3 shards proven."] * 2


def test_repair_looks_only_unless_it_is_told_to_apply_and_tells_the_whole_story(
    harness: Harness, resource: HarnessResource, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = AuditFrame(harness.settings.audit_dir)
    frame.write([verdict("00000"), verdict("00001", Verdict.MISMATCHED, missing=2)])
    looked: list[tuple[str, ...]] = []
    repaired: list[str] = []

    def find(
        outside: object, topology: Topology, dataset: str, table: str, shards: list[str], **more: Any
    ) -> RepairPlan:
        looked.append(tuple(shards))
        plan = keys_repair(topology, dataset, table, {"00001": [("1",), ("2",)]}, run_id=more["run_id"])
        assert plan.shards == (ShardRepair(shard="00001", emit=(("1",), ("2",))),)
        return plan

    def act(outside: object, topology: object, plan: RepairPlan, **more: Any) -> RepairReport:
        repaired.append(plan.run_id)
        return RepairReport(plan=plan, emitted=2, tombstoned=0, proof=(verdict("00001"),), seconds=1.0)

    monkeypatch.setattr(verification_jobs, "find_repair", find)
    monkeypatch.setattr(verification_jobs, "run_repair", act)
    dry = run("repair", "plan_repair", resource, instance, dataset="pins", table="pins")
    assert dry.success
    assert (looked, repaired) == ([("00001",)], [])
    wet = run("repair", "plan_repair", resource, instance, dataset="pins", table="pins", apply=True)
    assert repaired == [f"{wet.run_id}-0"]
    (story,) = [event.asset_observation_data.asset_observation for event in wet.get_asset_observation_events()]
    assert story.description == (
        "Found 2 keys that differ and 0 extra rows; re-emitted 2, removed 0; 1 of 1 shards proven."
    )
    assert "00001: proven" in str(story.metadata["story"].value)


def test_repair_fails_for_a_shard_that_it_could_not_prove(
    resource: HarnessResource, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: dict[str, str] = {}

    def find(outside: object, topology: Topology, *given: object, **more: Any) -> RepairPlan:
        return replace(keys_repair(topology, "pins", "pins", {"00001": [("1",)]}, run_id=more["run_id"]), left=left)

    def act(outside: object, topology: object, plan: RepairPlan, **more: Any) -> RepairReport:
        return RepairReport(plan=plan, emitted=1, tombstoned=0, proof=(verdict("00001"),), seconds=1.0)

    monkeypatch.setattr(verification_jobs, "find_repair", find)
    monkeypatch.setattr(verification_jobs, "run_repair", act)
    asked = {"dataset": "pins", "table": "pins", "shards": ["00001", "00002"], "apply": True}
    assert run("repair", "plan_repair", resource, instance, **asked).success
    left["00002"] = "unverifiable: no key"
    text = failure(run("repair", "plan_repair", resource, instance, **asked))
    assert text.endswith("1 of 2 shards proven; left alone: 00002.")


def test_nothing_known_to_be_wrong_is_nothing_to_repair(
    harness: Harness, resource: HarnessResource, instance: dg.DagsterInstance
) -> None:
    assert run("repair", "plan_repair", resource, instance, dataset="pins", table="pins").success


def test_a_wrong_request_is_one_sentence(
    harness: Harness, resource: HarnessResource, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    wrong = run("verify", "plan_verification", resource, instance, dataset="nobody")
    assert not wrong.success
    assert "there is no dataset 'nobody'" in failure(wrong)
    bad = run("repair", "plan_repair", resource, instance, dataset="pins", table="pins", keys=["1"])
    assert "'1' is not a key" in failure(bad)
