"""What the MariaDB and MySQL connectors share: both read a binlog."""

from __future__ import annotations

import math

from cdc_platform.connectors.identity import Identity
from cdc_platform.connectors.tables import literal
from cdc_platform.model.topology import Dataset, Limits, Shard
from cdc_platform.settings import Settings

# The binlog client's keep-alive, and with it the server's heartbeats on an idle
# binlog (0.8 of it): liveness and incremental snapshots on idle shards wait for
# these. When no event could be handed on for this long, the client reconnects
# and the transaction is sent again: so it must exceed what a rate limit blocks.
KEEP_ALIVE_MS = 10_000

# On an idle binlog a heartbeat can only follow a server's, each 8 s.
HEARTBEAT_MS = 5_000


def dataset_part(dataset: Dataset) -> dict[str, str]:
    """The options that are the same in all shards."""
    return {
        # GTID watermarks: signals and watermarks need no table in the source.
        "read.only": "true",
        # Locks no table and needs no LOCK TABLES privilege. The position is read before the
        # first row, so events in between come twice, not never (docs/decisions/0044).
        "snapshot.locking.mode": "none",
        "connect.keep.alive.interval.ms": str(keep_alive_ms(dataset.limits)),
        "heartbeat.interval.ms": str(HEARTBEAT_MS),
        "include.schema.changes": "false",
        "schema.history.internal": "io.debezium.storage.kafka.history.KafkaSchemaHistory",
        # Servers hold many databases: another's DDL is neither kept nor parsed again at each start.
        "schema.history.internal.store.only.captured.databases.ddl": "true",
        # But of the shard's all tables are kept: the first event of one that comes into the dataset
        # later would end the task, as one of a table that nobody knows (docs/decisions/0100).
        "schema.history.internal.store.only.captured.tables.ddl": "false",
        "schema.history.internal.skip.unparseable.ddl": "false",
    }


def shard_part(settings: Settings, shard: Shard, own: Identity) -> dict[str, str]:
    """The options that are this shard's alone."""
    kafka = worker_kafka(settings)
    history = "schema.history.internal."
    return {
        "database.server.id": str(own.server_id),
        "database.include.list": literal(shard.database),
        f"{history}kafka.topic": str(own.schema_history_topic),
        f"{history}kafka.bootstrap.servers": kafka["bootstrap.servers"],
        **{
            f"{history}{role}.{name}": value
            for role in ("producer", "consumer")
            for name, value in kafka.items()
            if name != "bootstrap.servers"
        },
    }


def keep_alive_ms(limits: Limits) -> int:
    """Long enough that a full queue under the dataset's rate limit is no dead connection."""
    if not limits.bytes_per_second:
        return KEEP_ALIVE_MS
    drained = (limits.queue_bytes + limits.producer_buffer_bytes) / limits.bytes_per_second
    return max(KEEP_ALIVE_MS, 2000 * math.ceil(drained))


def worker_kafka(settings: Settings) -> dict[str, str]:
    """Kafka as Connect workers reach it: Java client properties."""
    return {"bootstrap.servers": settings.kafka["bootstrap.servers"], **settings.worker_kafka}
