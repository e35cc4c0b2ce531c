"""Debezium's connector for Postgres, tried against Postgres 17."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from cdc_platform.connectors.engines.engine_facts import EngineFacts
from cdc_platform.connectors.identity import Identity
from cdc_platform.connectors.wire_format import Fixed
from cdc_platform.model.topology import Dataset, Engine, Limits, Shard
from cdc_platform.settings import Settings

# Written into the WAL with each heartbeat: needs no table and no privilege, and
# moves the committed position of an idle shard on. Transactional, because an
# event without a transaction id kills a read-only incremental snapshot: null
# pointer in PostgresReadOnlyIncrementalSnapshotContext.isTransactionVisible
# (3.7.0.Final). Costs an empty BEGIN and END a heartbeat (docs/decisions/0080).
HEARTBEAT_MESSAGE = "cdc.platform.heartbeat"
HEARTBEAT_MS = 10_000


# What events hold for a TOAST value that an update left unchanged and the replica identity does not carry.
UNAVAILABLE_VALUE = "__debezium_unavailable_value"

_WIRE_FORMAT: tuple[Fixed, ...] = (
    Fixed("interval.handling.mode", "string", "numeric takes a month for 30.4375 days."),
    Fixed("hstore.handling.mode", "json", "One text for each value."),
    Fixed("include.unknown.datatypes", "true", "A column that is left out cannot be proven."),
    Fixed(
        "driver.options",
        "-c bytea_output=hex -c IntervalStyle=postgres -c extra_float_digits=1",
        "The stream's values are text in the form that settings of database, role and server give them.",
    ),
    Fixed(
        "driver.stringtype",
        "unspecified",
        "Chunks are bounded by keys that the driver hands over as text: as VARCHAR, a time or bit string has no "
        "order, and the task dies.",
    ),
    Fixed("unavailable.value.placeholder", UNAVAILABLE_VALUE, "The proof recognises unchanged TOAST values by it."),
)


def _dataset_options(dataset: Dataset) -> dict[str, str]:
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


def _shard_options(settings: Settings, shard: Shard, own: Identity) -> dict[str, str]:
    """The options that are this shard's alone."""
    return {
        "database.dbname": shard.database,
        "slot.name": str(own.slot),
        "publication.name": str(own.publication),
    }


def _leftovers(name: str, config: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    slot = config.get("slot.name", "?")
    database = config.get("database.dbname", "?")
    return (
        (),
        (
            f"replication slot {slot} on the leader of {name} keeps its WAL: SELECT pg_drop_replication_slot('{slot}')",
            f"publication {config.get('publication.name', slot)} in database {database}",
        ),
    )


def _idle_gap(limits: Limits) -> timedelta:
    return timedelta(milliseconds=HEARTBEAT_MS)


FACTS = EngineFacts(
    engine=Engine.POSTGRES,
    connector_class="io.debezium.connector.postgresql.PostgresConnector",
    plugin="io.debezium:debezium-connector-postgres",
    version="3.7.0.Final",
    wire_format=_WIRE_FORMAT,
    dataset_options=_dataset_options,
    shard_options=_shard_options,
    leftovers=_leftovers,
    idle_gap=_idle_gap,
)
