"""What the MariaDB and MySQL connectors share: both read a binlog."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta

from cdc_platform.connectors.identity import Identity
from cdc_platform.connectors.tables import literal
from cdc_platform.connectors.wire_format import Fixed
from cdc_platform.model.topology import Dataset, Limits, Shard
from cdc_platform.settings import Settings

# The binlog client's keep-alive, and with it the server's heartbeats on an idle
# binlog (0.8 of it): liveness and incremental snapshots on idle shards wait for
# these. When no event could be handed on for this long, the client reconnects
# and the transaction is sent again: so it must exceed what a rate limit blocks.
KEEP_ALIVE_MS = 10_000

# On an idle binlog a heartbeat can only follow a server's, each 8 s.
HEARTBEAT_MS = 5_000


WIRE_FORMAT: tuple[Fixed, ...] = (
    Fixed(
        "bigint.unsigned.handling.mode",
        "precise",
        "Values above 2^63 - 1 become negative numbers otherwise; decimal.format=NUMERIC writes them as numbers.",
    ),
    Fixed(
        "enable.time.adjuster",
        "false",
        "By default the years 0001 to 0099 are taken for two digits and moved to 1970 to 2069; the server has done "
        "that already where it was meant.",
    ),
    Fixed("inconsistent.schema.handling.mode", "fail", "Anything else loses events silently."),
)

# Without whole rows, an event has just the columns that changed.
SERVER_VARIABLES: Mapping[str, str] = {"log_bin": "1", "binlog_format": "ROW", "binlog_row_image": "FULL"}

_HISTORY = "schema.history.internal."


def dataset_options(dataset: Dataset) -> dict[str, str]:
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
        f"{_HISTORY}store.only.captured.databases.ddl": "true",
        # But of the shard's all tables are kept: the first event of one that comes into the dataset
        # later would end the task, as one of an unknown table (docs/decisions/0100).
        f"{_HISTORY}store.only.captured.tables.ddl": "false",
        f"{_HISTORY}skip.unparseable.ddl": "false",
    }


def shard_options(settings: Settings, shard: Shard, own: Identity) -> dict[str, str]:
    """The options that are this shard's alone."""
    kafka = settings.connect_kafka
    return {
        "database.server.id": str(own.server_id),
        "database.include.list": literal(shard.database),
        f"{_HISTORY}kafka.topic": str(own.schema_history_topic),
        f"{_HISTORY}kafka.bootstrap.servers": kafka["bootstrap.servers"],
        **{
            f"{_HISTORY}{role}.{name}": value
            for role in ("producer", "consumer")
            for name, value in kafka.items()
            if name != "bootstrap.servers"
        },
    }


def leftovers(name: str, config: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The schema history goes with the connector; nothing of it is left at the source."""
    history = config.get(f"{_HISTORY}kafka.topic")
    return ((history,) if history else ()), ()


def idle_gap(limits: Limits) -> timedelta:
    """An idle shard beats with the binlog's keep-alive."""
    return timedelta(milliseconds=keep_alive_ms(limits))


def keep_alive_ms(limits: Limits) -> int:
    """Long enough that a full queue under the dataset's rate limit is no dead connection."""
    if not limits.bytes_per_second:
        return KEEP_ALIVE_MS
    drained = (limits.queue_bytes + limits.producer_buffer_bytes) / limits.bytes_per_second
    return max(KEEP_ALIVE_MS, 2000 * math.ceil(drained))
