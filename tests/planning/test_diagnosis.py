"""Diagnosis and treatment in a whole plan: heartbeats, leader moves, agents, zombies, skew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from cdc_platform.model.agent_report import AgentReport
from cdc_platform.model.observed import (
    ObservedBeats,
    ObservedConnector,
    ObservedHeartbeats,
    ObservedState,
    ObservedWorker,
)
from cdc_platform.planning.actions import MigrateConnector, RestartConnector, StopAndResumeConnector, UpdateConnector
from cdc_platform.planning.health.duplicate_tasks import ZombieRecord
from cdc_platform.planning.health.failures import Failure
from cdc_platform.planning.health.incidents import Incident
from cdc_platform.planning.health.liveness import CapturedRecord, LeaderRecord, LiveRecord
from cdc_platform.planning.health.restarts import RestartRecord
from cdc_platform.planning.health.task_balance import SkewRecord
from cdc_platform.planning.inputs import DesiredState, PassPolicy, Planned
from cdc_platform.planning.memory import ClusterSize, DatasetSize, Memory
from cdc_platform.planning.planner import make_plan
from cdc_platform.planning.records import Record
from tests.planning.worlds import NOW, after, cluster, config_of, connector, dataset, picture, shard, topology

POLICY = PassPolicy()
WANTED = DesiredState(topics=(), config_of=config_of)
NAMES = [f"pins.{n:05d}" for n in range(6)]


def beats(*names: str, sender: str = "w0") -> ObservedHeartbeats:
    one = ObservedBeats(last=NOW, senders={sender: (NOW, NOW)})
    return ObservedHeartbeats(since=NOW - timedelta(seconds=75), newest=NOW, beats=dict.fromkeys(names, one))


def world(
    heartbeats: ObservedHeartbeats | None = None,
    connectors: Mapping[str, ObservedConnector] | None = None,
    **more: object,
) -> ObservedState:
    ideal = topology([(dataset(), 6)])
    held = {s.name: connector(s.name, config_of(d, s, ideal.clusters["main"])) for d, s in ideal.all_shards()} | dict(
        connectors or {}
    )
    return replace(picture(ideal, {"main": held}), heartbeats=heartbeats, **more)  # type: ignore[arg-type]


def memory(more: Mapping[type[Record], Mapping[str, Any]] | None = None) -> Memory:
    return Memory({LiveRecord: {name: LiveRecord(since=NOW) for name in NAMES}, **(more or {})})


def later(planned: Planned, before: Memory) -> Memory:
    return after(before, planned, RestartRecord)


def restarts(planned: Planned) -> list[tuple[str, Failure]]:
    return [(a.name, a.failure) for a in planned.plan.actions if isinstance(a, RestartConnector)]


def with_failed(name: str, trace: str = "Connection refused", worker: str = "w0:8083") -> dict[str, ObservedConnector]:
    number = int(name.partition(".")[2])
    config = config_of(dataset(), shard("pins", number), cluster())
    return {name: connector(name, config, task="FAILED", trace=trace, worker=worker)}


def test_running_without_heartbeats_is_stuck_and_restarted_with_the_cause_named() -> None:
    seen = world(beats(*NAMES[1:]))
    first = make_plan(seen, WANTED, memory(), POLICY)
    assert first.unwell == {NAMES[0]: "Connect says RUNNING, but there has been no heartbeat for more than 75 s"}
    assert restarts(first) == []
    again = make_plan(replace(seen, taken_at=NOW + timedelta(minutes=1)), WANTED, later(first, memory()), POLICY)
    assert restarts(again) == [(NAMES[0], Failure.STUCK)]
    assert (
        "Connect says RUNNING, but there has been no heartbeat for more than 75 s" in again.plan.actions[0].sentence()
    )


def test_nobody_is_stuck_while_heartbeats_are_unreadable_or_all_are_silent() -> None:
    for heartbeats in (None, beats()):
        planned = make_plan(world(heartbeats), WANTED, memory(), POLICY)
        assert planned.plan.actions == ()
        assert planned.unwell == {}
        assert any("not judged" in f.text for f in planned.plan.findings)


REFUSED = "the source refused: Access denied for user 'cdc'@'localhost' (using password: YES)."


def passes(before: Memory, *worlds: ObservedState) -> list[Planned]:
    """Passes a minute apart, each remembering what the ones before learned."""
    found = []
    for number, seen in enumerate(worlds):
        planned = make_plan(replace(seen, taken_at=NOW + timedelta(minutes=number)), WANTED, before, POLICY)
        before = later(planned, before)
        found.append(planned)
    return found


def test_authentication_is_named_at_once_where_a_task_tries_again_inside_and_nothing_is_restarted() -> None:
    refused = dict.fromkeys(NAMES, REFUSED)
    for heartbeats in (beats(), beats(*NAMES), None):
        first, second = passes(memory(), *[world(heartbeats, logins=refused)] * 2)
        for planned in (first, second):
            (incident,) = planned.incidents.values()
            assert (incident.failure, incident.place, incident.down) == (Failure.AUTHENTICATION, "pins", 6)
            assert "Access denied for user" in incident.sentence()
            assert planned.unwell.keys() == set(NAMES)
            assert restarts(planned) == []


def test_a_login_that_works_again_restarts_who_was_refused_even_if_the_whole_fleet_is_silent() -> None:
    refused, accepted = dict.fromkeys(NAMES, REFUSED), dict.fromkeys(NAMES, None)
    seen = [world(beats(), logins=logins) for logins in (refused, {}, accepted, accepted, accepted)]
    named, unknown, told, restarted, again = passes(memory(), *seen)
    assert {t.failure for t in named.incidents.values()} == {Failure.AUTHENTICATION}
    assert restarts(unknown) == restarts(told) == restarts(again) == []
    assert restarts(restarted) == [(name, Failure.STALE_LOGIN) for name in NAMES]
    assert all(a.unwell for a in restarted.plan.actions if isinstance(a, RestartConnector))


def test_a_login_that_works_restarts_nobody_who_was_never_refused() -> None:
    first, second = passes(memory(), *[world(beats(), logins=dict.fromkeys(NAMES, None))] * 2)
    assert first.unwell == second.unwell == {}
    assert restarts(second) == []


def test_who_streams_again_is_not_restarted_for_a_login_of_before() -> None:
    refused = dict.fromkeys(NAMES, REFUSED)
    _, well, _ = found = passes(memory(), world(beats(), logins=refused), *[world(beats(*NAMES))] * 2)
    assert well.unwell == {}
    assert [restarts(planned) for planned in found] == [[], [], []]


def test_a_connector_without_a_task_is_restarted() -> None:
    config = config_of(dataset(), shard("pins", 0), cluster())
    seen = world(beats(*NAMES), {NAMES[0]: connector(NAMES[0], config, task=None)})
    first = make_plan(seen, WANTED, memory(), POLICY)
    again = make_plan(replace(seen, taken_at=NOW + timedelta(minutes=1)), WANTED, later(first, memory()), POLICY)
    assert restarts(again) == [(NAMES[0], Failure.STUCK)]


def test_a_shard_whose_live_agent_moves_it_is_left_alone_until_the_deadline() -> None:
    moved = topology([(dataset(), 6)])
    shards = tuple(replace(s, generation=1) if s.name == NAMES[0] else s for s in moved.shards["pins"])
    ideal = replace(moved, shards={"pins": shards})
    report = AgentReport(
        connect_worker="w0:8083",
        connect_url="http://w0:8083",
        leader_dir="/leaders",
        pid=1,
        host="w0",
        started=NOW,
        reported=NOW,
        synced=moved.zxid,
        files=6,
        moving={NAMES[0]: 1},
    )
    agents = {"w0": report.to_document()}
    seen = replace(world(beats(*NAMES[1:]), with_failed(NAMES[0])), topology=ideal, agents=agents)
    first = make_plan(seen, WANTED, memory(), POLICY)
    assert restarts(first) == []
    assert "its agent moves it" in first.waiting[NAMES[0]].reason
    known = after(memory(), first, LeaderRecord)
    soon = replace(seen, taken_at=NOW + POLICY.liveness.leader_move / 2)
    assert restarts(make_plan(soon, WANTED, known, POLICY)) == []
    late = replace(seen, taken_at=NOW + POLICY.liveness.leader_move)
    assert restarts(make_plan(late, WANTED, known, POLICY)) == [(NAMES[0], Failure.CONNECTION)]
    # The agent is done with it: what fails now fails.
    finished = {"w0": replace(report, moving={}).to_document()}
    assert restarts(make_plan(replace(seen, agents=finished), WANTED, memory(), POLICY))
    # What an agent says may be garbage: then it is none.
    garbage = replace(seen, agents={"w0": {"connect_worker": "w0:8083", "synced": "x"}})
    assert restarts(make_plan(garbage, WANTED, memory(), POLICY)) == [(NAMES[0], Failure.CONNECTION)]
    # When the agents cannot be read, the deadline alone counts.
    unread = replace(seen, agents=None)
    assert restarts(make_plan(unread, WANTED, memory(), POLICY)) == []
    # Without an agent beside its worker nobody would move it.
    alone = replace(seen, agents={})
    planned = make_plan(alone, WANTED, memory(), POLICY)
    assert restarts(planned) == [(NAMES[0], Failure.CONNECTION)]
    assert any("no live agent beside w0:8083" in finding.text for finding in planned.plan.findings)


def test_500_failing_findings_are_one_with_the_cure() -> None:
    ideal = topology([(dataset(), 500)])
    one_host = tuple(replace(s, leader=ideal.shards["pins"][0].leader) for s in ideal.shards["pins"])
    held = {
        s.name: connector(
            s.name, config_of(dataset(), s, cluster()), task="FAILED", trace="Access denied for user 'cdc'@'x'"
        )
        for s in one_host
    }
    planned = make_plan(picture(replace(ideal, shards={"pins": one_host}), {"main": held}), WANTED, Memory(), POLICY)
    assert restarts(planned) == []
    (finding,) = (f for f in planned.plan.findings if "authentication" in f.text)
    assert finding.subject == "pins"
    assert "500 shards are down" in finding.text
    assert list(planned.incidents) == ["authentication@pins"]
    assert list(planned.changes.of(Incident)) == ["authentication@pins"]
    # Unchanged, it is written no second time.
    known = after(Memory(), planned, Incident, RestartRecord)
    again = make_plan(picture(replace(ideal, shards={"pins": one_host}), {"main": held}), WANTED, known, POLICY)
    assert again.changes.of(Incident) == {}
    # A pass that looks at nothing, paused or without an answer, ends no incident: it would be alerted as over.
    blind = replace(picture(replace(ideal, shards={"pins": one_host}), {"main": held}), problem="Kafka is away")
    assert make_plan(blind, WANTED, known, POLICY).changes.of(Incident) == {}


def test_records_of_shards_that_left_are_forgotten_and_kept_while_a_znode_is_broken() -> None:
    record = RestartRecord(failure=Failure.UNKNOWN, attempts=1, first_failed=NOW, last_restart=NOW, next_restart=NOW)
    before = memory({RestartRecord: {"pins.00077": record}})
    assert make_plan(world(beats(*NAMES)), WANTED, before, POLICY).changes.of(RestartRecord) == {"pins.00077": None}


def test_who_never_beat_is_told_after_a_while() -> None:
    captured = {name: CapturedRecord(since=NOW - timedelta(hours=1), generation=1) for name in NAMES}
    before = Memory({LiveRecord: {NAMES[1]: LiveRecord(since=NOW)}, CapturedRecord: captured})
    planned = make_plan(world(beats(NAMES[1])), WANTED, before, POLICY)
    assert [f.text for f in planned.plan.findings if f.subject == "pins"] == [
        "5 connectors run but have never sent a heartbeat (pins.00000, pins.00002, pins.00003, pins.00004, "
        "pins.00005): their initial snapshot runs, or their source cannot be reached"
    ]
    assert restarts(planned) == []


def test_a_confirmed_zombie_is_stopped_and_resumed() -> None:
    twice = {
        "w0:8083": ObservedWorker(worker="w0:8083", streaming=frozenset(NAMES)),
        "w1:8083": ObservedWorker(worker="w1:8083", streaming=frozenset(NAMES[:1])),
    }
    seen = world(beats(*NAMES), workers=twice)
    first = make_plan(seen, WANTED, memory(), POLICY)
    assert first.plan.actions == ()
    records = {name: record for name, record in first.changes.of(ZombieRecord).items() if record}
    assert records == {NAMES[0]: ZombieRecord(since=NOW, workers=("w0:8083", "w1:8083"))}
    again = replace(seen, taken_at=NOW + timedelta(minutes=1))
    planned = make_plan(again, WANTED, memory({ZombieRecord: records}), POLICY)
    assert [(type(a), getattr(a, "name", "")) for a in planned.plan.actions] == [(StopAndResumeConnector, NAMES[0])]
    well = make_plan(replace(again, workers={}), WANTED, memory({ZombieRecord: records}), POLICY)
    assert well.changes.of(ZombieRecord) == {NAMES[0]: None}


def test_a_lasting_skew_is_cured_by_one_connector_first_and_not_while_the_group_moves() -> None:
    home = cluster(metrics={"w0:8083": "http://w0/metrics", "w1:8083": "http://w1/metrics"})
    ideal = topology([(dataset(), 40)], home)
    held = {s.name: connector(s.name, config_of(d, s, home)) for d, s in ideal.all_shards()}
    workers = {w: ObservedWorker(worker=w) for w in home.metrics}
    seen = replace(picture(ideal, {"main": held}), workers=workers)
    old = {"main": SkewRecord(since=NOW - timedelta(minutes=10))}
    first = make_plan(seen, WANTED, Memory(), POLICY)
    assert first.plan.actions == ()
    assert first.changes.of(SkewRecord) == {"main": SkewRecord(since=NOW)}
    cured = make_plan(seen, WANTED, Memory({SkewRecord: old}), POLICY)
    assert [type(a) for a in cured.plan.actions] == [StopAndResumeConnector]
    drifted = {**held, "pins.00000": connector("pins.00000", {**held["pins.00000"].config, "x": "1"})}
    busy = replace(picture(ideal, {"main": drifted}), workers=workers)
    assert [type(a) for a in make_plan(busy, WANTED, Memory({SkewRecord: old}), POLICY).plan.actions] == [
        UpdateConnector
    ]


def test_a_pass_moves_a_bounded_number() -> None:
    clusters = (cluster("east", draining=True), cluster("west"))
    ideal = topology([(dataset(clusters=("east", "west")), 150)], *clusters)
    held = {s.name: connector(s.name, config_of(d, s, clusters[0])) for d, s in ideal.all_shards()}
    planned = make_plan(picture(ideal, {"east": held, "west": {}}), WANTED, Memory(), POLICY)
    assert len([a for a in planned.plan.actions if isinstance(a, MigrateConnector)]) == POLICY.max_moves
    assert any("150 connectors move, 100 in this pass" in f.text for f in planned.plan.findings)


def test_a_suddenly_smaller_inventory_is_refused_until_it_is_allowed_however_many_passes() -> None:
    ideal = topology([(dataset(), 30)])
    lost = picture(ideal, {"main": {}})
    before = Memory({ClusterSize: {"main": ClusterSize(30)}})
    for _ in range(3):
        planned = make_plan(lost, WANTED, before, POLICY)
        assert [r.scope for r in planned.plan.refusals] == ["cluster main"]
        before = after(before, planned)
    big, small = topology([(dataset(), 400)]), topology([(dataset(), 100)])
    held = {s.name: connector(s.name, config_of(d, s, big.clusters["main"])) for d, s in big.all_shards()}
    # 1 % of 60,000 would allow it, but a dataset does not shrink to a quarter unnoticed.
    policy = replace(POLICY, max_delete_fraction=0.9)
    sizes = Memory({DatasetSize: {"pins": DatasetSize(400)}})
    refused = make_plan(picture(small, {"main": held}), WANTED, sizes, policy)
    assert [r.scope for r in refused.plan.refusals] == ["dataset pins"]
    assert refused.changes.of(DatasetSize) == {"pins": DatasetSize(400)}
    allowed = make_plan(picture(small, {"main": held}), WANTED, sizes, replace(policy, accept_shrink=True))
    assert len(allowed.plan.actions) == 300
