"""What each pass says of captured, fresh and recently verified, when it is written, and when it is not."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from cdc_platform.defs import build_captured_checks, build_cdc_asset_checks, load_tables
from cdc_platform.defs.audit_asset import audit_key
from cdc_platform.defs.check_suites import DEFAULT, Suite, suites_for
from cdc_platform.defs.latest_checks import latest_evaluations
from cdc_platform.defs.pass_check_sensor import MOST_FRAMES, build_pass_check_sensor, evaluations
from cdc_platform.defs.pass_checks import CAPTURED, FRESH, RECENTLY, captured, fresh, recently_verified
from cdc_platform.defs.translator import CdcTableProps, shards_key
from cdc_platform.reconciler import last_pass
from cdc_platform.verification.audit_frame import AuditFrame
from tests.defs.harness import Harness, HarnessResource
from tests.defs.test_check_suites import verdict

NOW = datetime.now(UTC)
PINS = dg.AssetKey(["cdc", "pins", "pins", "audit"])
SHARDS = dg.AssetKey(["cdc", "pins", "shards"])


def record(up: int = 3, lag: float | None = 2.0, at: datetime | None = None) -> dict[str, Any]:
    """The record of a pass that saw three shards of pins."""
    quantiles = {} if lag is None else {"0.5": 0.5, "0.9": lag, "0.99": lag, "1.0": lag}
    states = {"RUNNING": up, **({"FAILED": 3 - up} if up < 3 else {})}
    return {
        "at": (at or NOW).isoformat(),
        "datasets": {"pins": {"shards": 3, "up": up, "states": states, "lag_s": quantiles}},
    }


class Judge:
    """The sensor's looks at a platform in memory, and what they wrote."""

    def __init__(self, harness: Harness, resource: HarnessResource, instance: dg.DagsterInstance) -> None:
        self.harness, self.instance = harness, instance
        tables = [one for one in load_tables(resource=resource).tables if one.dataset == "pins"]
        self.tables: Mapping[dg.AssetKey, CdcTableProps] = {
            audit_key(dg.AssetKey(["cdc", one.dataset, one.table])): one for one in tables
        }
        self.suites: Mapping[str, Suite] = suites_for(None, ["pins"])
        self.turn = 0
        # Dagster's clock is the machine's: what is later is said by `look`.
        self.generation = 0

    def says(self, document: Mapping[str, Any]) -> None:
        with self.harness.platform() as platform:
            self.generation += 1
            platform.state.claim(self.generation)
            platform.state.write({last_pass.KEY: dict(document)})

    def look(self, later: timedelta = timedelta()) -> dict[tuple[str, str], bool]:
        with self.harness.platform() as platform:
            events = evaluations(
                self.instance, platform, self.tables, self.suites, datetime.now(UTC) + later, self.turn
            )
        self.turn += 1
        for event in events:
            self.instance.report_runless_asset_event(event)
        return {(event.asset_key.path[-2], event.check_name): event.passed for event in events}

    def proven(self, at: datetime, *tables: str) -> None:
        for table in tables or ("pins", "boards"):
            frame = AuditFrame(self.harness.settings.audit_dir)
            frame.write([verdict(f"{n:05d}", table=table, checked_at=at) for n in range(3)])


@pytest.fixture
def judge(
    harness: Harness, resource: HarnessResource, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> Judge:
    # The module may have been read half an hour ago.
    monkeypatch.setattr(sys.modules[__name__], "NOW", datetime.now(UTC))
    return Judge(harness, resource, instance)


WELL = {("pins", CAPTURED): True, ("pins", FRESH): True, ("boards", FRESH): True}


def test_each_is_written_once_while_nothing_changes_and_again_after_a_day(judge: Judge) -> None:
    judge.says(record())
    judge.proven(NOW)
    assert judge.look() == {**WELL, ("pins", RECENTLY): True, ("boards", RECENTLY): True}
    for minutes in (1, 10, 14):
        judge.says(record(lag=3.0 + minutes, at=NOW + timedelta(minutes=minutes)))
        assert judge.look(timedelta(minutes=minutes)) == {}
    judge.says(record(at=NOW + timedelta(hours=24)))
    assert judge.look(timedelta(hours=24, seconds=5)) == {
        **WELL, ("pins", RECENTLY): True, ("boards", RECENTLY): True
    }  # fmt: skip


def test_a_shard_that_is_down_fails_captured_at_once_and_its_return_passes(judge: Judge) -> None:
    judge.says(record())
    judge.look()
    judge.says(record(up=2))
    assert judge.look() == {("pins", CAPTURED): False}
    newest = latest_evaluations(judge.instance, [dg.AssetCheckKey(SHARDS, CAPTURED)])
    assert next(iter(newest.values())).evaluation.description == "2 of 3 shards up, 1 FAILED."
    judge.says(record())
    assert judge.look() == {("pins", CAPTURED): True}


def test_other_numbers_of_shards_that_are_down_are_written_each_quarter_of_an_hour(judge: Judge) -> None:
    judge.says(record(up=2))
    judge.look()
    judge.says(record(up=1))
    assert judge.look() == {}
    judge.says(record(up=1, at=NOW + timedelta(minutes=16)))
    assert judge.look(timedelta(minutes=16)) == {("pins", CAPTURED): False}


def test_a_lag_above_the_bound_fails_fresh_of_each_table(judge: Judge) -> None:
    judge.says(record())
    judge.look()
    judge.says(record(lag=301.0))
    assert judge.look() == {("pins", FRESH): False, ("boards", FRESH): False}


def test_none_stays_green_when_the_passes_stop(judge: Judge) -> None:
    judge.says(record())
    judge.look()
    assert judge.look(timedelta(minutes=14)) == {}
    assert judge.look(timedelta(minutes=16)) == {
        ("pins", CAPTURED): False, ("pins", FRESH): False, ("boards", FRESH): False
    }  # fmt: skip


def test_recently_verified_fails_when_verdicts_grow_old_and_nothing_verifies(judge: Judge) -> None:
    judge.proven(NOW)
    assert judge.look() == {("pins", RECENTLY): True, ("boards", RECENTLY): True}
    assert judge.look(timedelta(hours=23)) == {}
    assert judge.look(timedelta(hours=49)) == {("pins", RECENTLY): False, ("boards", RECENTLY): False}
    judge.proven(datetime.now(UTC) + timedelta(hours=49), "pins")
    assert judge.look(timedelta(hours=49))["pins", RECENTLY] is True


def test_a_table_that_was_never_verified_is_said_to_be(judge: Judge) -> None:
    judge.proven(NOW, "boards")
    assert judge.look() == {("pins", RECENTLY): False, ("boards", RECENTLY): True}
    assert judge.look() == {}


def test_an_audit_frame_that_cannot_be_read_fails_its_table_and_no_other(judge: Judge) -> None:
    judge.proven(NOW, "boards")
    folder = Path(judge.harness.settings.audit_dir) / "pins" / "pins"
    folder.mkdir(parents=True)
    (folder / "x.parquet").write_bytes(b"no Parquet")
    assert judge.look() == {("pins", RECENTLY): False, ("boards", RECENTLY): True}


def test_a_tick_reads_so_many_frames_and_the_next_ones_the_others(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = next(iter(judge.tables.values()))
    names = [f"t{n:03d}" for n in range(MOST_FRAMES * 2 + 5)]
    judge.tables = {dg.AssetKey(["cdc", "pins", name, "audit"]): replace(one, table=name) for name in names}
    read: list[str] = []
    latest = AuditFrame.latest

    def noted(self: AuditFrame, dataset: str, table: str, shards: Any = None) -> Any:
        read.append(table)
        return latest(self, dataset, table, shards)

    monkeypatch.setattr(AuditFrame, "latest", noted)
    for _ in range(3):
        judge.look()
    assert set(read) == set(names)
    assert len(read) == 3 * MOST_FRAMES


def test_captured_is_written_again_after_a_materialization_of_the_shards(judge: Judge) -> None:
    """Dagster calls a result that is older than the newest materialization not evaluated."""
    judge.says(record())
    judge.look()
    judge.instance.add_dynamic_partitions("cdc_pins_shards", ["00000"])
    judge.instance.report_runless_asset_event(dg.AssetMaterialization(SHARDS, partition="00000"))
    assert judge.look() == {("pins", CAPTURED): True}
    assert judge.look() == {}


@pytest.mark.parametrize(
    ("document", "passed"),
    [
        (record(), True),
        (record(up=0), False),
        ({"at": NOW.isoformat(), "datasets": {}}, False),
        ({"at": NOW.isoformat(), "datasets": {"pins": {"shards": 0, "up": 0}}}, False),
        ({"at": "no time"}, False),
        ({}, False),
        (record(at=NOW - timedelta(minutes=16)), False),
        (record(at=NOW - timedelta(minutes=14)), True),
    ],
)
def test_captured_passes_only_by_a_young_record_with_all_shards_up(document: dict[str, Any], passed: bool) -> None:
    said = captured(document, "pins", NOW)
    assert said is not None and said.passed is passed


def test_where_nothing_is_known_nothing_is_said() -> None:
    assert captured(None, "pins", NOW) is None
    assert fresh(None, "pins", DEFAULT, NOW) is None
    assert fresh(record(lag=None), "pins", DEFAULT, NOW) is None, "no worker's metrics are read"


def test_a_suite_that_expects_something_else_is_left_to_the_job() -> None:
    def having(check: str, **fields: Any) -> Suite:
        return replace(
            DEFAULT, expectations=tuple(replace(i, **fields) if i.check == check else i for i in DEFAULT.expectations)
        )

    more = {"column": "lag_s", "max_value": 300, "mostly": 0.9}
    assert fresh(record(), "pins", having(FRESH, kwargs=more), NOW) is None
    assert fresh(record(), "pins", having(FRESH, type="expect_column_max_to_be_between"), NOW) is None
    said = fresh(record(lag=20.0), "pins", having(FRESH, kwargs={"column": "lag_s", "max_value": 10}), NOW)
    assert said is not None and not said.passed
    assert recently_verified({}, 3, having(RECENTLY, kwargs={"column": "age_s", "min_value": 1}), NOW) is None


def test_the_sensor_reports_without_a_run(
    judge: Judge, resource: HarnessResource, instance: dg.DagsterInstance
) -> None:
    judge.says(record(up=2))
    sensor = build_pass_check_sensor(tables=load_tables(resource=resource).tables)
    found = sensor(dg.build_sensor_context(instance=instance, resources={"cdc_platform": resource}))
    assert isinstance(found, dg.SensorResult)
    assert not found.run_requests and found.cursor == "1"
    told = {
        (event.asset_key, event.check_name): event.passed
        for event in found.asset_events
        if isinstance(event, dg.AssetCheckEvaluation)
    }
    assert told[SHARDS, CAPTURED] is False and told[PINS, FRESH] is True
    assert told[shards_key("cdc", "orders"), CAPTURED] is False, "the pass did not see it"


def test_captured_can_be_judged_by_hand(judge: Judge, resource: HarnessResource, instance: dg.DagsterInstance) -> None:
    checks = build_captured_checks(tables=list(judge.tables.values()))
    judge.says(record(up=2))
    run = dg.materialize(
        checks, instance=instance, resources={"cdc_platform": resource}, selection=dg.AssetSelection.checks(*checks)
    )
    (found,) = run.get_asset_check_evaluations()
    assert (found.asset_key, found.check_name, found.passed) == (SHARDS, CAPTURED, False)
    assert found.severity is dg.AssetCheckSeverity.WARN


def test_the_job_of_checks_and_the_sensor_agree_about_fresh(
    judge: Judge, resource: HarnessResource, instance: dg.DagsterInstance
) -> None:
    """A verification saw a lag of 1 s; now it is 1,000."""
    judge.proven(NOW)
    judge.says(record())
    checks = build_cdc_asset_checks(tables=list(judge.tables.values()))
    keys = [key for key in checks[0].check_keys if key.name in (FRESH, RECENTLY) and key.asset_key == PINS]

    def judged() -> dict[str, dg.AssetCheckEvaluation]:
        run = dg.materialize(
            checks, instance=instance, resources={"cdc_platform": resource}, selection=dg.AssetSelection.checks(*keys)
        )
        return {one.check_name: one for one in run.get_asset_check_evaluations()}

    assert judged()[FRESH].passed
    judge.says(record(lag=1000.0))
    found = judged()
    assert not found[FRESH].passed
    assert "1000 s behind" in str(found[FRESH].description)
    assert found[RECENTLY].passed and "oldest_verdict" in found[RECENTLY].metadata
    assert judge.look() == {("pins", CAPTURED): True, ("boards", FRESH): False, ("boards", RECENTLY): True}


def test_the_shard_verified_longest_ago_counts_and_one_never_verified_fails() -> None:
    said = recently_verified({"a": NOW, "b": NOW - timedelta(hours=49)}, 2, DEFAULT, NOW)
    assert said is not None and not said.passed and "49.0 h" in said.text
    never = recently_verified({"a": NOW}, 2, DEFAULT, NOW)
    assert never is not None and not never.passed and "1 of 2 shards were never verified" in never.text
