"""What a MariaDB or MySQL server must be before a shard is captured from it: each lack by name, with its cure."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pymysql

from cdc_platform.clients.sources.binlog_tables import binlog_tables
from cdc_platform.clients.sources.errors import is_missing_right
from cdc_platform.clients.sources.replication import replication_status
from cdc_platform.connectors.engines.registry import ENGINES
from cdc_platform.errors import SourceRejected
from cdc_platform.model.topology import Dataset, Engine, Shard
from cdc_platform.planning.doctor.examination import Lack

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

# One of these is needed to lock tables. A line without ON grants a role, whose rights are not looked at.
_MAY_LOCK = re.compile(r"\b(ALL PRIVILEGES|RELOAD|LOCK TABLES|SUPER)\b|^GRANT (?!.* ON )", re.MULTILINE)


def check(cursor: pymysql.cursors.Cursor, dataset: Dataset, shard: Shard) -> None:
    """Raises SourceRejected with each reason for which changes of this server would not be captured."""
    lacks = [*wrong_settings(cursor, dataset.engine), *_locking(cursor, dataset, shard)]
    if lacks:
        raise SourceRejected(
            f"the server cannot be captured from: {'; '.join(lack.what for lack in lacks)}.",
            where=f"shard {shard.name}: {shard.leader}",
            cure="; ".join(lack.cure for lack in lacks) + ". Settings belong into the configuration file, too.",
        )
    _check_tables(cursor, dataset, shard)


def _locking(cursor: pymysql.cursors.Cursor, dataset: Dataset, shard: Shard) -> Iterator[Lack]:
    locking = {**dataset.connector, **shard.connector}.get("snapshot.locking.mode", "none")
    if locking != "none":
        cursor.execute("SHOW GRANTS")
        if not _MAY_LOCK.search("\n".join(str(grant) for (grant,) in cursor.fetchall())):
            why = f"snapshot.locking.mode is {locking}, and the dataset's user has neither RELOAD nor LOCK TABLES"
            yield Lack(what=why, cure="Leave that option out: `none` loses nothing (docs/decisions/0044)")


def _check_tables(cursor: pymysql.cursors.Cursor, dataset: Dataset, shard: Shard) -> None:
    """Of the tables that are to be captured, none may stop the connector or have a key of two spellings."""
    tables, _ = binlog_tables(cursor, dataset, shard, cascades=False)
    found = {name: why for name, table in tables.items() if name not in shard.left_out and (why := table.refusal)}
    if found:
        raise SourceRejected(
            "; ".join(f"{shard.database}.{name} cannot be captured: {no.why}" for name, no in found.items()) + ".",
            where=f"shard {shard.name}: {shard.leader}",
            cure="; ".join(no.cure for no in found.values()) + ". Or take it out of the dataset's tables.",
        )


def wrong_settings(cursor: pymysql.cursors.Cursor, engine: Engine) -> Iterator[Lack]:
    """The server's variables that are not as they must be."""
    needed = dict(ENGINES[engine].server_variables)
    if _is_replica(cursor, engine):
        needed[replica_logs(engine)] = "1"
    cursor.execute("SELECT " + ",".join(f"@@global.{name}" for name in needed))
    for (name, wanted), value in zip(needed.items(), cursor.fetchone() or (), strict=True):
        if str(value) != wanted:
            why, cure = _LACKS[name]
            yield Lack(what=f"{why} ({name} is {value})", cure=cure)


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
