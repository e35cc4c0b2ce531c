"""Repair on the real stack: rows that left a topic come back, and nothing else is sent."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from cdc_platform.defs import CdcPlatformResource, build_alert_sensor, build_cdc_asset_checks
from cdc_platform.defs.table_inventory import load_tables
from cdc_platform.model.topology import Engine
from cdc_platform.settings import AlertTarget, Settings
from cdc_platform.verification.audit_frame import AuditFrame
from cdc_platform.verification.proof.verdicts import Verdict
from cdc_platform.verification.repair.reemit import run_repair
from cdc_platform.verification.repair.repair_plan import find_repair, recorded_plan
from tests.alerting.receivers import HttpReceiver, served
from tests.engines import EACH_BINLOG, EACH_ENGINE
from tests.snapshots.dagster_outside import settings_file
from tests.verification.repair.harness import MakeHarness, lost
from tests.waiting import assert_eventually

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(1200)]

SETTINGS: dict[str, Settings] = {}


class StackResource(CdcPlatformResource):
    """The resource with the test's settings."""

    def settings(self) -> Settings:
        return SETTINGS[str(self.config_file)]


@EACH_ENGINE
def test_repair_of_37_rows_in_5_shards_re_emits_37_and_the_alert_fires_and_recovers_once(
    engine: Engine, make_harness: MakeHarness, settings: Settings, tmp_path: Path
) -> None:
    with served(HttpReceiver()) as receiver, dg.DagsterInstance.ephemeral() as instance:
        secret = tmp_path / "alerts.properties"
        secret.write_text(f"hook=json://{receiver.address}\n")
        own = replace(
            settings,
            cache_dir=str(tmp_path / "cache"),
            audit_dir=str(tmp_path / "audit"),
            alerts={"team": AlertTarget(url=f"${{file:{secret}:hook}}")},
        )
        name = secrets.token_hex(4)
        SETTINGS[name] = own
        resource = StackResource(config_file=name)
        harness = make_harness(engine, own)
        tables = load_tables(resource=resource).tables
        own_tables = [one for one in tables if (one.dataset, one.table) == (harness.world.name, "items")]
        checks = build_cdc_asset_checks(tables=own_tables)
        location = dg.Definitions(asset_checks=checks, resources={"cdc_platform": resource})
        sensor = build_alert_sensor(tables=tables)
        cursor: str | None = None

        def complete() -> dg.AssetCheckEvaluation:
            nonlocal cursor
            keys = [key for key in checks[0].check_keys if key.name == "complete"]
            selection = dg.AssetSelection.checks(*keys)
            run = dg.materialize(checks, instance=instance, resources={"cdc_platform": resource}, selection=selection)
            for _ in range(2):
                context = dg.build_sensor_context(
                    instance=instance, cursor=cursor, resources={"cdc_platform": resource}, definitions=location
                )
                sensor.evaluate_tick(context)
                cursor = context.cursor
            (found,) = run.get_asset_check_evaluations()
            return found

        # An idle Postgres shard commits with its heartbeats only, every ten seconds or so: each look would wait.
        with harness.alive():
            harness.verify()
            assert complete().passed
            harness.take_away(lost())
            verdicts = harness.verify("bad")
            assert {v.verdict for v in verdicts.values()} == {Verdict.MISMATCHED}
            assert {
                shard: {int(next(iter(json.loads(sample.key).values()))) for sample in verdict.samples}
                for shard, verdict in verdicts.items()
            } == lost()
            assert not complete().passed
            assert len(receiver.got) == 1
            assert "37 missing" in receiver.got[0]["message"]

            topology = harness.platform.topology.load()
            shards = sorted(verdicts)
            plan = find_repair(harness.outside.proof, topology, harness.world.name, "items", shards, run_id="r1")
            assert {s.shard: {int(key[0]) for key in s.emit} for s in plan.shards} == lost()
            assert harness.read_by_snapshots() == {}  # so far only looked at
            report = run_repair(harness.outside, topology, plan)
            assert (report.emitted, report.proven) == (37, True), report.sentence()
            # Each key once, and no other row of the tables.
            assert harness.read_by_snapshots() == {(shard, key): 1 for shard, keys in lost().items() for key in keys}
            assert recorded_plan(harness.platform.state.read(), "r1") is None
            AuditFrame(own.audit_dir).write(report.proof)
            assert complete().passed
        assert [message["type"] for message in receiver.got] == ["failure", "success"]
        del SETTINGS[name]


@EACH_BINLOG
def test_repair_command_killed_with_9_goes_on_and_sends_no_row_that_it_need_not(
    engine: Engine, make_harness: MakeHarness, settings: Settings, tmp_path: Path
) -> None:
    own = replace(settings, cache_dir=str(tmp_path / "cache"), audit_dir=str(tmp_path / "audit"))
    harness = make_harness(engine, own, 2)
    wanted = {shard: ids for shard, ids in lost().items() if shard < "00002"}
    keys = [f"--keys={shard}:{key}" for shard, ids in wanted.items() for key in sorted(ids)]
    config = settings_file(own, tmp_path)
    command = [str(Path(sys.executable).with_name("cdc-platform")), "repair", harness.world.name, "items"]
    environment = {**os.environ, "CDC_PLATFORM_CONFIG": str(config), "CDC_PLATFORM_AUDIT_DIR": own.audit_dir}

    def begun(prefix: str) -> list[str]:
        return [key for key in harness.platform.state.read() if key.startswith(prefix)]

    dry = subprocess.run([*command, *keys], env=environment, capture_output=True, text=True, timeout=300)
    assert dry.returncode == 2, dry.stderr
    assert "Dry run: nothing was changed. Re-emit 14 keys" in dry.stdout
    with subprocess.Popen([*command, *keys, "--apply"], env=environment) as process:
        assert_eventually(lambda: bool(begun("backfill/repair-")), what="a wave begins", seconds=240)
        process.kill()
    (name,) = {key.split("/")[1] for key in begun("repair/")}
    done = subprocess.run(
        [*command, "--continue", name, "--apply"], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 shards proven" in done.stdout
    assert begun("repair/") == []
    # A snapshot that was under way goes on where it was: no row but those, and each once.
    assert harness.read_by_snapshots() == {(shard, key): 1 for shard, ids in wanted.items() for key in ids}


@EACH_ENGINE
def test_repair_gives_tombstones_to_rows_that_only_the_topic_has_when_it_is_told_to(
    engine: Engine, make_harness: MakeHarness, settings: Settings, tmp_path: Path
) -> None:
    own = replace(settings, cache_dir=str(tmp_path / "cache"), audit_dir=str(tmp_path / "audit"))
    harness = make_harness(engine, own, 1)
    stray = harness.put_in("00000", range(9_001, 9_006))
    (verdict,) = harness.verify().values()
    assert (verdict.verdict, verdict.extra, verdict.missing) == (Verdict.MISMATCHED, 5, 0), verdict.reason
    topology = harness.platform.topology.load()
    plan = find_repair(harness.outside.proof, topology, harness.world.name, "items", ["00000"], run_id="careful")
    assert (plan.keys, plan.extra) == (0, 5)
    report = run_repair(harness.outside, topology, plan)
    # Nobody has asked for it: the rows stay, and the proof says so.
    assert (report.emitted, report.tombstoned, report.proven) == (0, 0, False)
    assert all(value is not None for _, _, value in harness.records())
    told = find_repair(
        harness.outside.proof, topology, harness.world.name, "items", ["00000"], run_id="told", tombstones=True
    )
    report = run_repair(harness.outside, topology, told)
    assert (report.emitted, report.tombstoned, report.proven) == (0, 5, True), report.sentence()
    ends = [(key, partition, headers) for partition, key, value, headers in harness.traced() if value is None]
    assert {key: partition for key, partition, _ in ends} == stray
    assert all(h == {"cdc.shard": f"{harness.world.name}.00000", "cdc.repair": "told"} for _, _, h in ends)
    # What a consumer holds, and compaction leaves, is the table.
    last = {key: value for _, key, value in harness.records()}
    held = {json.loads(key)["id"] for key, value in last.items() if value is not None}
    assert held == set(harness.world.table(harness.world.shards[0], "items"))
