"""The use case: count a table's duplicates per shard, name their causes, judge them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cdc_platform.clients.kafka.offset_history import OffsetHistories
from cdc_platform.clients.kafka.topic_records import Records
from cdc_platform.clients.platform import Platform
from cdc_platform.connectors.identity import table_topic
from cdc_platform.model.topology import Topology
from cdc_platform.verification.duplicates.causes import (
    DuplicatePolicy,
    ShardDuplicates,
    blame,
    judge,
    unsure_runs,
    window_start,
)
from cdc_platform.verification.duplicates.deliveries import DeliveryReader
from cdc_platform.verification.duplicates.delivery_store import TopicDeliveries
from cdc_platform.verification.duplicates.transaction_takeovers import OffsetTakeovers

LEADER = "leader/"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableDuplicates:
    """One table's count. `events` are all those delivered, `read` the records read for this count;
    `unreadable` are records that are not change events.
    """

    dataset: str
    table: str
    topic: str
    run_id: str
    checked_at: datetime
    events: int
    read: int
    unreadable: int
    shards: tuple[ShardDuplicates, ...]


def count_duplicates(
    platform: Platform,
    records: Callable[[str], Records],
    offsets: OffsetHistories,
    topology: Topology,
    dataset: str,
    table: str,
    *,
    run_id: str,
    policy: DuplicatePolicy | None = None,
    report: Callable[[int, int], None] | None = None,
) -> TableDuplicates:
    """Read what is new in the table's topic, and judge each of its shards.

    Args:
        records: topic to a reader that keeps headers and times (`TopicRecords(..., traced=True)`).
        offsets: asked how a binlog engine's task run began that sent events again.

    Raises:
        NotFound: there is no such topic. TopologyError: no such dataset or table, or a bad policy.
        KafkaUnavailable, KafkaRejected.
    """
    found = topology.dataset(dataset)
    topic = table_topic(found, found.table(table))
    policy = policy or DuplicatePolicy.of(found)
    now = datetime.now(UTC)
    reader = records(topic)
    try:
        bounds = reader.bounds()
        deliveries = TopicDeliveries(
            Path(platform.settings.cache_dir),
            platform.settings.platform,
            topic,
            bounds.topic_id,
            sorted(bounds.partitions),
            OffsetTakeovers(offsets, topology, found) if found.engine.reads_binlog else None,
        )
        read = deliveries.extend(
            reader,
            lambda: DeliveryReader(found.engine),
            dict(bounds.partitions),
            report or (lambda done, total: None),
        )
    finally:
        reader.close()
    counts = deliveries.counts()
    blames = blame(counts, leader_moves(platform.state.read(), dataset), since=window_start(policy, now))
    shards = judge([shard.id for shard in topology.shards.get(dataset, ())], blames, policy, unsure=unsure_runs(counts))
    events, unreadable = deliveries.totals()
    return TableDuplicates(
        dataset=dataset,
        table=table,
        topic=topic,
        run_id=run_id,
        checked_at=now,
        events=events,
        read=read,
        unreadable=unreadable,
        shards=tuple(shards),
    )


def leader_moves(state: Mapping[str, Mapping[str, Any]], dataset: str) -> dict[str, Sequence[datetime]]:
    """Shard id to when a pass saw its leader move, from the state topic."""
    prefix = f"{LEADER}{dataset}."
    return {
        key.removeprefix(prefix): (datetime.fromisoformat(document["since"]),)
        for key, document in state.items()
        if key.startswith(prefix) and document.get("since")
    }
