"""Debezium's connector for Postgres (3.7.0.Final), tried against Postgres 17."""

from __future__ import annotations

from cdc_platform.connectors.identity import Identity
from cdc_platform.model.topology import Shard

CONNECTOR_CLASS = "io.debezium.connector.postgresql.PostgresConnector"

# Written into the WAL with each heartbeat: needs no table and no privilege, and
# moves the committed position of an idle shard on. Transactional, because an
# event without a transaction id kills a read-only incremental snapshot: null
# pointer in PostgresReadOnlyIncrementalSnapshotContext.isTransactionVisible
# (3.7.0.Final). Costs an empty BEGIN and END a heartbeat (docs/decisions/0080).
HEARTBEAT_MESSAGE = "cdc.platform.heartbeat"
HEARTBEAT_MS = 10_000


def dataset_part() -> dict[str, str]:
    """The options that are the same in all shards."""
    return {
        "plugin.name": "pgoutput",
        # Just the dataset's tables, altered by the connector when they change. The connector's
        # user must own them; else make the publication by hand and set this to `disabled`.
        "publication.autocreate.mode": "filtered",
        # Copied to standbys by servers from version 17 on; older ones make an ordinary slot.
        "slot.failover": "true",
        "slot.drop.on.stop": "false",
        # A restarted task finds its predecessor's walsender still there for a moment.
        "slot.max.retries": "15",
        "slot.retry.delay.ms": "2000",
        # Watermarks by pg_current_snapshot(): no signal table in the source.
        "read.only": "true",
        "snapshot.locking.mode": "none",
        "heartbeat.interval.ms": str(HEARTBEAT_MS),
        "heartbeat.action.query": f"SELECT pg_logical_emit_message(true, '{HEARTBEAT_MESSAGE}', '')",
        # Messages, ours and the application's, advance the position and go to no topic.
        "message.prefix.exclude.list": ".*",
    }


def shard_part(shard: Shard, own: Identity) -> dict[str, str]:
    """The options that are this shard's alone."""
    return {
        "database.dbname": shard.database,
        "slot.name": str(own.slot),
        "publication.name": str(own.publication),
    }
