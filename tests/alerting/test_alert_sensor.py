"""The alert sensor over a fake fleet and real receivers: nothing lost, nothing repeated, also over restarts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from cdc_platform.alerting.conditions import AlertCondition
from cdc_platform.alerting.outbox import AlertPorts, AlertReport, CheckView, notify
from cdc_platform.clients.notifiers import AppriseNotifiers
from cdc_platform.clients.platform import Platform
from cdc_platform.defs.alert_sensor import build_alert_sensor
from cdc_platform.defs.run_alerts import run_conditions
from cdc_platform.defs.run_kinds import RunOf
from cdc_platform.defs.table_inventory import load_tables
from cdc_platform.errors import KafkaUnavailable
from cdc_platform.model.alert_messages import Severity
from cdc_platform.model.topology import Address
from cdc_platform.planning.health.restarts import RestartPolicy
from cdc_platform.planning.inputs import PassPolicy
from cdc_platform.reconciler.run_pass import reconcile
from cdc_platform.settings import AlertTarget, Settings
from cdc_platform.testing import FakeStateStore
from tests.alerting.receivers import HttpReceiver, served
from tests.defs.harness import WORLDS, Harness, HarnessResource, shard, topology

TRACE = "java.net.ConnectException: Connection refused"
NOW = datetime.now(UTC)


class AlertResource(HarnessResource):
    """The harness's platform with real notifiers."""

    @contextmanager
    def alerts(self) -> Iterator[AlertPorts]:
        with self.platform() as platform:
            yield outside(WORLDS[str(self.config_file)], platform)


def outside(harness: Harness, platform: Platform) -> AlertPorts:
    notifiers = AppriseNotifiers(targets=harness.settings.alerts)
    return AlertPorts(platform=platform, store=FakeStateStore(harness.state), notifiers=notifiers)


@pytest.fixture
def receiver() -> Iterator[HttpReceiver]:
    with served(HttpReceiver()) as found:
        yield found


@pytest.fixture
def fleet(receiver: HttpReceiver, tmp_path: Path) -> Iterator[Harness]:
    """700 shards, 500 of them on one host; the owners' route is a real HTTP receiver."""
    secrets = tmp_path / "alerts.properties"
    secrets.write_text(f"hook=json://{receiver.address}\ndog=http://{receiver.address}/ping\n")
    settings = Settings(
        cache_dir=str(tmp_path / "cache"),
        runbook_url="https://wiki/cdc",
        dagster_url="https://dagster",
        alerts={
            "team": AlertTarget(url=f"${{file:{secrets}:hook}}", owners=("data-platform",)),
            "dog": AlertTarget(url=f"${{file:{secrets}:dog}}", watchdog=True),
        },
    )
    WORLDS["fleet"] = harness = Harness(settings=settings, name="fleet")
    wanted = topology(orders=0)
    shards = tuple(shard("pins", n, leader=Address("db-1" if n < 500 else "db-2", 3306)) for n in range(700))
    harness.put(replace(wanted, shards={"pins": shards, "orders": ()}))
    passes(harness)
    yield harness
    del WORLDS["fleet"]


def passes(harness: Harness, times: int = 1) -> None:
    """Passes of a control plane that tries again at once, and takes a shard for healthy at once."""
    policy = PassPolicy(
        restarts=RestartPolicy(fleet_budget=10_000, worker_budget=10_000, healthy_after=timedelta(), group_from=10_000)
    )
    for _ in range(times):
        with harness.platform() as platform:
            reconcile(platform, owner="test", policy=policy)


def a_round(harness: Harness, minutes: float, seen: CheckView | None = None) -> AlertReport:
    """A tick of a control plane that was just started."""
    with harness.platform() as platform:
        return notify(outside(harness, platform), seen or CheckView(), now=NOW + timedelta(minutes=minutes))


def break_host(harness: Harness) -> None:
    for number in range(500):
        harness.connect.model.fail_task(f"pins.{number:05d}", TRACE)


def test_500_shards_down_are_one_alert_and_one_recovery_also_with_restarts_between(
    fleet: Harness, receiver: HttpReceiver
) -> None:
    # The source is away: whatever is restarted fails again.
    fleet.connect.model.fails = lambda name, config: TRACE if int(name.partition(".")[2]) < 500 else None
    break_host(fleet)
    passes(fleet, 2)
    for minute in range(10):
        # Each round is a new process: nothing but the state topic is carried over.
        a_round(fleet, minute)
        passes(fleet)
    assert len(receiver.got) == 1
    (first,) = receiver.got
    assert first["title"] == "[CRITICAL] 500 shards down: connection at db-1:3306"
    assert "Owner: ann@\u200bexample.org, data-platform" in first["message"], "an address, and no mention of a person"
    assert "Runbook: https://wiki/cdc#connection" in first["message"]
    fleet.connect.model.fails = lambda name, config: None
    with fleet.platform() as platform:
        for number in range(500):
            platform.connect(platform.topology.load().clusters["main"]).restart_failed(f"pins.{number:05d}")
    passes(fleet, 3)
    for minute in range(10, 14):
        a_round(fleet, minute)
        passes(fleet)
    assert [message["type"] for message in receiver.got] == ["failure", "success"]
    assert receiver.titles[1].startswith("[RECOVERED]")
    assert not [key for key in fleet.state.documents if key.startswith("outbox/")]


def test_alerts_are_not_lost_while_the_receiver_is_away(fleet: Harness, receiver: HttpReceiver) -> None:
    break_host(fleet)
    fleet.connect.model.fails = lambda name, config: TRACE
    passes(fleet)
    a_round(fleet, 0)
    receiver.refuse = 2
    report = a_round(fleet, 3)
    assert report.waiting == 1
    assert "was not taken" in report.problems[0]
    assert a_round(fleet, 3.1).waiting == 1  # not before its time
    assert a_round(fleet, 4).waiting == 1
    assert a_round(fleet, 6).waiting == 0
    assert len(receiver.got) == 1


def test_a_death_before_sending_loses_no_alert_and_one_after_it_repeats_it_under_its_id(
    fleet: Harness, receiver: HttpReceiver
) -> None:
    break_host(fleet)
    fleet.connect.model.fails = lambda name, config: TRACE
    passes(fleet)
    a_round(fleet, 0)

    class Dies(BaseException):
        pass

    class Dying(AppriseNotifiers):
        def send(self, message: object) -> None:
            raise Dies

    class Forgets(FakeStateStore):
        """Dies before it can cross the message off."""

        def write(self, records: object) -> None:
            if any(str(key).startswith("outbox/") and value is None for key, value in dict(records).items()):  # type: ignore[call-overload]
                raise Dies
            super().write(records)  # type: ignore[arg-type]

    with fleet.platform() as platform, pytest.raises(Dies):
        dying = replace(outside(fleet, platform), notifiers=Dying(targets=fleet.settings.alerts))
        notify(dying, CheckView(), now=NOW + timedelta(minutes=3))
    assert receiver.got == []
    with fleet.platform() as platform, pytest.raises(Dies):
        forgetting = replace(outside(fleet, platform), store=Forgets(fleet.state))
        notify(forgetting, CheckView(), now=NOW + timedelta(minutes=4))
    a_round(fleet, 5)
    a_round(fleet, 6)
    ids = [message["message"].rpartition("Id: ")[2] for message in receiver.got]
    assert len(ids) == 2
    assert len(set(ids)) == 1


def test_alerts_of_a_control_plane_that_is_silent(fleet: Harness, receiver: HttpReceiver) -> None:
    assert a_round(fleet, 5).open == 0
    with fleet.platform() as platform:
        free = replace(fleet.settings.alerts["team"], owners=())
        harness = outside(fleet, replace(platform, settings=replace(fleet.settings, alerts={"team": free})))
        notify(harness, CheckView(), now=NOW + timedelta(minutes=30))
    assert "has made no pass for" in receiver.titles[0]


# Checks


PINS, BOARDS = dg.AssetKey(["cdc", "pins", "pins"]), dg.AssetKey(["cdc", "pins", "boards"])


@pytest.fixture
def resource(fleet: Harness) -> AlertResource:
    return AlertResource(config_file="fleet")


def check_on(
    *assets: dg.AssetKey, verdicts: dict[dg.AssetKey, bool], name: str = "complete"
) -> dg.AssetChecksDefinition:
    @dg.multi_asset_check(specs=[dg.AssetCheckSpec(name, asset=key) for key in assets])
    def checks() -> Iterator[dg.AssetCheckResult]:
        for key, passed in verdicts.items():
            yield dg.AssetCheckResult(
                asset_key=key, check_name=name, passed=passed, description="37 rows are missing in 5 shards."
            )

    return checks


def evaluate(instance: dg.DagsterInstance, verdicts: dict[dg.AssetKey, bool], name: str = "complete") -> str:
    """A run whose checks say that."""

    run = dg.materialize(
        [*(dg.AssetSpec(key) for key in verdicts), check_on(*verdicts, verdicts=verdicts, name=name)],
        instance=instance,
        selection=dg.AssetSelection.all_asset_checks(),
    )
    return run.run_id


# The code location: checks of others on its topics.
DEFS = dg.Definitions(
    assets=[dg.AssetSpec(PINS), dg.AssetSpec(BOARDS)], asset_checks=[check_on(PINS, BOARDS, verdicts={})]
)


def tick(resource: AlertResource, instance: dg.DagsterInstance, cursor: str | None) -> str | None:
    sensor = build_alert_sensor(tables=load_tables(resource=resource).tables)
    context = dg.build_sensor_context(
        instance=instance, cursor=cursor, resources={"cdc_platform": resource}, definitions=DEFS
    )
    sensor.evaluate_tick(context)
    return context.cursor


def test_alerts_of_checks_fire_once_and_recover_once(
    resource: AlertResource, instance: dg.DagsterInstance, receiver: HttpReceiver
) -> None:
    run = evaluate(instance, {PINS: False, BOARDS: True})
    cursor = tick(resource, instance, None)
    cursor = tick(resource, instance, cursor)
    evaluate(instance, {PINS: False, BOARDS: True})
    cursor = tick(resource, instance, cursor)
    (first,) = receiver.got
    assert first["title"] == "[CRITICAL] complete fails for pins.pins"
    assert f"Dagster run: https://dagster/runs/{run}" in first["message"]
    assert "37 rows are missing" in first["message"]
    evaluate(instance, {PINS: True, BOARDS: True})
    # As an earlier release left it.
    tick(resource, instance, json.dumps({"id": 17, "at": 1.0, "last": {"check/cdc/pins/pins/complete": 9e9}}))
    assert [message["type"] for message in receiver.got] == ["failure", "success"]


def test_alerts_of_many_tables_with_one_failing_check_are_one_message(
    resource: AlertResource, instance: dg.DagsterInstance, receiver: HttpReceiver
) -> None:
    evaluate(instance, {PINS: False, BOARDS: False})
    tick(resource, instance, None)
    assert receiver.titles == ["[CRITICAL] complete fails for pins.boards and 1 more"]


def test_a_round_that_fails_loses_nothing(
    fleet: Harness, resource: AlertResource, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate(instance, {PINS: False})

    def down(*args: object) -> None:
        raise KafkaUnavailable("no broker.")

    with monkeypatch.context() as patch:
        patch.setattr(FakeStateStore, "write", down)
        with pytest.raises(KafkaUnavailable):
            tick(resource, instance, None)
    assert not [key for key in fleet.state.documents if key.startswith("alert/check")]
    tick(resource, instance, None)
    assert [key for key in fleet.state.documents if key.startswith("alert/check")]


def test_a_check_that_is_judged_again_counts_as_before_until_it_was_judged(
    resource: AlertResource, instance: dg.DagsterInstance, receiver: HttpReceiver
) -> None:
    evaluate(instance, {PINS: False})
    judge = dg.define_asset_job("judge", dg.AssetSelection.all_asset_checks())
    job = dg.Definitions(assets=DEFS.assets, asset_checks=DEFS.asset_checks, jobs=[judge]).resolve_job_def("judge")
    instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    newest = instance.get_latest_asset_check_evaluation_record(dg.AssetCheckKey(PINS, "complete"))
    assert newest is not None and not isinstance(newest.evaluation, dg.AssetCheckEvaluation), "it is planned"
    tick(resource, instance, None)
    assert receiver.titles == ["[CRITICAL] complete fails for pins.pins"]


def test_alerts_of_shards_go_out_while_dagster_does_not_answer(
    fleet: Harness, resource: AlertResource, instance: dg.DagsterInstance, receiver: HttpReceiver
) -> None:
    break_host(fleet)
    fleet.connect.model.fails = lambda name, config: TRACE
    passes(fleet)
    a_round(fleet, -10)

    def away(*args: object, **more: object) -> None:
        raise RuntimeError("the database of Dagster is away")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(instance), "get_run_records", away)
        with pytest.raises(RuntimeError, match="is away"):
            tick(resource, instance, None)
    assert receiver.titles[0].startswith("[CRITICAL] 500 shards down")


def test_a_run_that_failed_is_told_and_that_a_later_one_succeeded(
    fleet: Harness, resource: AlertResource, instance: dg.DagsterInstance, receiver: HttpReceiver
) -> None:
    run = a_run(instance, RunOf.BOOTSTRAP, dg.DagsterRunStatus.FAILURE)
    tick(resource, instance, None)
    (first,) = receiver.got
    assert first["title"] == "[CRITICAL] The last run of bootstrap of pins failed"
    assert f"https://dagster/runs/{run}" in first["message"]
    a_run(instance, RunOf.BOOTSTRAP, dg.DagsterRunStatus.STARTED)
    tick(resource, instance, None)
    assert len(receiver.got) == 1
    a_run(instance, RunOf.BOOTSTRAP, dg.DagsterRunStatus.SUCCESS)
    tick(resource, instance, None)
    assert receiver.titles[1].startswith("[RECOVERED]")


def test_a_pass_that_waits_for_a_slot_is_told_after_two_minutes(
    fleet: Harness, resource: AlertResource, instance: dg.DagsterInstance
) -> None:
    a_run(instance, RunOf.RECONCILE, dg.DagsterRunStatus.NOT_STARTED)
    now = datetime.now(UTC)
    soon = run_conditions(instance, fleet.settings, {}, now + timedelta(minutes=1))
    assert (dict(soon.present), set(soon.absent)) == ({}, {"run/queued/reconcile"})
    (late,) = run_conditions(instance, fleet.settings, {}, now + timedelta(minutes=4)).present.values()
    assert "waits for a slot" in late.text and late.severity is Severity.CRITICAL


def a_run(instance: dg.DagsterInstance, kind: RunOf, status: dg.DagsterRunStatus) -> str:
    """A run of this kind in this state."""

    @dg.job
    def nothing() -> None: ...

    tags = {"cdc/platform": "cdc", "cdc/kind": kind.value, "cdc/dataset": "" if kind is RunOf.RECONCILE else "pins"}
    return instance.create_run_for_job(nothing, status=status, tags=tags).run_id


def test_a_watchdog_is_called_by_each_tick(
    resource: AlertResource, instance: dg.DagsterInstance, receiver: HttpReceiver
) -> None:
    cursor = tick(resource, instance, None)
    tick(resource, instance, cursor)
    assert receiver.pings == ["/ping", "/ping"]


# Receivers that fail


def condition(key: str, title: str) -> AlertCondition:
    return AlertCondition(
        key=key, cause=key, severity=Severity.CRITICAL, title=title, text="x", owners=("data-platform",)
    )


def test_alerts_survive_a_receiver_that_is_away_for_days(fleet: Harness, receiver: HttpReceiver) -> None:
    day = 24 * 60
    for number in range(3):
        # Each day a check fails and recovers; nobody takes a message.
        gap = condition("check/x", f"x {number}")
        receiver.refuse = 10_000
        a_round(fleet, number * day, CheckView(present={gap.key: gap}))
        a_round(fleet, number * day + 60, CheckView(absent={gap.key}))
    assert receiver.got == []
    receiver.refuse = 0
    # Restarted in between: the outbox is in the state topic.
    for minute in range(3):
        a_round(fleet, 3 * day + 20 * minute)
    assert [(m["type"], m["title"]) for m in receiver.got] == [
        (kind, f"[{word}] x {number}")
        for number in range(3)
        for kind, word in (("failure", "CRITICAL"), ("success", "RECOVERED"))
    ]
    assert not [key for key in fleet.state.documents if key.startswith("outbox/")]


def test_a_route_that_hangs_holds_up_neither_the_others_nor_the_round(
    fleet: Harness, receiver: HttpReceiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cdc_platform.clients.notifiers._TIMEOUT", 0.5)
    with served(HttpReceiver()) as stuck:
        stuck.hang.set()
        secrets = tmp_path / "stuck.properties"
        secrets.write_text(f"hook=json://{stuck.address}\n")
        alerts = {**fleet.settings.alerts, "stuck": AlertTarget(url=f"${{file:{secrets}:hook}}")}
        fleet.settings = replace(fleet.settings, alerts=alerts)
        gaps = {f"check/{n}": condition(f"check/{n}", f"check {n}") for n in range(20)}
        report = a_round(fleet, 0, CheckView(present=gaps))
        assert len(receiver.got) == 20
        assert report.waiting == 20
        assert len([problem for problem in report.problems if "stuck" in problem]) == 1
        stuck.hang.clear()
        stuck.go_on.set()
        assert a_round(fleet, 5).waiting == 0
        assert sorted(stuck.titles) == sorted(f"[CRITICAL] check {n}" for n in range(20))
    assert len(receiver.got) == 20


def test_a_round_sends_no_longer_than_its_time_and_the_next_goes_on(
    fleet: Harness, receiver: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cdc_platform.alerting.outbox.SEND_SECONDS", 0.0)
    gaps = {f"check/{n}": condition(f"check/{n}", f"check {n}") for n in range(5)}
    assert a_round(fleet, 0, CheckView(present=gaps)).waiting == 5
    monkeypatch.setattr("cdc_platform.alerting.outbox.SEND_SECONDS", 20.0)
    assert a_round(fleet, 1).waiting == 0
    assert len(receiver.got) == 5


def test_a_round_that_fails_calls_no_watchdog(
    resource: AlertResource, instance: dg.DagsterInstance, receiver: HttpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody would be told of anything: whoever watches the calls is to find that out.
    evaluate(instance, {PINS: False})

    def down(*args: object) -> None:
        raise KafkaUnavailable("no broker.")

    monkeypatch.setattr(FakeStateStore, "write", down)
    with pytest.raises(KafkaUnavailable):
        tick(resource, instance, None)
    assert receiver.pings == []


def test_a_watchdog_that_is_gone_stops_no_alert(
    fleet: Harness, resource: AlertResource, instance: dg.DagsterInstance, receiver: HttpReceiver, tmp_path: Path
) -> None:
    secrets = tmp_path / "gone.properties"
    secrets.write_text("dog=http://127.0.0.1:1/ping\n")
    gone = AlertTarget(url=f"${{file:{secrets}:dog}}", watchdog=True)
    fleet.settings = replace(fleet.settings, alerts={**fleet.settings.alerts, "dog": gone})
    evaluate(instance, {PINS: False})
    tick(resource, instance, None)
    assert [message["type"] for message in receiver.got] == ["failure"]
