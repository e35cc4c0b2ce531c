"""What agents say of leaders reaches people: findings in status and plan, alerts at once."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cdc_platform.alerting.outbox import CheckView, notify
from cdc_platform.model.agent_report import AgentReport, reports_by_worker, workers_without
from cdc_platform.model.observed import ObservedTask
from cdc_platform.model.topology import Address
from cdc_platform.planning.planner import make_plan
from cdc_platform.settings import AlertTarget, Settings
from tests.alerting.receivers import HttpReceiver, served
from tests.alerting.test_alert_sensor import outside
from tests.defs.harness import WORLDS, Harness, shard, topology
from tests.planning.test_diagnosis import NAMES, POLICY, WANTED, beats, memory, world
from tests.planning.test_diagnosis import restarts as planned_restarts

NOW = datetime.now(UTC)
HELD = "its server_id is 2. Cure: SET GLOBAL server_id = 1"
SPLIT = "the old leader db-1:3306 still takes writes"


def report(**changes: object) -> AgentReport:
    made = AgentReport(
        connect_worker="w0:8083",
        connect_url="http://w0:8083",
        leader_dir="/leaders",
        pid=1,
        host="h",
        started=NOW,
        reported=NOW,
        synced=10**9,
        files=1,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def test_what_an_agent_holds_or_sees_survives_its_document() -> None:
    made = report(blocked={"pins.00000": HELD}, split={"pins.00001": SPLIT}, started=NOW.replace(microsecond=0))
    again = AgentReport.from_document(made.to_document())
    assert again is not None and (again.blocked, again.split) == (made.blocked, made.split)
    old = {key: value for key, value in made.to_document().items() if key not in ("held", "split")}
    before = AgentReport.from_document(old)
    assert before is not None and before.blocked == before.split == {}, "an agent of an earlier release"
    long = report(blocked={f"pins.{n:05d}": "x" * 5000 for n in range(10_000)})
    assert len(str(long.to_document())) < 512 * 1024


def test_a_shard_that_its_agent_holds_is_not_restarted_by_a_pass() -> None:
    name = NAMES[0]
    whole = world(beats(*NAMES))
    seen = (whole.clusters["main"].connectors or {})[name]
    worker = seen.tasks[0].worker
    failed = replace(seen, tasks=(ObservedTask(id=0, state="FAILED", worker=worker, trace="Connection refused"),))
    agents = {"w0": report(connect_worker=worker, blocked={name: HELD}, split={NAMES[1]: SPLIT}).to_document()}
    broken = world(beats(*NAMES[1:]), {name: failed}, agents=agents)
    planned = make_plan(broken, WANTED, memory(), POLICY)
    assert planned_restarts(planned) == []
    texts = {finding.subject: finding.text for finding in planned.plan.findings}
    assert texts[name] == f"its task waits for its new leader: {HELD}"
    assert texts[NAMES[1]] == f"split brain: {SPLIT}"
    without = world(beats(*NAMES[1:]), {name: failed}, agents={"w0": report(connect_worker=worker).to_document()})
    assert [each for each, _ in planned_restarts(make_plan(without, WANTED, memory(), POLICY))] == [name]


def test_a_worker_without_a_live_agent_is_named_in_the_plan() -> None:
    whole = world(beats(*NAMES))
    worker = (whole.clusters["main"].connectors or {})[NAMES[0]].tasks[0].worker
    alone = make_plan(replace(whole, agents={}), WANTED, memory(), POLICY)
    assert any("no live agent beside" in finding.text for finding in alone.plan.findings)
    agents = {"w0": report(connect_worker=worker).to_document()}
    beside = make_plan(replace(whole, agents=agents), WANTED, memory(), POLICY)
    assert not any(worker in f.text for f in beside.plan.findings if "no live agent" in f.text)
    assert worker not in workers_without(
        whole.topology, whole.topology.shard("pins", "00000"), [worker], reports_by_worker(agents)
    )


def test_split_brain_is_alerted_at_once_and_recovers(tmp_path: Path) -> None:
    with served(HttpReceiver()) as receiver:
        secrets = tmp_path / "alerts.properties"
        secrets.write_text(f"hook=json://{receiver.address}\n")
        settings = Settings(
            runbook_url="https://wiki/cdc", alerts={"team": AlertTarget(url=f"${{file:{secrets}:hook}}")}
        )
        WORLDS["split"] = made = Harness(settings=settings, name="split")
        made.put(
            replace(
                topology(orders=0),
                shards={"pins": tuple(shard("pins", n, leader=Address("db-2", 3306)) for n in range(3)), "orders": ()},
            )
        )

        def a_round(minutes: float, **changes: object) -> None:
            with made.platform() as platform:
                registration = platform.topology.register_agent("w0", report(**changes).to_document())
                notify(outside(made, platform), CheckView(), now=NOW + timedelta(minutes=minutes))
                registration.close()

        a_round(0, split={f"pins.{n:05d}": SPLIT for n in range(3)}, blocked={"pins.00000": HELD})
        assert len(receiver.got) == 1, "one message for the host; what is held may still be cured by itself"
        assert receiver.titles[0].startswith("[CRITICAL] Split brain: pins.00000 at db-2:3306 and 2 more")
        assert SPLIT in receiver.got[0]["message"] and "https://wiki/cdc#split-brain" in receiver.got[0]["message"]
        a_round(3, split={f"pins.{n:05d}": SPLIT for n in range(3)}, blocked={"pins.00000": HELD})
        assert len(receiver.got) == 2 and "Leader not fit" in receiver.titles[1] and HELD in receiver.got[1]["message"]
        a_round(4)
        assert sorted(title.split("]")[0] for title in receiver.titles[2:]) == ["[RECOVERED", "[RECOVERED"]
        del WORLDS["split"]
