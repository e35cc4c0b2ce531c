"""What a MariaDB or MySQL server must be before a shard is captured from it: each lack by name, with its cure."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pymysql

from cdc_platform.clients.sources.errors import is_missing_right
from cdc_platform.clients.sources.replication import replication_status
from cdc_platform.connectors.engines.registry import ENGINES
from cdc_platform.errors import SourceRejected
from cdc_platform.model.topology import Dataset, Engine, Shard

# Variable to what a wrong value means, and the cure.
_LACKS = {
    "log_bin": ("it writes no binlog", "Start it with log_bin"),
    "binlog_format": ("it does not log rows", "SET GLOBAL binlog_format = ROW"),
    "binlog_row_image": ("it does not log whole rows", "SET GLOBAL binlog_row_image = FULL"),
    "log_bin_compress": ("the connector drops compressed events", "SET GLOBAL log_bin_compress = OFF"),
    "gtid_mode": ("it gives transactions no GTIDs", "Set enforce_gtid_consistency = ON, then gtid_mode = ON"),
    "binlog_row_value_options": ("it does not log whole documents", "SET GLOBAL binlog_row_value_options = ''"),
    "log_replica_updates": ("it is a replica that does not log what it applies", "Start it with log_replica_updates"),
    "log_slave_updates": ("it is a replica that does not log what it applies", "Start it with log_slave_updates"),
}

# Columns of TIMESTAMP with a fraction.
_FRACTIONS = """
SELECT table_name, column_name, column_type, column_key = 'PRI' FROM information_schema.columns
 WHERE table_schema = %s AND table_name IN %s AND data_type = 'timestamp' AND datetime_precision > 0
"""

# One of these is needed to lock tables. A line without ON grants a role, whose rights are not looked at.
_MAY_LOCK = re.compile(r"\b(ALL PRIVILEGES|RELOAD|LOCK TABLES|SUPER)\b|^GRANT (?!.* ON )", re.MULTILINE)


def check(cursor: pymysql.cursors.Cursor, dataset: Dataset, shard: Shard) -> None:
    """Raises SourceRejected with each reason for which changes of this server would not be captured."""
    lacks = list(_wrong_variables(cursor, dataset.engine))
    locking = {**dataset.connector, **shard.connector}.get("snapshot.locking.mode", "none")
    if locking != "none":
        cursor.execute("SHOW GRANTS")
        if not _MAY_LOCK.search("\n".join(str(grant) for (grant,) in cursor.fetchall())):
            why = f"snapshot.locking.mode is {locking}, and the dataset's user has neither RELOAD nor LOCK TABLES"
            lacks.append((why, "Leave that option out: `none` loses nothing (docs/decisions/0044)"))
    if lacks:
        raise SourceRejected(
            f"the server cannot be captured from: {'; '.join(why for why, _ in lacks)}.",
            where=f"shard {shard.name}: {shard.leader}",
            cure="; ".join(cure for _, cure in lacks) + ". Settings belong into the configuration file, too.",
        )
    _check_keys(cursor, dataset, shard)


def _check_keys(cursor: pymysql.cursors.Cursor, dataset: Dataset, shard: Shard) -> None:
    """A key that snapshot and stream spell differently: rows would have two keys in the topic, and outlive deletes."""
    cursor.execute(_FRACTIONS, (shard.database, tuple(table.name for table in dataset.tables)))
    named = {table.name: table.key for table in dataset.tables}
    for table, column, kind, primary in cursor.fetchall():
        if column in named[table] if named[table] else primary:
            raise SourceRejected(
                f"the key column {column} of table {table} is a {kind}: a snapshot spells its fraction otherwise than"
                " the stream, so that one row has two keys in the topic, and outlives its delete under one of them.",
                where=f"shard {shard.name}: {shard.leader}",
                cure="Name a unique key without it as `key` of the table, make it a TIMESTAMP(0) or DATETIME, or leave"
                " the table out.",
            )


def _wrong_variables(cursor: pymysql.cursors.Cursor, engine: Engine) -> Iterator[tuple[str, str]]:
    needed = dict(ENGINES[engine].server_variables)
    if _is_replica(cursor, engine):
        needed[replica_logs(engine)] = "1"
    cursor.execute("SELECT " + ",".join(f"@@global.{name}" for name in needed))
    for (name, wanted), value in zip(needed.items(), cursor.fetchone() or (), strict=True):
        if str(value) != wanted:
            why, cure = _LACKS[name]
            yield f"{why} ({name} is {value})", cure


def replica_logs(engine: Engine) -> str:
    """The variable that says whether a replica logs what it applies."""
    return "log_replica_updates" if engine is Engine.MYSQL else "log_slave_updates"


def _is_replica(cursor: pymysql.cursors.Cursor, engine: Engine) -> bool:
    """Who may not ask reads a leader, as far as is known."""
    try:
        cursor.execute(replication_status(engine))
        return bool(cursor.fetchall())
    except pymysql.Error as error:
        if is_missing_right(error):
            return False
        raise
