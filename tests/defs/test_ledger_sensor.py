"""A break in a ledger fails its check, and starts one proof of just that shard."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from cdc_platform.defs import build_cdc_jobs, build_ledger_sensor, checks, verification_jobs
from cdc_platform.defs.table_inventory import load_tables
from cdc_platform.verification.audit_frame import AuditFrame
from cdc_platform.verification.continuity.breaks import Break, BreakKind, ShardContinuity
from cdc_platform.verification.continuity.ledger import TableContinuity
from cdc_platform.verification.proof.completeness import ShardRange
from cdc_platform.verification.proof.verdicts import ShardVerdict, Verdict
from tests.defs.harness import Harness, HarnessResource
from tests.defs.test_check_suites import checked, verdict

VERIFY = build_cdc_jobs().verify
FOUND = datetime.now(UTC) - timedelta(minutes=10)
GAP = Break(shard="00001", kind=BreakKind.RESUME, range="GTID domain 0, 6 to 25", found_at=FOUND, run="r9")


def record(harness: Harness, *breaks: Break) -> None:
    """As the ledger writes it."""
    documents = [
        {
            "shard": one.shard,
            "kind": str(one.kind),
            "range": one.range,
            "found_at": one.found_at.isoformat(),
            "run": one.run,
        }
        for one in breaks
    ]
    with harness.platform() as platform:
        platform.state.write({"continuity/pins/pins/00001": {"breaks": documents}})


def tick(harness: Harness, resource: HarnessResource, instance: dg.DagsterInstance) -> list[dg.RunRequest]:
    tables = load_tables(resource=resource).tables
    sensor = build_ledger_sensor(job=VERIFY, tables=tables)
    context = dg.build_sensor_context(instance=instance, resources={"cdc_platform": resource})
    return list(sensor.evaluate_tick(context).run_requests or [])


def test_a_break_starts_one_proof_of_its_shard_until_it_is_proven(
    harness: Harness, resource: HarnessResource, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tick(harness, resource, instance) == []
    record(harness, GAP)
    (request,) = tick(harness, resource, instance)
    assert (tick(harness, resource, instance)[0]).run_key == request.run_key
    assert "GTID domain 0, 6 to 25 was skipped" in request.tags["cdc/breaks"]
    parts: list[ShardRange] = []

    def prove(outside: object, topology: object, part: ShardRange, *, run_id: str) -> tuple[ShardVerdict, ...]:
        parts.append(part)
        return tuple(verdict(shard, run_id=run_id, checked_at=datetime.now(UTC)) for shard in part.shards)

    monkeypatch.setattr(verification_jobs, "verify_shards", prove)
    done = VERIFY.execute_in_process(
        run_config=request.run_config, resources={"cdc_platform": resource}, instance=instance
    )
    assert done.success
    assert [(part.table, part.shards) for part in parts] == [("pins", ("00001",))]
    assert tick(harness, resource, instance) == []
    later = Break(
        shard="00001", kind=BreakKind.RESUME, range="GTID domain 0, 60 to 70", run="r10",
        found_at=datetime.now(UTC) + timedelta(seconds=1),
    )  # fmt: skip
    record(harness, GAP, later)
    (again,) = tick(harness, resource, instance)
    assert again.run_key != request.run_key


def test_a_break_fails_the_check_until_the_shard_is_proven_after_it(
    harness: Harness, resource: HarnessResource, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kept(*args: Any, **kwargs: Any) -> Any:
        shards = [ShardContinuity(shard=f"{n:05d}", checked=9, breaks=(GAP,) if n == 1 else ()) for n in range(3)]
        return type("Duplicates", (), {"shards": ()}), TableContinuity(
            dataset="pins", table="pins", shards=tuple(shards)
        )

    monkeypatch.setattr(checks, "count_and_keep", kept)
    audit = AuditFrame(harness.settings.audit_dir)
    audit.write([verdict(f"{n:05d}", checked_at=FOUND - timedelta(hours=1)) for n in range(3)])
    found = checked(harness, resource, instance, "continuous")["pins", "continuous"]
    assert not found.passed
    assert found.description == "1 of 3 shards fail, first 00001."
    assert found.metadata["breaks"].value == GAP.sentence()
    assert found.metadata["transactions_whole"].value == 27
    audit.write([verdict("00001", Verdict.MISMATCHED, missing=20, checked_at=FOUND + timedelta(seconds=5))])
    assert not checked(harness, resource, instance, "continuous")["pins", "continuous"].passed
    audit.write([verdict("00001", checked_at=FOUND + timedelta(minutes=5))])
    assert checked(harness, resource, instance, "continuous")["pins", "continuous"].passed


def test_a_ledger_that_cannot_be_kept_fails_the_check_and_says_why(
    harness: Harness, resource: HarnessResource, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*args: Any, **kwargs: Any) -> Any:
        return type("Duplicates", (), {"shards": ()}), TableContinuity(
            dataset="pins", table="pins", problem="the dataset has switched transaction metadata off"
        )

    monkeypatch.setattr(checks, "count_and_keep", none)
    found = checked(harness, resource, instance, "continuous")["pins", "continuous"]
    assert not found.passed
    assert found.metadata["problem"].value == "the dataset has switched transaction metadata off"
    assert found.description == "No ledger: the dataset has switched transaction metadata off."
