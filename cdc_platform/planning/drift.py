"""What differs between the seen and the wanted, value by value."""

from __future__ import annotations

import json
from collections.abc import Mapping

from cdc_platform.model.fingerprints import fingerprint
from cdc_platform.model.observed import ObservedConnector, ObservedTopic, TopicRequest
from cdc_platform.model.topology import Address, Cluster, Dataset, Shard
from cdc_platform.planning.actions import Action, AddPartitions, AlterTopic
from cdc_platform.planning.canary import Before
from cdc_platform.planning.inputs import ConfigOf
from cdc_platform.planning.plan import Finding

# What a dataset's configuration is compared by, from pass to pass: that of a
# shard and a cluster that do not exist, so that neither coming nor going of
# shards looks like a change of the dataset.
_SAMPLE = "sample"
_SAMPLE_CLUSTER = Cluster(name=_SAMPLE, urls=("http://sample",))


def config_changes(seen: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, tuple[str | None, str | None]]:
    """Key to (value now, value wanted) where they differ. Connect adds `name` by itself."""
    # Equality of dicts is what is fast, and nearly all are equal.
    if seen == ({**wanted, "name": seen["name"]} if "name" in seen else wanted):
        return {}
    keys = (seen.keys() | wanted.keys()) - {"name"}
    return {key: (seen.get(key), wanted.get(key)) for key in keys if seen.get(key) != wanted.get(key)}


def digest_of(dataset: Dataset, config_of: ConfigOf) -> str:
    """A digest that changes when what the dataset's shards have in common changes."""
    sample = Shard(dataset=dataset.name, id=_SAMPLE, leader=Address(_SAMPLE, 1), database=_SAMPLE)
    text = json.dumps(dict(config_of(dataset, sample, _SAMPLE_CLUSTER)), sort_keys=True)
    return fingerprint(text)


def with_values(config: Mapping[str, str], values: Before) -> dict[str, str]:
    """The config with these values put in; None takes a key out."""
    merged: dict[str, str | None] = {**config, **values}
    return {key: value for key, value in merged.items() if value is not None}


def trouble_of(seen: ObservedConnector) -> tuple[str, str | None] | None:
    """The worker and trace of what failed in a connector; None when nothing did."""
    if seen.state == "FAILED":
        return seen.worker, seen.trace
    for task in seen.tasks:
        if task.state == "FAILED":
            return task.worker, task.trace
    return None


def compare_topic(wanted: TopicRequest, seen: ObservedTopic) -> tuple[list[Action], list[Finding]]:
    """What to change on a topic, and what only a person can."""
    actions: list[Action] = []
    findings: list[Finding] = []
    subject = f"topic {wanted.name}"
    if seen.partitions < wanted.partitions:
        actions.append(AddPartitions(topic=wanted.name, before=seen.partitions, total=wanted.partitions))
    elif seen.partitions > wanted.partitions:
        text = f"has {seen.partitions} partitions, {wanted.partitions} wanted; it cannot shrink"
        findings.append(Finding(subject=subject, text=text))
    if seen.replication != wanted.replication:
        text = (
            f"replication is {seen.replication}, {wanted.replication} wanted; "
            "reassign its partitions with kafka-reassign-partitions"
        )
        findings.append(Finding(subject=subject, text=text))
    held = wanted.config if seen.config is None else seen.config  # what was not read is not judged
    changes = {key: (held.get(key), value) for key, value in wanted.config.items() if held.get(key) != value}
    if changes:
        actions.append(AlterTopic(topic=wanted.name, changes=changes))
    return actions, findings
