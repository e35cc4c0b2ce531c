"""A dataset's author, or who can write a connector, names topics of Kafka, Connect, other platforms and strangers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cdc_platform.connectors.config import desired_config, leftovers, problems
from cdc_platform.model.observed import ObservedTopic
from cdc_platform.model.topology import Table, TopicSpec
from cdc_platform.planning.actions import AddPartitions, AlterTopic, CreateTopic
from cdc_platform.planning.inputs import PassPolicy, Planned
from cdc_platform.planning.memory import Memory, TopicRecord
from cdc_platform.planning.planner import make_plan
from cdc_platform.reconciler.desired_state import desired_state
from cdc_platform.settings import Settings
from tests.connectors.cases import EAST, PINS, PINS_7, TOPOLOGY
from tests.own_secrets import SECRETS_DIRS
from tests.planning.worlds import NOW, picture

ANY = Settings(secrets_dirs=SECRETS_DIRS, permitted_topics=("*",))


@pytest.mark.parametrize(
    ("pattern", "dataset", "table"),
    [
        ("cdc-connect-{dataset}-{table}", "east", "configs"),
        ("cdc-connect-{dataset}-{table}", "east", "offsets"),
        ("__{dataset}_{table}", "consumer", "offsets"),
        ("__{dataset}_{table}", "transaction", "state"),
        ("_{dataset}.{table}", "x", "schemas"),
        ("{dataset}.platform.{table}", "cdc", "state"),
        ("{dataset}.{table}.state", "other", "platform"),
        ("cdc.{dataset}.{table}", "platform", "heartbeat"),
        ("cdc_{dataset}_{table}", "platform", "heartbeat"),
    ],
)
def test_reserved_names_are_refused_whatever_the_operator_permits(pattern: str, dataset: str, table: str) -> None:
    hostile = replace(PINS, name=dataset, topic_pattern=pattern, tables=(Table(name=table),))
    found = problems(replace(TOPOLOGY, datasets={dataset: hostile}, shards={dataset: ()}), ANY)
    assert ("dataset", dataset) in {(problem.kind, problem.name) for problem in found}
    assert any("topic" in problem.message for problem in found)


def test_connect_s_own_names_of_a_cluster_are_refused() -> None:
    cluster = replace(EAST, extra={"offsets_topic": "company-offsets"})
    hostile = replace(PINS, name="company", topic_pattern="{dataset}-{table}", tables=(Table(name="configs"),))
    topology = replace(TOPOLOGY, clusters={"east": cluster}, datasets={"company": hostile}, shards={"company": ()})
    assert any("company-configs has a name of" in problem.message for problem in problems(topology, ANY))


def test_a_dataset_has_topics_that_the_operator_permits_only() -> None:
    payments = replace(PINS, topic_pattern="payments{dataset}{table}", tables=(Table(name="t"),))
    topology = replace(TOPOLOGY, datasets={"pins": payments}, shards={"pins": ()})
    (found,) = problems(topology, replace(ANY, permitted_topics=("cdc.*",)))
    assert found.name == "pins" and "permitted_topics" in found.message
    for permitted in ("payments*", "*"):
        assert problems(topology, replace(ANY, permitted_topics=(permitted,))) == ()


def planned_with(
    topic: str, settings: Settings = ANY, made: bool = False, deletes: int = 5, allowed: int | None = None
) -> Planned:
    dataset = replace(
        PINS,
        topic_pattern=topic + "{dataset}{table}",
        tables=(Table(name="t"),),
        topics=TopicSpec(partitions=8, replication=1, config={"cleanup.policy": "delete", "retention.ms": "1"}),
    )
    topology = replace(TOPOLOGY, datasets={"pins": dataset}, shards={"pins": (PINS_7,)}, clusters={"east": EAST})
    desired = desired_state(topology, settings)
    there = {
        request.name: ObservedTopic(
            name=request.name, partitions=request.partitions, replication=request.replication, config=request.config
        )
        for request in desired.topics
    }
    name = f"{topic}pinst"
    there[name] = ObservedTopic(name=name, partitions=1, replication=1, config={"cleanup.policy": "compact"})
    memory = Memory({TopicRecord: {name: TopicRecord(since=NOW)}} if made else {})
    return make_plan(
        picture(topology, topics=there), desired, memory, PassPolicy(max_deletes=deletes, allow_deletes=allowed)
    )


def test_a_topic_that_others_made_is_not_changed_and_nothing_writes_to_it() -> None:
    found = planned_with("payments.")
    assert found.plan.actions == ()
    assert [refusal.scope for refusal in found.plan.refusals] == ["topic payments.pinst"]
    assert "payments.pinst" in found.waiting["pins.00007"].reason


@pytest.mark.parametrize(
    ("topic", "settings", "made"),
    [
        ("payments.", ANY, True),
        ("payments.", replace(ANY, adopted_topics=("payments.*",)), False),
        ("cdc.", ANY, False),
    ],
    ids=["made by a pass", "adopted by the operator", "of the default pattern"],
)
def test_the_platform_s_own_topic_is_changed(topic: str, settings: Settings, made: bool) -> None:
    found = planned_with(topic, settings, made, allowed=2)
    assert {type(action) for action in found.plan.actions} >= {AddPartitions, AlterTopic}


def test_a_new_topic_is_recorded_as_made_by_the_platform() -> None:
    dataset = replace(PINS, topic_pattern="app.{dataset}.{table}", tables=(Table(name="t"),))
    topology = replace(TOPOLOGY, datasets={"pins": dataset}, shards={"pins": (PINS_7,)}, clusters={"east": EAST})
    found = make_plan(picture(topology), desired_state(topology, ANY), Memory(), PassPolicy())
    assert "app.pins.t" in {action.topic.name for action in found.plan.actions if isinstance(action, CreateTopic)}
    assert dict(found.changes.of(TopicRecord)) == {"app.pins.t": TopicRecord(since=NOW)}


def test_keeping_less_counts_as_a_delete() -> None:
    found = planned_with("cdc.", deletes=0)
    assert not [action for action in found.plan.actions if isinstance(action, AlterTopic)]
    refusal, growth = found.plan.refusals
    assert refusal.scope == "deletes" and "cdc.pinst" in refusal.reason and "--allow-deletes 1" in refusal.reason
    assert growth.scope == "topic cdc.pinst"


def test_partitions_are_added_only_when_an_operator_allows_it() -> None:
    """Keys move: readers by key keep what stands where they were."""
    found = planned_with("cdc.")
    (refusal,) = found.plan.refusals
    assert refusal.scope == "topic cdc.pinst" and "1 partitions, 8 are wanted" in refusal.reason
    assert "--allow-deletes 1" in refusal.reason and "repair --tombstones" in refusal.reason
    assert {type(action) for action in found.plan.actions} & {AddPartitions, AlterTopic} == {AlterTopic}
    assert "pins.00007" not in found.waiting
    (both,) = planned_with("cdc.", allowed=1).plan.refusals
    assert (
        both.scope == "deletes" and "2 topics would keep less or get partitions (cdc.pinst, cdc.pinst)" in both.reason
    )


@pytest.mark.parametrize("topic", ["payments", "__consumer_offsets", "cdc.platform.schema-history.pins-00008"])
def test_a_connector_s_config_does_not_choose_which_topic_is_deleted(topic: str) -> None:
    config = desired_config(PINS, PINS_7, EAST, ANY)
    own = "cdc.platform.schema-history.pins-00007"
    assert leftovers(ANY, "pins.00007", config)[0] == (own,)
    topics, sentences = leftovers(ANY, "pins.00007", {**config, "schema.history.internal.kafka.topic": topic})
    assert topics == ()
    assert topic in sentences[-1]
