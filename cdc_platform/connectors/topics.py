"""The topics that a topology needs: one per table, and the platform's own."""

from __future__ import annotations

from collections.abc import Iterator

from cdc_platform.connectors.identity import (
    notification_topic,
    schema_history_topic,
    signal_topic,
    table_topic,
    transaction_topic,
)
from cdc_platform.model.observed import TopicRequest
from cdc_platform.model.topology import Dataset, Limits, TopicSpec, Topology
from cdc_platform.settings import Settings

DAY_MS = 86_400_000
WEEK_MS = 7 * DAY_MS
UNLIMITED = "-1"

# Each notification has a key of its own: more partitions would lose their order.
NOTIFICATION_PARTITIONS = 1


def desired_topics(topology: Topology, settings: Settings) -> tuple[TopicRequest, ...]:
    """Every topic that must exist before connectors write, by name; none for an empty topology.

    The platform's own topics take the greatest replication of any dataset. The
    state topic is not among them: its writer keeps it. What is in the
    topology's problems wants none.
    """
    off = {(problem.kind, problem.name) for problem in topology.problems}
    datasets = [dataset for name, dataset in topology.datasets.items() if ("dataset", name) not in off]
    if not datasets:
        return ()
    shared = max(dataset.topics.replication for dataset in datasets)
    found = {request.name: request for request in _shared_topics(settings, shared)}
    for dataset in datasets:
        found |= {request.name: request for request in _dataset_topics(settings, dataset)}
    for dataset, shard in topology.all_shards():
        if ("dataset", dataset.name) in off or ("shard", shard.name) in off:
            continue
        found.setdefault(
            signal_topic(settings, shard), _log(signal_topic(settings, shard), 1, dataset.topics.replication)
        )
        if dataset.engine.reads_binlog:
            name = schema_history_topic(settings, shard)
            found[name] = _history(name, dataset.topics.replication)
    return tuple(found[name] for name in sorted(found))


def _shared_topics(settings: Settings, replication: int) -> Iterator[TopicRequest]:
    # Debezium sends heartbeats to partition 0. One a shard is kept for a week,
    # however many were sent: a dead shard's last one stays readable.
    yield TopicRequest(
        name=settings.heartbeat_topic,
        partitions=1,
        replication=replication,
        config={
            "cleanup.policy": "compact,delete",
            "retention.ms": str(WEEK_MS),
            "segment.ms": "600000",
            "max.compaction.lag.ms": "3600000",
            # One clock for all heartbeats: a worker whose clock is wrong must not make the others look dead.
            "message.timestamp.type": "LogAppendTime",
            **_in_sync(replication),
        },
    )
    yield _log(notification_topic(settings), NOTIFICATION_PARTITIONS, replication)


def _dataset_topics(settings: Settings, dataset: Dataset) -> Iterator[TopicRequest]:
    spec = dataset.topics
    for table in dataset.tables:
        yield TopicRequest(
            name=table_topic(dataset, table),
            partitions=spec.partitions,
            replication=spec.replication,
            config={**data_topic_config(spec, dataset.limits), **spec.config},
        )
    yield _log(transaction_topic(settings, dataset), spec.partitions, spec.replication)


def data_topic_config(spec: TopicSpec, limits: Limits) -> dict[str, str]:
    """A table topic's config before the dataset's own: compacted, so that the whole state stays provable.

    For a week nothing is compacted and tombstones stay: that is how long a
    fold may pause, and how far back duplicates are judged.
    """
    return {
        "cleanup.policy": "compact",
        "min.compaction.lag.ms": str(WEEK_MS),
        "delete.retention.ms": str(WEEK_MS),
        "max.message.bytes": str(limits.producer_buffer_bytes),
        **_in_sync(spec.replication),
    }


def _history(name: str, replication: int) -> TopicRequest:
    # Read from the start at each start of a task, so nothing of it may go.
    return TopicRequest(
        name=name,
        partitions=1,
        replication=replication,
        config={
            "cleanup.policy": "delete",
            "retention.ms": UNLIMITED,
            "retention.bytes": UNLIMITED,
            **_in_sync(replication),
        },
    )


def _log(name: str, partitions: int, replication: int) -> TopicRequest:
    return TopicRequest(
        name=name,
        partitions=partitions,
        replication=replication,
        config={"cleanup.policy": "delete", "retention.ms": str(WEEK_MS), **_in_sync(replication)},
    )


def _in_sync(replication: int) -> dict[str, str]:
    """One broker may be away without stopping the writers, and one copy more than the leader's is certain."""
    return {"min.insync.replicas": str(max(1, replication - 1))}
