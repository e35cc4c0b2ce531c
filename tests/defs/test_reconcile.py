"""Sensor and job on a platform in memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from cdc_platform.defs import build_reconcile_sensor
from cdc_platform.defs.live_passes import GIVEN_BACK, TAG_LOCK
from cdc_platform.defs.reconcile_job import OP, build_cdc_jobs, run_tags
from cdc_platform.defs.translator import platform_key
from cdc_platform.errors import KafkaUnavailable, Unavailable, ZooKeeperUnavailable
from cdc_platform.model.topology import Table, Topology
from cdc_platform.verification.audit_frame import AuditFrame
from cdc_platform.verification.proof.verdicts import Verdict
from tests.defs.code_location import CodeLocation
from tests.defs.harness import Harness, HarnessResource, dataset, shard, topology
from tests.defs.test_check_suites import verdict

PINS = dg.AssetKey(["cdc", "pins", "pins"])
PINS_SHARDS, ORDERS_SHARDS = dg.AssetKey(["cdc", "pins", "shards"]), dg.AssetKey(["cdc", "orders", "shards"])


@pytest.fixture
def control(resource: HarnessResource, instance: dg.DagsterInstance) -> CodeLocation:
    return CodeLocation(resource, instance)


def rows(observation: dg.AssetObservation, name: str) -> list[Mapping[str, Any]]:
    value = observation.metadata[name]
    assert isinstance(value, dg.TableMetadataValue)
    return [record.data for record in value.records]


def test_a_tick_asks_for_a_run_and_the_run_puts_it_right(control: CodeLocation, harness: Harness) -> None:
    result = control.tick()
    request = result.run_requests[0] if result.run_requests else None
    assert request is not None
    assert request.run_key is None
    assert "Create topic 5" not in str(request.run_config)
    run = control.run(request.run_config)
    assert run.success
    assert len(harness.connect.connectors()) == 5
    assert {"cdc.pins.pins", "cdc.pins.boards", "cdc.orders.orders"} <= set(harness.kafka.topics())
    messages = control.messages(run)
    assert "Create connector pins.00000 in cluster main: done." in messages
    assert any(m.startswith("Asked for: Create topic") for m in messages)
    assert any("5 of 5 shards up" in m for m in messages)


def test_after_a_few_passes_nothing_is_asked_for_and_nothing_is_written(
    control: CodeLocation, harness: Harness
) -> None:
    assert control.quiet() == "Nothing to change. 5 of 5 shards up."
    before = (list(harness.connect.writes), list(harness.kafka.writes), dict(harness.state.documents))
    runs = len(control.instance.get_runs())
    for _ in range(3):
        assert not control.tick().run_requests
    assert (list(harness.connect.writes), list(harness.kafka.writes), dict(harness.state.documents)) == before
    assert len(control.instance.get_runs()) == runs


def test_each_shard_is_materialized_once_when_first_captured(control: CodeLocation, harness: Harness) -> None:
    control.quiet()
    assert control.materialized(PINS_SHARDS) == ["00000", "00001", "00002"]
    assert control.materialized(ORDERS_SHARDS) == ["00000", "00001"]
    harness.put(topology(pins=4))
    control.quiet()
    assert control.materialized(PINS_SHARDS) == ["00000", "00001", "00002", "00003"]
    assert set(control.instance.get_dynamic_partitions("cdc_pins_shards")) == {"00000", "00001", "00002", "00003"}


def test_an_asset_shows_topic_shards_events_and_columns(control: CodeLocation, harness: Harness) -> None:
    control.quiet()
    harness.kafka.append("cdc.pins.pins", b'{"op": "c", "after": {"id": 1, "title": "x", "gone": null}}')
    harness.kafka.append("cdc.pins.pins", None)
    control.cursor = None
    control.pass_()
    page = control.instance.get_latest_materialization_event(PINS)
    assert page is not None and page.asset_materialization is not None
    seen = page.asset_materialization
    assert seen.partition is None
    assert seen.metadata["topic"].value == "cdc.pins.pins"
    assert (seen.metadata["shards_up"].value, seen.metadata["shards"].value) == (3, 3)
    assert seen.metadata["events"].value == 2
    assert "newest_event" in seen.metadata
    schema = seen.metadata["dagster/column_schema"]
    assert isinstance(schema, dg.TableSchemaMetadataValue)
    assert [(c.name, c.type) for c in schema.schema.columns] == [
        ("id", "number"),
        ("title", "text"),
        ("gone", "unknown"),
    ]
    shards = control.observation(PINS_SHARDS)
    assert (shards.metadata["shards_up"].value, shards.metadata["shards"].value) == (3, 3)
    assert "slowest" not in shards.metadata, "nobody knows how far behind they are"
    whole = control.observation(platform_key("cdc"))
    assert rows(whole, "clusters") == [{"cluster": "main", "connectors": 5}]
    assert isinstance(whole.metadata["plan"], dg.MarkdownMetadataValue)


def test_a_connector_deleted_by_hand_is_put_right_and_told_in_one_sentence(
    control: CodeLocation, harness: Harness
) -> None:
    control.quiet()
    for _ in range(3):  # again and again: no run key remembers the first time
        harness.connect.delete("pins.00001")
        run = control.pass_()
        assert "Create connector pins.00001 in cluster main: done." in control.messages(run)
        assert len(harness.connect.connectors()) == 5
        control.quiet()


def test_a_failed_task_is_restarted_and_told_in_one_sentence(control: CodeLocation, harness: Harness) -> None:
    control.quiet()
    harness.connect.model.fail_task("orders.00001", "java.net.ConnectException: Connection refused")
    run = control.pass_()
    told = [m for m in control.messages(run) if m.startswith("Restart connector orders.00001")]
    assert len(told) == 1 and told[0].endswith(": done.")


def test_a_shard_that_stays_down_is_named_with_its_reason(control: CodeLocation, harness: Harness) -> None:
    control.quiet()
    harness.connect.model.fails = lambda name, config: "Connection refused" if name == "pins.00002" else None
    harness.connect.model.fail_task("pins.00002", "Connection refused")
    control.pass_()
    seen = control.observation(PINS_SHARDS)
    assert (seen.metadata["shards_up"].value, seen.metadata["shards"].value) == (2, 3)
    assert [row["shard"] for row in rows(seen, "shards_down")] == ["pins.00002"]
    assert "3 shards: 1 down, 2 captured, not proven" in str(seen.metadata["heat_map"].value)


def test_the_picture_of_the_shards_shows_the_worst_verdict_of_their_tables(
    control: CodeLocation, harness: Harness
) -> None:
    frame = AuditFrame(harness.settings.audit_dir)
    frame.write([verdict(f"{n:05d}") for n in range(3)])
    frame.write([verdict("00000", table="boards"), verdict("00001", Verdict.MISMATCHED, table="boards")])
    control.quiet()
    picture = str(control.observation(PINS_SHARDS).metadata["heat_map"].value)
    assert "3 shards: 1 incomplete, 1 captured, not proven, 1 captured, proven" in picture


def test_verdicts_that_cannot_be_read_cost_the_picture_its_verdicts_only(
    control: CodeLocation, harness: Harness
) -> None:
    folder = Path(harness.settings.audit_dir) / "pins" / "pins"
    folder.mkdir(parents=True)
    (folder / "x.parquet").write_bytes(b"no Parquet")
    run = control.pass_()
    assert run.success
    assert any("shows no verdicts this time" in message for message in control.messages(run))
    assert "3 shards" in str(control.observation(PINS_SHARDS).metadata["heat_map"].value)


def test_an_action_that_fails_is_a_warning_and_the_others_go_on(control: CodeLocation, harness: Harness) -> None:
    harness.connect.model.refuses = lambda name, config: "database is down" if name == "pins.00000" else None
    run = control.pass_()
    assert run.success
    assert len(harness.connect.connectors()) == 4
    warnings = [e for e in control.instance.all_logs(run.run_id) if e.level == 30]
    assert any("pins.00000" in e.user_message and "database is down" in e.user_message for e in warnings)
    failed = rows(control.observation(platform_key("cdc")), "failed")
    assert [row["action"] for row in failed] == ["create connector"]


def test_a_run_left_started_by_kill_9_is_failed_and_the_next_pass_goes_on(
    control: CodeLocation, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = control.defs.resolve_job_def("cdc_reconcile")
    dead = control.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED, tags=run_tags("cdc"))
    assert control.tick().skip_reason is not None, "it may still be booting"
    later = time.time() + 60
    monkeypatch.setattr("cdc_platform.defs.live_passes.time", lambda: later)
    result = control.tick()
    assert result.run_requests
    ended = control.instance.get_run_by_id(dead.run_id)
    assert ended is not None and ended.status is dg.DagsterRunStatus.FAILURE


def test_a_run_says_when_it_holds_the_lock_and_when_no_longer(
    control: CodeLocation, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    tagged = dg.DagsterInstance.add_run_tags

    def tag(instance: dg.DagsterInstance, run_id: str, tags: dict[str, str]) -> None:
        said.append(f"{tags[TAG_LOCK]} held by {harness.store().lock_owner() or 'nobody'}")
        tagged(instance, run_id, tags)

    monkeypatch.setattr(dg.DagsterInstance, "add_run_tags", tag)
    run = control.pass_()
    assert said[0].endswith(f"held by {run.run_id}")
    assert said[1:] == [f"{GIVEN_BACK} held by nobody"]
    ended = control.instance.get_run_by_id(run.run_id)
    assert ended is not None and ended.tags[TAG_LOCK] == GIVEN_BACK


def test_a_pass_under_way_is_left_alone_and_nothing_is_asked_for(control: CodeLocation, harness: Harness) -> None:
    with harness.store().lock(owner="apply@host"):
        result = control.tick()
    assert not result.run_requests
    assert "apply@host holds the lock" in str(result.skip_reason)


def test_a_run_that_finds_the_lock_held_fails_with_that_sentence(control: CodeLocation, harness: Harness) -> None:
    job = build_cdc_jobs(wait_for_lock=0.0).reconcile
    with harness.store().lock(owner="apply@host"):
        run = job.execute_in_process(
            instance=control.instance,
            resources={"cdc_platform": HarnessResource(config_file=harness.name)},
            raise_on_error=False,
        )
    assert not run.success
    assert any("apply@host holds the lock" in str(e.event_specific_data) for e in run.get_step_failure_events())
    assert not harness.connect.writes


def test_zookeeper_away_fails_the_tick_with_its_name(control: CodeLocation, harness: Harness) -> None:
    harness.zookeeper.down = True
    with pytest.raises(ZooKeeperUnavailable):
        control.tick()


def test_a_look_that_takes_too_long_ends_the_tick_before_dagster_does(
    resource: HarnessResource, harness: Harness, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    sensor = build_reconcile_sensor(job=build_cdc_jobs().reconcile, look_deadline=1.2)
    monkeypatch.setattr(harness.connect, "connectors", lambda: release.wait(30))
    started = time.monotonic()
    with pytest.raises(Unavailable, match="took longer than"):
        sensor(dg.build_sensor_context(instance=instance, resources={"cdc_platform": resource}))
    release.set()
    assert time.monotonic() - started < 10


def test_kafka_away_fails_the_tick_or_run_and_changes_nothing(control: CodeLocation, harness: Harness) -> None:
    control.quiet()
    writes = list(harness.connect.writes)
    harness.kafka.outage = KafkaUnavailable("no broker answered", where="Kafka")
    result = control.tick()
    assert not result.run_requests or not control.run(result.run_requests[0].run_config).failure_data_for_node(OP)
    assert harness.connect.writes == writes


def test_an_empty_inventory_deletes_nothing_and_says_why(control: CodeLocation, harness: Harness) -> None:
    control.quiet()
    harness.put(Topology(clusters=topology().clusters))
    run = control.pass_()
    assert not run.success
    assert len(harness.connect.connectors()) == 5
    assert any("Refused for" in m for m in control.messages(run))
    assert len(control.instance.get_dynamic_partitions("cdc_pins_shards")) == 3
    assert not control.tick().run_requests, "one refusal is told once"


def test_a_topology_that_vanished_with_its_clusters_keeps_the_partitions(
    control: CodeLocation, harness: Harness
) -> None:
    control.quiet()
    harness.put(Topology())
    control.tick()
    assert len(control.instance.get_dynamic_partitions("cdc_pins_shards")) == 3


def test_a_person_may_allow_deletes_from_the_launchpad(control: CodeLocation, harness: Harness) -> None:
    control.quiet()
    harness.put(Topology(clusters=topology().clusters))
    assert control.run({"ops": {OP: {"config": {"allow_deletes": 5}}}}).success
    assert harness.connect.connectors() == {}
    control.tick()
    assert control.instance.get_dynamic_partitions("cdc_pins_shards") == []


def test_a_new_table_asks_for_a_reload_of_the_code_location(control: CodeLocation, harness: Harness) -> None:
    control.quiet()
    tables = (Table(name="pins"), Table(name="boards"), Table(name="users"))
    wider = topology()
    harness.put(replace(wider, datasets={**wider.datasets, "pins": dataset("pins", tables=tables)}))
    reason = control.quiet()
    assert "Reload the code location: pins.users is no asset yet." in reason


def test_old_metadata_is_refreshed_without_a_change(control: CodeLocation) -> None:
    control.quiet()
    control.cursor = None
    run = control.pass_()
    assert run.success
    assert [e for e in control.messages(run) if e.startswith("Asked for: All assets are observed again")]


def test_a_new_shard_needs_no_reload(control: CodeLocation, harness: Harness) -> None:
    control.quiet()
    harness.store().put_shard(shard("orders", 7))
    control.pass_()
    assert "orders.00007" in harness.connect.connectors()
    assert "Reload" not in control.quiet()


def test_eager_automation_downstream_runs_when_data_came_and_not_otherwise(
    control: CodeLocation, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("cdc_platform.defs.pass_events.time", clock.time)
    requested = Automation(control, dg.AutomationCondition.eager()).requested
    control.quiet()
    later(control, clock)
    requested()
    later(control, clock)
    assert requested() == 0, "the topic is empty"
    harness.kafka.append("cdc.pins.pins", b'{"op": "c", "after": {"id": 1}}')
    later(control, clock)
    assert requested() == 1
    later(control, clock)
    assert requested() == 0
    harness.put(topology(pins=4))
    later(control, clock)
    assert requested() == 0, "a shard that is new and has no data is no data"
    harness.kafka.append("cdc.pins.pins", b'{"op": "c", "after": {"id": 2}}')
    later(control, clock)
    assert requested() == 1


def test_cron_automation_downstream_runs_when_data_came_and_not_otherwise(
    control: CodeLocation, harness: Harness
) -> None:
    now = datetime.now(UTC)
    # Its tick is the beginning of this minute.
    requested = Automation(control, dg.AutomationCondition.on_cron(f"{now:%M %H} * * *")).requested
    control.quiet()
    assert requested(now - timedelta(minutes=2)) == 0
    assert requested(now) == 0, "no data since"
    harness.kafka.append("cdc.pins.pins", b'{"op": "c", "after": {"id": 1}}')
    control.cursor = None
    control.pass_()
    assert requested() == 1
    assert requested() == 0


class Automation:
    """An asset downstream of a topic, and what Dagster would request for it."""

    def __init__(self, control: CodeLocation, condition: dg.AutomationCondition[Any]) -> None:
        @dg.asset(deps=[PINS], automation_condition=condition)
        def popular() -> None: ...

        self._key = popular.key
        self._instance = control.instance
        self._defs = dg.Definitions(assets=[*control.defs.resolve_all_asset_specs(), popular])
        self._cursor: Any = None

    def requested(self, at: datetime | None = None) -> int:
        found = dg.evaluate_automation_conditions(
            self._defs, self._instance, cursor=self._cursor, evaluation_time=at or datetime.now(UTC)
        )
        self._cursor = found.cursor
        return found.get_num_requested(self._key)


def later(control: CodeLocation, clock: Clock) -> None:
    """A pass 20 minutes later that looks at all topics."""
    clock.minutes += 20
    control.cursor = None
    control.pass_()


class Clock:
    """The time of the passes: minutes ahead of the machine's."""

    minutes = 0

    def time(self) -> float:
        return time.time() + 60 * self.minutes


def test_a_new_dagster_instance_learns_which_shards_are_captured(
    control: CodeLocation, resource: HarnessResource
) -> None:
    """What is on record elsewhere is no reason to show partitions as missing here."""
    control.quiet()
    with dg.DagsterInstance.ephemeral() as fresh:
        other = CodeLocation(resource, fresh)
        other.quiet()
        assert other.materialized(PINS_SHARDS) == ["00000", "00001", "00002"]


def test_materializing_shards_has_one_bound_a_pass(control: CodeLocation, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was spent under the lock is not granted again when all tables are observed."""
    ticks = iter(range(1_000_000))
    monkeypatch.setattr("cdc_platform.defs.pass_events.monotonic", lambda: float(next(ticks)))
    monkeypatch.setattr("cdc_platform.defs.pass_events.MATERIALIZE_SECONDS", 3.0)
    control.pass_()
    assert sum(len(control.materialized(key)) for key in (ORDERS_SHARDS, PINS_SHARDS)) == 3


def test_materializing_shards_is_bounded_and_goes_on_with_the_next_pass(
    control: CodeLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cdc_platform.defs.pass_events.MATERIALIZE_SECONDS", 0.0)
    control.quiet()
    assert control.materialized(PINS_SHARDS) == []
    monkeypatch.undo()
    control.cursor = None
    control.pass_()
    assert control.materialized(PINS_SHARDS) == ["00000", "00001", "00002"]


def test_topics_that_do_not_answer_cost_the_pass_nothing_but_its_event_counts(
    control: CodeLocation, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness.kafka, "extents", lambda names: (_ for _ in ()).throw(KafkaUnavailable("away")))
    run = control.pass_()
    assert run.success
    assert any("show no event counts this time: away" in message for message in control.messages(run))
    assert control.observation(PINS_SHARDS).metadata["shards_up"].value == 3
