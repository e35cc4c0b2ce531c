"""What differs between the observed and the desired state, value by value. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from cdc_platform.model.fingerprints import fingerprint
from cdc_platform.model.naming import some_of
from cdc_platform.model.observed import ObservedConnector, ObservedTopic, TopicRequest
from cdc_platform.model.topology import Address, Cluster, Dataset, Shard
from cdc_platform.planning.actions import Action, AddPartitions, AlterTopic, CreateTopic
from cdc_platform.planning.canary import Before
from cdc_platform.planning.inputs import ConfigRenderer, Part
from cdc_platform.planning.memory import RecordChanges, TopicRecord
from cdc_platform.planning.plan import Finding, Refusal

# What a dataset's configuration is compared by, from pass to pass: that of a
# shard and a cluster that do not exist, so that neither coming nor going of
# shards looks like a change of the dataset.
_SAMPLE = "sample"
_SAMPLE_CLUSTER = Cluster(name=_SAMPLE, urls=("http://sample",))


# The scope of the refusal of topics that want more replicas than there are brokers.
TOO_FEW_BROKERS = "new topics"

NOT_OURS = (
    "exists, and no pass of this platform made it: it is left as it is, and no connector that writes to it is created. "
    "Change topic_pattern, or have the operator add it to adopted_topics in the settings"
)


def config_changes(current: Mapping[str, str], desired: Mapping[str, str]) -> dict[str, tuple[str | None, str | None]]:
    """Key to (value now, desired value) where they differ. Connect adds `name` by itself."""
    # Equality of dicts is what is fast, and nearly all are equal.
    if current == ({**desired, "name": current["name"]} if "name" in current else desired):
        return {}
    keys = (current.keys() | desired.keys()) - {"name"}
    return {key: (current.get(key), desired.get(key)) for key in keys if current.get(key) != desired.get(key)}


def digest_of(dataset: Dataset, config_of: ConfigRenderer) -> str:
    """A digest that changes when what the dataset's shards have in common changes."""
    sample = Shard(dataset=dataset.name, id=_SAMPLE, leader=Address(_SAMPLE, 1), database=_SAMPLE)
    text = json.dumps(dict(config_of(dataset, sample, _SAMPLE_CLUSTER)), sort_keys=True)
    return fingerprint(text)


def with_values(config: Mapping[str, str], values: Before) -> dict[str, str]:
    """The config with these values put in; None takes a key out."""
    merged: dict[str, str | None] = {**config, **values}
    return {key: value for key, value in merged.items() if value is not None}


def failure_of(connector: ObservedConnector) -> tuple[str, str | None] | None:
    """The worker and trace of what failed in a connector; None when nothing did."""
    if connector.state == "FAILED":
        return connector.worker, connector.trace
    for task in connector.tasks:
        if task.state == "FAILED":
            return task.worker, task.trace
    return None


def foreign_topics(
    desired: Iterable[TopicRequest],
    existing: Mapping[str, ObservedTopic] | None,
    made: Container[str],
    is_ours: Callable[[str], bool],
) -> frozenset[str]:
    """The desired topics that others made: they are not changed, and nothing new writes to them."""
    there = existing or {}
    return frozenset(t.name for t in desired if t.name in there and t.name not in made and not is_ours(t.name))


def compare_topics(
    desired: Iterable[TopicRequest],
    existing: Mapping[str, ObservedTopic] | None,
    foreign: Container[str],
    is_ours: Callable[[str], bool],
    now: datetime,
    brokers: int | None,
) -> Part:
    """What to create and change, and what only an operator can. `brokers` are up; None: not known."""
    if existing is None:
        return Part(refusals=(Refusal(scope="kafka", reason="its topics could not be read"),))
    actions: list[Action] = []
    findings: list[Finding] = []
    refusals: list[Refusal] = []
    made: dict[str, TopicRecord] = {}
    unmade: list[TopicRequest] = []
    for topic in desired:
        current = existing.get(topic.name)
        if current is None and brokers is not None and topic.replication > brokers:
            unmade.append(topic)
            continue
        if current is None:
            actions.append(CreateTopic(topic=topic))
            if not is_ours(topic.name):
                made[topic.name] = TopicRecord(since=now)
            continue
        if topic.name in foreign:
            refusals.append(Refusal(scope=f"topic {topic.name}", reason=NOT_OURS))
            continue
        if current.partitions < topic.partitions:
            actions.append(AddPartitions(topic=topic.name, before=current.partitions, total=topic.partitions))
        # What was not read is not judged.
        config = topic.config if current.config is None else current.config
        changes = {key: (config.get(key), value) for key, value in topic.config.items() if config.get(key) != value}
        if changes:
            actions.append(AlterTopic(topic=topic.name, changes=changes))
        findings += _only_by_hand(topic, current)
    if unmade and brokers is not None:
        refusals.append(Refusal(scope=TOO_FEW_BROKERS, reason=_too_few(unmade, brokers)))
    records = RecordChanges({TopicRecord: made}) if made else RecordChanges()
    return Part(actions=actions, refusals=refusals, findings=findings, records=records)


def _too_few(unmade: Sequence[TopicRequest], brokers: int) -> str:
    names = [topic.name for topic in unmade]
    wanted = max(topic.replication for topic in unmade)
    return (
        f"{len(names)} topics cannot be made, and no connector before them: replication {wanted} needs as many "
        f"brokers, and {brokers} answered ({some_of(names, 3)}). Set topics.replication of the datasets to {brokers} "
        f"at most, or start the missing brokers"
    )


def _only_by_hand(topic: TopicRequest, current: ObservedTopic) -> Iterator[Finding]:
    if current.partitions > topic.partitions:
        text = f"has {current.partitions} partitions, {topic.partitions} wanted; it cannot shrink"
        yield Finding(subject=f"topic {topic.name}", text=text)
    if current.replication != topic.replication:
        text = (
            f"replication is {current.replication}, {topic.replication} wanted; "
            "reassign its partitions with kafka-reassign-partitions"
        )
        yield Finding(subject=f"topic {topic.name}", text=text)
