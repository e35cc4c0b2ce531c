"""Guardrails: each refuses its part of the plan and says why; the rest goes on."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from cdc_platform.model.observed import ObservedConnector
from cdc_platform.model.topology import Pause, Problem, Topology
from cdc_platform.planning.actions import (
    CreateConnector,
    DeleteConnector,
    MigrateConnector,
    RestartConnector,
    UpdateConnector,
)
from cdc_platform.planning.drift import config_changes
from cdc_platform.planning.health.failures import first_line
from cdc_platform.planning.health.liveness import CapturedRecord
from cdc_platform.planning.inputs import PassPolicy
from cdc_platform.planning.memory import ClusterSize, DatasetSize, Memory
from cdc_platform.planning.planner import make_plan
from cdc_platform.planning.rendering import to_json, to_text
from tests.planning.worlds import NOW, WANTED, after, cluster, config_of, connector, dataset, picture, shard, topology

POLICY = PassPolicy()


def running(ideal: Topology, *names: str, cluster_name: str = "main") -> dict[str, ObservedConnector]:
    home = ideal.clusters[cluster_name]
    return {
        s.name: connector(s.name, config_of(d, s, home)) for d, s in ideal.all_shards() if not names or s.name in names
    }


def test_an_empty_topology_deletes_nothing() -> None:
    full = topology([(dataset(), 8)])
    planned = make_plan(picture(Topology(clusters=full.clusters), {"main": running(full)}), WANTED, Memory(), POLICY)
    assert not [a for a in planned.plan.actions if isinstance(a, DeleteConnector)]
    assert [r.scope for r in planned.plan.refusals] == ["platform"]
    assert planned.plan.exit_code == 1


def test_a_shard_less_is_one_delete_that_is_named() -> None:
    full, less = topology([(dataset(), 8)]), topology([(dataset(), 7)])
    plan = make_plan(picture(less, {"main": running(full)}), WANTED, Memory(), POLICY).plan
    assert [a.name for a in plan.actions if isinstance(a, DeleteConnector)] == ["pins.00007"]
    assert "delete connector pins.00007" in to_text(plan)
    assert plan.exit_code == 2


def test_deletes_beyond_the_cap_are_refused_all_together_and_allowed_by_their_number() -> None:
    full, less = topology([(dataset(), 20)]), topology([(dataset(), 10)])
    world = picture(less, {"main": running(full)})
    refused = make_plan(world, WANTED, Memory(), POLICY).plan
    assert not [a for a in refused.actions if isinstance(a, DeleteConnector)]
    assert "--allow-deletes 10" in refused.refusals[0].reason
    allowed = make_plan(world, WANTED, Memory(), replace(POLICY, allow_deletes=10)).plan
    assert len([a for a in allowed.actions if isinstance(a, DeleteConnector)]) == 10


def test_an_unreadable_cluster_gets_no_action_and_the_others_go_on() -> None:
    ideal = topology(
        [(dataset("pins", ("east",)), 3), (dataset("orders", ("west",)), 2)], cluster("east"), cluster("west")
    )
    plan = make_plan(picture(ideal, {"east": None, "west": {}}), WANTED, Memory(), POLICY).plan
    creates = [a for a in plan.actions if isinstance(a, CreateConnector)]
    assert {a.cluster for a in creates} == {"west"}
    assert ("cluster east", "down") in [(r.scope, r.reason) for r in plan.refusals]
    assert to_json(plan)["exit_code"] == 1
    assert "refused for cluster east" in to_text(plan)


def test_a_shard_that_may_run_in_an_unreadable_cluster_is_not_created_elsewhere() -> None:
    ideal = topology([(dataset("pins", ("east", "west")), 1)], cluster("east"), cluster("west"))
    plan = make_plan(picture(ideal, {"east": None, "west": {}}), WANTED, Memory(), POLICY).plan
    assert not [a for a in plan.actions if isinstance(a, CreateConnector)]


def test_a_cluster_that_lost_most_connectors_is_left_alone_until_that_is_accepted() -> None:
    ideal = topology([(dataset(), 30)])
    world = picture(ideal, {"main": running(ideal, "pins.00001")})
    memory = Memory({ClusterSize: {"main": ClusterSize(30)}})
    plan = make_plan(world, WANTED, memory, POLICY).plan
    assert not [a for a in plan.actions if isinstance(a, CreateConnector)]
    assert [r.scope for r in plan.refusals] == ["cluster main"]
    accepted = make_plan(world, WANTED, memory, replace(POLICY, accept_shrink=True)).plan
    assert len([a for a in accepted.actions if isinstance(a, CreateConnector)]) == 29


def test_one_malformed_znode_of_many_switches_off_that_shard_only() -> None:
    full = topology([(dataset(), 8)])
    broken = replace(topology([(dataset(), 7)]), problems=(Problem("shard", "pins.00007", "leader: is no address."),))
    plan = make_plan(picture(broken, {"main": running(full)}), WANTED, Memory(), POLICY).plan
    assert not [a for a in plan.actions if isinstance(a, DeleteConnector)]
    assert [r.scope for r in plan.refusals] == ["shard pins.00007"]


def test_a_strangers_connector_of_the_same_name_is_not_touched() -> None:
    ideal = topology([(dataset(), 1)])
    stranger = connector("pins.00000", {"connector.class": "theirs"})
    plan = make_plan(picture(ideal, {"main": {"pins.00000": stranger}}), WANTED, Memory(), POLICY).plan
    assert not [a for a in plan.actions if getattr(a, "name", "") == "pins.00000"]
    assert plan.refusals[0].scope == "pins.00000"
    assert "somebody else" in plan.refusals[0].reason


def test_pauses_hold_until_they_expire() -> None:
    until = NOW + timedelta(minutes=1)
    pause = Pause(reason="maintenance", author="ann", until=until)
    paused = topology([(dataset(pause=pause), 2)])
    assert not [a for a in make_plan(picture(paused), WANTED, Memory(), POLICY).plan.actions if hasattr(a, "name")]
    later = replace(picture(paused), taken_at=until)
    assert len([a for a in make_plan(later, WANTED, Memory(), POLICY).plan.actions if hasattr(a, "name")]) == 2
    whole = replace(topology([(dataset(), 2)]), pause=pause)
    planned = make_plan(picture(whole), WANTED, Memory(), POLICY).plan
    assert planned.actions == ()
    assert [f.text for f in planned.findings] == ["paused by ann until 2026-01-02 03:05Z: maintenance"]


def test_without_kafka_nothing_new_is_started_but_failed_tasks_are_restarted() -> None:
    ideal = topology([(dataset(), 2)])
    failed = connector("pins.00000", config_of(dataset(), shard("pins", 0), cluster()), task="FAILED", trace="boom")
    plan = make_plan(picture(ideal, {"main": {"pins.00000": failed}}, topics=None), WANTED, Memory(), POLICY).plan
    assert [type(a) for a in plan.actions] == [RestartConnector]
    assert [r.scope for r in plan.refusals] == ["kafka"]


def test_an_update_names_what_changed_and_nothing_else() -> None:
    ideal = topology([(dataset(), 1)])
    config = {**config_of(dataset(), shard("pins", 0), cluster()), "name": "pins.00000"}
    same = picture(ideal, {"main": {"pins.00000": connector("pins.00000", config)}})
    assert not [a for a in make_plan(same, WANTED, Memory(), POLICY).plan.actions if isinstance(a, UpdateConnector)]
    drifted = connector("pins.00000", {**config, "tasks.max": "9", "leaders": "/elsewhere"})
    plan = make_plan(picture(ideal, {"main": {"pins.00000": drifted}}), WANTED, Memory(), POLICY).plan
    (update,) = (a for a in plan.actions if isinstance(a, UpdateConnector))
    assert update.changes == {"tasks.max": ("9", None), "leaders": ("/elsewhere", cluster().leader_dir)}


def test_a_missing_key_of_equal_count_is_still_a_change() -> None:
    assert config_changes({"a": "1", "name": "x"}, {"a": "1", "b": "2"}) == {"b": (None, "2")}
    assert config_changes({"a": "1", "b": "2", "name": "x"}, {"a": "1", "b": "2"}) == {}


def test_the_first_line_of_a_trace_is_its_root_cause() -> None:
    trace = "org.apache.kafka.ConnectException: outer\n\tat x\nCaused by: java.io.EOFException: inner\n\tat y"
    assert first_line(trace) == "java.io.EOFException: inner"
    assert first_line(None) == "no trace"


def test_the_first_line_of_a_trace_names_statement_table_and_topic() -> None:
    """They stand above the root cause, which is the parser's or says nothing of them."""
    unparsed = (
        "ConnectException: An exception occurred in the change event producer.\n"
        "Caused by: io.debezium.text.ParsingException: DDL statement couldn't be parsed. Please open a Jira issue with "
        "the statement 'ALTER TABLE x\n  ADD SYSTEM VERSIONING COMMENT 'it''s''\n"
        "no viable alternative at input 'ALTER'\n"
        "\tat io.debezium.antlr.ParsingErrorListener.syntaxError(ParsingErrorListener.java:43)\n"
        "Caused by: org.antlr.v4.runtime.NoViableAltException\n"
    )
    assert first_line(unparsed) == (
        "Debezium cannot parse the statement: ALTER TABLE x ADD SYSTEM VERSIONING COMMENT 'it''s'"
    )
    secret = unparsed.replace("COMMENT 'it''s'", "IDENTIFIED BY 'hunter2'")
    assert first_line(secret).endswith("IDENTIFIED BY '...'")
    long = unparsed.replace("VERSIONING", "x" * 300)
    assert len(first_line(long)) == 160
    row = "Caused by: Error processing row in items, internal schema size 2, but row size 3 , restart\nCaused by: x"
    assert first_line(row) == "a row of table items has 3 columns, the connector knows 2"
    topic = "Caused by: TimeoutException: Topic cdc.pins.Orders not present in metadata after 60000 ms."
    assert first_line(topic) == "Kafka did not answer for the topic cdc.pins.Orders"
    # Cut in the middle of the statement, as a worker may answer.
    assert first_line(unparsed[:180]).startswith("io.debezium.text.ParsingException: DDL statement")


def test_two_names_for_one_connect_group_are_refused_both_and_a_third_goes_on() -> None:
    clusters = (cluster("east"), cluster("west"), cluster("north"))
    ideal = topology([(dataset("pins", ("east", "west")), 3), (dataset("orders", ("north",)), 1)], *clusters)
    same = running(ideal, "pins.00000", "pins.00001", cluster_name="east")
    plan = make_plan(picture(ideal, {"east": same, "west": same, "north": {}}), WANTED, Memory(), POLICY).plan
    assert {r.scope for r in plan.refusals} == {"cluster east", "cluster west"}
    assert [a.name for a in plan.actions if hasattr(a, "name")] == ["orders.00000"]


def test_a_topology_that_vanished_with_its_clusters_is_refused_and_says_what_was_there() -> None:
    memory = Memory({ClusterSize: {"main": ClusterSize(3)}, DatasetSize: {"pins": DatasetSize(3)}})
    planned = make_plan(picture(Topology(), {}), WANTED, memory, POLICY)
    assert planned.plan.actions == ()
    (refusal,) = planned.plan.refusals
    assert refusal.scope == "platform"
    assert "3 shards of dataset pins, 3 connectors in cluster main" in refusal.reason
    assert planned.plan.exit_code == 1
    # It stays refused: what was there is not forgotten by the pass that refused.
    assert not planned.changes.of(ClusterSize)
    assert not planned.changes.of(DatasetSize)
    meant = make_plan(picture(Topology(), {}), WANTED, memory, replace(POLICY, accept_shrink=True))
    assert meant.plan.refusals == ()
    assert meant.changes.of(ClusterSize) == {"main": None}
    assert meant.changes.of(DatasetSize) == {"pins": None}


def test_a_new_platform_without_a_topology_has_nothing_to_refuse() -> None:
    assert make_plan(picture(Topology(), {}), WANTED, Memory(), POLICY).plan.refusals == ()


def test_a_cluster_that_left_the_topology_undrained_keeps_its_shards_from_being_created_elsewhere() -> None:
    ideal = topology([(dataset("pins", ("west",)), 4)], cluster("west"))
    where = {"pins.00000": "east", "pins.00001": None, "pins.00003": "west"}
    captured = {name: CapturedRecord(since=NOW, generation=1, cluster=home) for name, home in where.items()}
    memory = Memory(
        {
            ClusterSize: {"east": ClusterSize(2), "west": ClusterSize(1)},
            DatasetSize: {"pins": DatasetSize(4)},
            CapturedRecord: captured,
        }
    )
    planned = make_plan(picture(ideal, {"west": {}}), WANTED, memory, POLICY)
    # Those that never ran, or ran in west: the others may run in east.
    assert [a.name for a in planned.plan.actions if isinstance(a, CreateConnector)] == ["pins.00002", "pins.00003"]
    assert [r.scope for r in planned.plan.refusals] == ["cluster east"]
    assert "may still run in cluster east" in planned.waiting["pins.00000"].reason
    meant = make_plan(picture(ideal, {"west": {}}), WANTED, memory, replace(POLICY, accept_shrink=True))
    assert len([a for a in meant.plan.actions if isinstance(a, CreateConnector)]) == 4
    assert meant.plan.refusals == ()
    assert meant.changes.of(ClusterSize)["east"] is None


def test_a_shard_that_may_run_in_an_unreadable_cluster_its_dataset_no_longer_names_is_not_created() -> None:
    ideal = topology([(dataset("pins", ("west",)), 1)], cluster("east"), cluster("west"))
    memory = Memory(
        {
            ClusterSize: {"east": ClusterSize(1)},
            CapturedRecord: {"pins.00000": CapturedRecord(since=NOW, generation=1, cluster="east")},
        }
    )
    plan = make_plan(picture(ideal, {"east": None, "west": {}}), WANTED, memory, POLICY).plan
    assert not [a for a in plan.actions if isinstance(a, CreateConnector)]


def test_what_a_plan_takes_away_itself_is_not_missed_by_the_next_pass() -> None:
    full, less = topology([(dataset(), 30)]), topology([(dataset(), 10)])
    world = picture(less, {"main": running(full)})
    memory = Memory({ClusterSize: {"main": ClusterSize(30)}, DatasetSize: {"pins": DatasetSize(30)}})
    allowed = make_plan(world, WANTED, memory, replace(POLICY, allow_deletes=20))
    assert allowed.changes.of(ClusterSize) == {"main": ClusterSize(10)}
    following = after(memory, allowed)
    next_pass = make_plan(picture(less, {"main": running(less)}), WANTED, following, POLICY)
    assert next_pass.plan.refusals == ()


def test_a_drained_cluster_is_no_shrunk_one() -> None:
    clusters = (cluster("east", draining=True), cluster("west"))
    ideal = topology([(dataset("pins", ("east", "west")), 8)], *clusters)
    memory = Memory({ClusterSize: {"east": ClusterSize(8)}, DatasetSize: {"pins": DatasetSize(8)}})
    first = make_plan(picture(ideal, {"east": running(ideal, cluster_name="east"), "west": {}}), WANTED, memory, POLICY)
    assert len([a for a in first.plan.actions if isinstance(a, MigrateConnector)]) == 8
    following = after(memory, first)
    moved = picture(ideal, {"east": {}, "west": running(ideal, cluster_name="west")})
    assert make_plan(moved, WANTED, following, POLICY).plan.refusals == ()


def test_a_dataset_that_is_gone_and_accepted_is_forgotten() -> None:
    ideal = topology([(dataset("orders"), 2)])
    memory = Memory({DatasetSize: {"pins": DatasetSize(30), "orders": DatasetSize(2)}})
    assert [r.scope for r in make_plan(picture(ideal), WANTED, memory, POLICY).plan.refusals] == ["dataset pins"]
    meant = make_plan(picture(ideal), WANTED, memory, replace(POLICY, accept_shrink=True))
    assert meant.changes.of(DatasetSize) == {"pins": None, "orders": DatasetSize(2)}
