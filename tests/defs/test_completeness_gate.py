"""The example of a gate: the Parquet file is not built while `complete` fails, in its run or in any other."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
import pytest

from cdc_platform.clients.kafka.topic_records import Batch, TopicBounds
from cdc_platform.verification.audit_frame import AuditFrame
from cdc_platform.verification.proof.verdicts import Verdict
from tests.defs.harness import Harness, HarnessResource
from tests.defs.test_check_suites import verdict

EXAMPLE = Path(__file__).parents[2] / "examples" / "downstream" / "definitions.py"
PARQUET = dg.AssetKey(["lake", "pins", "pins"])
COMPLETE = dg.AssetCheckKey(dg.AssetKey(["cdc", "pins", "pins", "audit"]), "complete")


class Topic:
    """A topic in memory: two rows, one of them changed, and one that is gone."""

    def __init__(self, config: Mapping[str, str], topic: str) -> None:
        rows = [
            (1, {"id": 1, "n": 0}),
            (2, {"id": 2, "n": 0}),
            (1, {"id": 1, "n": 9}),
            (3, {"id": 3, "n": 0}),
            (3, None),
        ]
        self.keys = [json.dumps({"id": number, "shard": "00000"}).encode() for number, _ in rows]
        self.values: Sequence[bytes | None] = [json.dumps({"after": row}).encode() if row else None for _, row in rows]

    def bounds(self) -> TopicBounds:
        return TopicBounds(topic_id="id", partitions={0: (0, len(self.keys))})

    def read(self, partition: int, begin: int, end: int) -> Iterator[Batch]:
        yield Batch(self.keys, self.values, list(range(len(self.keys))))

    def close(self) -> None:
        """Nothing to close."""


@pytest.fixture
def downstream(resource: HarnessResource, tmp_path: Path) -> dg.Definitions:
    example = runpy.run_path(str(EXAMPLE))
    example["build_parquet_asset"].__globals__["TopicRecords"] = Topic
    made: dg.Definitions = example["build"](resource, "pins", "pins", tmp_path / "lake" / "pins.parquet")
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
    rows: list[dict[str, Any]] = pq.read_table(tmp_path / "lake" / "pins.parquet").to_pylist()
    assert sorted(rows, key=lambda row: row["id"]) == [
        {"id": 1, "n": 9, "shard": "00000"},
        {"id": 2, "n": 0, "shard": "00000"},
    ]


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
