"""Watched connectors in a plan: what failed is restarted, and nothing else is ever asked for."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from cdc_platform.alerting.conditions import recorded_conditions
from cdc_platform.model.alert_messages import Severity
from cdc_platform.model.observed import OWNER_KEY, ObservedConnector, ObservedState
from cdc_platform.model.watched import WatchedConnector
from cdc_platform.planning.actions import RestartConnector
from cdc_platform.planning.health.restarts import RestartRecord
from cdc_platform.planning.health.watched_states import WatchedRecord
from cdc_platform.planning.inputs import PassPolicy, Planned
from cdc_platform.planning.memory import Memory
from cdc_platform.planning.planner import make_plan
from cdc_platform.planning.records import Writer
from cdc_platform.reconciler import state_records
from cdc_platform.reconciler.report import watched_health
from cdc_platform.settings import Settings
from tests.planning import worlds
from tests.planning.worlds import NOW

TRACE = "org.apache.kafka.connect.errors.ConnectException: java.net.ConnectException: Connection refused"


def stranger(name: str, state: str = "RUNNING", task: str | None = "RUNNING", **config: str) -> ObservedConnector:
    trace = TRACE if task == "FAILED" else None
    return worlds.connector(name, {"database.hostname": "db", **config}, state=state, task=task, trace=trace)


def world(*connectors: ObservedConnector, watched: tuple[str, ...] = ("shop",), shards: int = 0) -> ObservedState:
    cluster = worlds.cluster(watched={name: WatchedConnector(owners=("team:shop",)) for name in watched})
    topology = worlds.topology([(worlds.dataset(), shards)] if shards else [], cluster)
    return worlds.picture(topology, {"main": {one.name: one for one in connectors}})


def plan(observed: ObservedState, memory: Memory | None = None) -> Planned:
    wanted = replace(worlds.WANTED, topics=())
    return make_plan(observed, wanted, memory or Memory(), PassPolicy())


def later(observed: ObservedState, seconds: float) -> ObservedState:
    return replace(observed, taken_at=NOW + timedelta(seconds=seconds))


def restarts(planned: Planned) -> list[tuple[str, str]]:
    assert all(type(action) is RestartConnector and action.watched for action in planned.plan.actions)
    return [(a.cluster, a.name) for a in planned.plan.actions if isinstance(a, RestartConnector)]


def test_the_first_plan_is_empty() -> None:
    planned = plan(world(stranger("shop"), stranger("other", task="FAILED")))
    assert (planned.plan.actions, planned.plan.refusals, planned.plan.findings) == ((), (), ())


def test_what_failed_is_restarted_and_backs_off() -> None:
    broken = world(stranger("shop", task="FAILED"))
    first = plan(broken)
    assert restarts(first) == [("main", "shop")]
    assert "restart watched connector shop in cluster main (attempt 1" in first.plan.actions[0].sentence()
    memory = worlds.after(Memory(), first)
    again = plan(later(broken, 1), memory)
    assert not again.plan.actions and "main/shop" in again.waiting
    due = plan(later(broken, 60), memory)
    assert worlds.after(memory, due).of(RestartRecord)["main/shop"].attempts == 2


def test_it_is_forgotten_with_its_watching_and_not_while_its_cluster_is_unread() -> None:
    broken = world(stranger("shop", task="FAILED"))
    memory = worlds.after(Memory(), plan(broken))
    unread = replace(broken, clusters={"main": replace(broken.clusters["main"], connectors=None, problem="down")})
    assert "main/shop" in worlds.after(memory, plan(unread, memory)).of(RestartRecord)
    released = world(stranger("shop", task="FAILED"), watched=())
    assert not worlds.after(memory, plan(released, memory)).of(RestartRecord)


@pytest.mark.parametrize(
    ("state", "task", "told"),
    [
        ("PAUSED", "PAUSED", "it was paused elsewhere"),
        ("STOPPED", None, "it was stopped elsewhere"),
        ("RUNNING", None, "no task"),
    ],
)
def test_what_others_did_is_told_and_left_so(state: str, task: str | None, told: str) -> None:
    observed = world(stranger("shop", state=state, task=task))
    for planned in (plan(observed), plan(later(observed, 7200), worlds.after(Memory(), plan(observed)))):
        assert not planned.plan.actions
        assert [told in finding.text for finding in planned.plan.findings] == [True]
        assert planned.changes.of(WatchedRecord).get("main/shop", None) or planned.plan.findings[0].text.count("since")
    (down,) = watched_health(observed.topology, plan(observed), observed.clusters)["main"].down
    assert (down.shard, down.state) == ("main/shop", "NO TASK" if state == "RUNNING" else state)


def test_one_that_is_gone_is_never_made_again_and_alerts() -> None:
    observed = world()
    planned = plan(observed)
    assert not planned.plan.actions and "passes never make it again" in planned.plan.findings[0].text
    documents = state_records.documents_of(planned.changes, Writer.PLAN)
    kept = {key: document for key, document in documents.items() if document is not None}
    found = recorded_conditions(kept, observed.topology, Settings(), NOW, timedelta())
    condition = found["watched/main/shop"]
    assert (condition.severity, condition.owners) == (Severity.CRITICAL, ("team:shop",))
    assert "MISSING" in condition.title and "--release" in condition.advice
    # It comes back: the record goes, and with it the condition.
    back = plan(world(stranger("shop")), worlds.after(Memory(), planned))
    assert back.changes.of(WatchedRecord) == {"main/shop": None}


def test_an_incident_of_watched_connectors_goes_to_their_owners() -> None:
    broken = world(stranger("shop", task="FAILED"))
    planned = plan(broken)
    documents = state_records.documents_of(planned.changes, Writer.PLAN)
    kept = {key: document for key, document in documents.items() if document is not None}
    (condition,) = recorded_conditions(kept, broken.topology, Settings(), NOW, timedelta()).values()
    assert condition.owners == ("team:shop",) and "main/shop" in condition.text


def test_the_platforms_own_is_safe_while_it_is_watched() -> None:
    """Its dataset left the topology: a pass would delete it, were it not watched."""
    own = stranger("old.00000", **{OWNER_KEY: "cdc"})
    unwatched = {action.kind.verb for action in plan(world(own, shards=1, watched=())).plan.actions}
    assert "delete connector" in unwatched
    kept = plan(world(own, shards=1, watched=("old.00000",)))
    assert "delete connector" not in {action.kind.verb for action in kept.plan.actions}


def test_a_shard_with_the_name_of_a_watched_one_gets_no_connector() -> None:
    planned = plan(world(stranger("pins.00000"), shards=1, watched=("pins.00000",)))
    assert not planned.plan.actions
    assert [refusal.scope for refusal in planned.plan.refusals] == ["pins.00000"]
    assert "adopt main pins.00000 --release" in planned.plan.refusals[0].reason


def test_two_clusters_may_have_connectors_of_one_name() -> None:
    clusters = [worlds.cluster(name, watched={"shop": WatchedConnector()}) for name in ("eu", "us")]
    broken, well = stranger("shop", task="FAILED"), stranger("shop")
    observed = worlds.picture(worlds.topology([], *clusters), {"eu": {"shop": broken}, "us": {"shop": well}})
    memory = worlds.after(Memory(), plan(observed))
    assert restarts(plan(later(observed, 60), memory)) == [("eu", "shop")]
    assert set(memory.of(RestartRecord)) == {"eu/shop"}


def test_one_cause_is_one_incident_with_the_shards_of_the_same_server() -> None:
    connectors = [stranger(f"shop-{n}", task="FAILED", **{"database.port": "3306"}) for n in range(5)]
    observed = world(*connectors, watched=tuple(one.name for one in connectors))
    planned = plan(observed)
    (incident,) = planned.incidents.values()
    assert (incident.place, incident.down) == ("db:3306", 5)
    due = plan(later(observed, 60), worlds.after(Memory(), planned))
    assert len(restarts(due)) == 1, "one is tried as a probe, not five"
