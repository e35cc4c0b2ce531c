"""Schedules of verifications, and the audit frame as an asset."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import dagster as dg
import pytest

from cdc_platform.defs import build_cdc_jobs, build_verification_schedules, verification_jobs
from cdc_platform.defs.audit_asset import chart, differing
from cdc_platform.defs.schedules import due_shards
from cdc_platform.defs.table_inventory import load_tables
from cdc_platform.verification.audit_frame import AuditFrame
from cdc_platform.verification.proof.completeness import ShardRange
from cdc_platform.verification.proof.verdicts import KeyDifference, ShardVerdict, Verdict
from tests.defs.harness import Harness, HarnessResource, dataset, topology
from tests.defs.test_check_suites import NOW, verdict

JOBS = {job.tags["cdc/kind"]: job for job in build_cdc_jobs()}


def _with_policy(harness: Harness, **policy: Any) -> None:
    found = topology()
    harness.put(replace(found, datasets={**found.datasets, "pins": dataset("pins", verification=policy)}))


def _schedules(resource: HarnessResource) -> dict[str, dg.ScheduleDefinition]:
    tables = load_tables(resource=resource).tables
    return {one.name: one for one in build_verification_schedules(job=JOBS["verify"], tables=tables)}


def _tick(schedule: dg.ScheduleDefinition, resource: HarnessResource) -> dg.RunRequest:
    with dg.build_schedule_context(resources={"cdc_platform": resource}) as context:
        found = schedule(context)
    assert isinstance(found, dg.RunRequest)
    return found


def _config(request: dg.RunRequest) -> dict[str, Any]:
    return dict(request.run_config["ops"]["plan_verification"]["config"])


def test_a_dataset_is_verified_on_the_schedule_of_its_policy(harness: Harness, resource: HarnessResource) -> None:
    _with_policy(harness, schedule="0 3 * * *")
    schedule = _schedules(resource)["verify_pins"]
    assert (schedule.name, schedule.cron_schedule, schedule.execution_timezone) == ("verify_pins", "0 3 * * *", "UTC")
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    assert _config(_tick(schedule, resource)) == {"dataset": "pins", "shards": []}


def test_without_a_schedule_a_seventh_of_the_shards_is_verified_each_night_and_an_empty_one_is_none(
    harness: Harness, resource: HarnessResource
) -> None:
    harness.put(topology(pins=15))
    found = _schedules(resource)
    assert found["verify_pins"].cron_schedule != found["verify_orders"].cron_schedule, "not all at once"
    assert _config(_tick(found["verify_pins"], resource))["shards"] == ["00000", "00001", "00002"]
    _with_policy(harness, schedule="")
    assert _schedules(resource).keys() == {"verify_orders"}


def test_shards_of_a_large_dataset_have_their_turn_one_after_the_other(
    harness: Harness, resource: HarnessResource
) -> None:
    _with_policy(harness, schedule="*/10 * * * *", scheduled_shards=2)
    schedule = _schedules(resource)["verify_pins"]
    frame = AuditFrame(harness.settings.audit_dir)
    turns = []
    for turn in range(3):
        shards = _config(_tick(schedule, resource))["shards"]
        turns.append(shards)
        for table in ("pins", "boards"):
            frame.write([verdict(s, table=table, checked_at=NOW + timedelta(minutes=turn)) for s in shards])
    assert turns[:2] == [["00000", "00001"], ["00000", "00002"]]
    assert {shard for turn in turns[:2] for shard in turn} == {"00000", "00001", "00002"}


def test_who_was_verified_longest_ago_is_due() -> None:
    ages = {"a": 5, "b": 1, "d": 3}
    verdicts = [verdict(shard, checked_at=NOW - timedelta(hours=age)) for shard, age in ages.items()]
    assert due_shards(["a", "b", "c", "d"], verdicts, 2) == ["a", "c"]
    assert due_shards(["a", "b", "c", "d"], verdicts, 9) == ["a", "b", "c", "d"]


def test_a_schedule_that_is_none_is_left_out_and_said(
    harness: Harness, resource: HarnessResource, caplog: pytest.LogCaptureFixture
) -> None:
    _with_policy(harness, schedule="now and then")
    assert _schedules(resource).keys() == {"verify_orders"}
    assert "pins: verification.schedule is left out" in caplog.text


def test_a_policy_that_is_wrong_costs_no_asset(
    harness: Harness, resource: HarnessResource, caplog: pytest.LogCaptureFixture
) -> None:
    _with_policy(harness, schedule=7)
    assert len(load_tables(resource=resource).tables) == 3
    assert "7 is not a value of it" in caplog.text


def test_each_verification_is_a_materialization_of_the_audit_frame(
    harness: Harness, resource: HarnessResource, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = KeyDifference(key='{"id": "7"}', kind="mismatched", columns=("title",), partition=0, offset=5)

    def prove(outside: object, topology: object, part: ShardRange, *, run_id: str) -> tuple[ShardVerdict, ...]:
        return tuple(
            verdict(shard, run_id=run_id, source_rows=100, topic_rows=99, proven_to="0-1-7")
            if shard != "00001"
            else verdict(shard, Verdict.MISMATCHED, run_id=run_id, mismatched=1, samples=(key,), reason="1 mismatched")
            for shard in part.shards
        )

    monkeypatch.setattr(verification_jobs, "verify_shards", prove)
    config = {"dataset": "pins", "tables": ["pins"]}
    done = JOBS["verify"].execute_in_process(
        run_config={"ops": {"plan_verification": {"config": config}}},
        resources={"cdc_platform": resource},
        instance=instance,
    )
    [made] = [event.materialization for event in done.get_asset_materialization_events() if event.asset_key is not None]
    assert made.asset_key == dg.AssetKey(["cdc", "pins", "pins", "audit"])
    numbers = {name: value.value for name, value in made.metadata.items() if isinstance(value.value, int | float)}
    assert numbers["shards"] == 3
    assert (numbers["proven"], numbers["mismatched"], numbers["mismatched_rows"]) == (2, 1, 1)
    assert (numbers["source_rows"], numbers["topic_rows"]) == (200, 198)
    table = made.metadata["positions"]
    assert isinstance(table, dg.TableMetadataValue)
    assert [record.data["shard"] for record in table.records] == ["00001", "00000", "00002"]
    assert made.metadata["keys"].value == '- 00001 mismatched `{"id": "7"}`: title'
    assert "data:image/svg+xml;base64," in str(made.metadata["history"].value)


def test_the_picture_has_a_bar_for_each_run_and_a_part_for_each_verdict() -> None:
    history = [
        verdict(f"{shard:05d}", Verdict.MISMATCHED if shard < run else Verdict.PROVEN, run_id=f"r{run}")
        for run in range(3)
        for shard in range(4)
    ]
    svg = base64.b64decode(chart(history).partition("base64,")[2].rstrip(")")).decode()
    heights = [float(found) for found in re.findall(r'height="([0-9.]+)" fill="#c62828"', svg)]
    # The legend's square is one of them.
    assert [height for height in heights if height != 10] == [33.0, 66.0]
    assert chart([]) == "No run yet."
    assert differing([verdict("00000")]) == ""
