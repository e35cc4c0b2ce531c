"""A new connector waits for the agents of its cluster, a bounded time, and the plan says so."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from cdc_platform.model.agent_report import AgentReport
from cdc_platform.model.observed import ObservedState
from cdc_platform.model.topology import Topology
from cdc_platform.planning.actions import CreateConnector
from cdc_platform.planning.health.liveness import LeaderRecord
from cdc_platform.planning.inputs import PassPolicy, Planned
from cdc_platform.planning.memory import Memory
from cdc_platform.planning.planner import make_plan
from tests.planning.worlds import NOW, WANTED, after, cluster, dataset, picture, topology

POLICY = PassPolicy()
HOME = cluster(metrics={"w0:8083": "http://w0:9404/metrics", "w1:8083": "http://w1:9404/metrics"})


def report(worker: str, synced: int, **fields: Any) -> dict[str, Any]:
    return AgentReport(
        **{
            "connect_worker": worker,
            "connect_url": f"http://{worker}",
            "leader_dir": "/var/lib/cdc/leaders",
            "pid": 1,
            "host": "h",
            "started": NOW,
            "reported": NOW,
            "synced": synced,
            "files": 2,
            **fields,
        }
    ).to_document()


def world(*agents: dict[str, Any], ideal: Topology | None = None) -> ObservedState:
    ideal = ideal or topology([(dataset(), 2)], HOME)
    seen = picture(replace(ideal, zxid=100))
    return replace(seen, agents={f"a{n}": document for n, document in enumerate(agents)})


def created(planned: Planned) -> list[str]:
    return [a.name for a in planned.plan.actions if isinstance(a, CreateConnector)]


def test_a_new_connector_waits_until_the_agents_have_written_its_leader_file() -> None:
    behind = world(report("w0:8083", 100), report("w1:8083", 99))
    planned = make_plan(behind, WANTED, Memory(), POLICY)
    assert created(planned) == []
    assert planned.waiting["pins.00000"].until == NOW + POLICY.liveness.leader_move
    assert "w1:8083: its agent has not written the leader file yet" in planned.waiting["pins.00000"].reason
    assert any("2 shards get no connector" in f.text for f in planned.plan.findings)
    there = world(report("w0:8083", 100), report("w1:8083", 100))
    assert created(make_plan(there, WANTED, Memory(), POLICY)) == ["pins.00000", "pins.00001"]


def test_only_the_shard_whose_file_is_missing_waits() -> None:
    one = world(report("w0:8083", 100), report("w1:8083", 100, unsynced=frozenset({"pins.00001"})))
    assert created(make_plan(one, WANTED, Memory(), POLICY)) == ["pins.00000"]


def test_an_agent_that_never_writes_is_waited_for_a_bounded_time() -> None:
    behind = world(report("w1:8083", 1))
    first = make_plan(behind, WANTED, Memory(), POLICY)
    known = after(Memory(), first, LeaderRecord)
    assert set(known.of(LeaderRecord)) == {"pins.00000", "pins.00001"}
    soon = make_plan(replace(behind, taken_at=NOW + timedelta(seconds=60)), WANTED, known, POLICY)
    assert created(soon) == []
    assert not soon.changes.of(LeaderRecord)
    later = make_plan(replace(behind, taken_at=NOW + POLICY.liveness.leader_move), WANTED, known, POLICY)
    assert created(later) == ["pins.00000", "pins.00001"]


def test_nobody_waits_for_agents_of_another_cluster_or_where_there_are_none() -> None:
    assert len(created(make_plan(world(), WANTED, Memory(), POLICY))) == 2
    assert len(created(make_plan(world(report("elsewhere:8083", 1)), WANTED, Memory(), POLICY))) == 2
    unread = replace(world(), agents=None)
    assert len(created(make_plan(unread, WANTED, Memory(), POLICY))) == 2
