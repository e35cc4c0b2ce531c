"""What the servers of a shard say of themselves: read-only questions before and after a leader moves."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pymysql

from cdc_platform.clients.sources.replication import channels, replication_status
from cdc_platform.clients.sources.rights import allowed, binlog_rights, postgres_rights
from cdc_platform.clients.sources.sessions import mysql_cursor, postgres_cursor
from cdc_platform.clients.sources.source_rules import ANY, SourceRules
from cdc_platform.errors import CdcError
from cdc_platform.model.servers import ServerView, SlotView
from cdc_platform.model.topology import Address, Credentials, Dataset, Engine, Shard

_MARIADB = {
    "identity": "CONCAT_WS(':', @@hostname, @@port, @@datadir)",
    "version": "@@version",
    "read_only": "@@read_only",
    "position": "@@gtid_binlog_pos",
    "server_id": "@@server_id",
    "log_bin": "@@log_bin",
    "binlog_format": "@@binlog_format",
    "binlog_row_image": "@@binlog_row_image",
    "log_bin_compress": "@@log_bin_compress",
    # In days, and since 10.6 in seconds as well; this one all releases know.
    "expire_logs_days": "@@expire_logs_days",
}
_MYSQL = {
    "identity": "@@server_uuid",
    "version": "@@version",
    "read_only": "@@read_only",
    "position": "@@gtid_executed",
    "server_id": "@@server_id",
    "log_bin": "@@log_bin",
    "binlog_format": "@@binlog_format",
    "binlog_row_image": "@@binlog_row_image",
    "binlog_expire_logs_seconds": "@@binlog_expire_logs_seconds",
    "gtid_mode": "@@gtid_mode",
    "binlog_row_value_options": "@@binlog_row_value_options",
}

# https://www.postgresql.org/docs/17/view-pg-replication-slots.html; `synced` and `failover` came with 17.
_POSTGRES = """
SELECT (SELECT system_identifier::text FROM pg_control_system()) || ' ' || pg_postmaster_start_time()::text,
       pg_is_in_recovery(), current_setting('server_version_num')::int,
       (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END
          - '0/0'::pg_lsn)::bigint,
       CASE WHEN pg_is_in_recovery() THEN extract(epoch FROM now() - pg_last_xact_replay_timestamp()) END,
       current_setting('wal_level'), current_setting('max_slot_wal_keep_size'),
       current_setting('default_transaction_read_only')
"""
_SLOTS = """
SELECT s.slot_name, (s.confirmed_flush_lsn - '0/0'::pg_lsn)::bigint, s.temporary,
       coalesce((to_jsonb(s) ->> 'synced')::boolean, false),
       coalesce((to_jsonb(s) ->> 'failover')::boolean, false), coalesce(s.wal_status, 'lost')
  FROM pg_replication_slots s WHERE s.slot_type = 'logical'
"""


# A server that did not answer is not asked again for each of its shards.
_SILENT_SECONDS = 2.0
_FORGET_SECONDS = 60.0


@dataclass(slots=True, kw_only=True)
class _Answer:
    """An answer, or one on its way; `at` is when it was asked for, or failed."""

    at: float
    future: Future[ServerView] = field(default_factory=Future)


class LeaderServers:
    """Asks the real servers. A connection a question; safe to call from many threads.

    Args:
        timeout: seconds, for connecting and for each statement.
        fresh: seconds for which an answer serves all shards of the same server and user.
            Who asks while an answer is on its way waits for that one.
    """

    def __init__(
        self, *, timeout: float = 3.0, fresh: float = 0.0, secrets_dirs: Sequence[str] = (), rules: SourceRules = ANY
    ) -> None:
        self._dirs, self._rules = tuple(secrets_dirs), rules
        self._timeout = timeout
        self._fresh = fresh
        self._known: dict[tuple[Address, Credentials], _Answer] = {}
        self._lock = threading.Lock()

    def view(self, dataset: Dataset, shard: Shard, server: Address, *, saved: str | None = None) -> ServerView:
        """What `server` says. `saved` is only asked of MySQL, which compares GTID sets itself.

        Raises:
            SourceUnavailable, SourceRejected, SecretUnresolved.
        """
        if not self._fresh or dataset.engine is Engine.MYSQL:
            return self._ask(dataset, shard, server, saved)
        key, now = (server, dataset.credentials), time.monotonic()
        with self._lock:
            known = self._known.get(key)
            mine = known is None or (known.future.done() and now - known.at > self._keep(known.future))
            if known is None or mine:
                self._known = {k: v for k, v in self._known.items() if now - v.at <= _FORGET_SECONDS}
                known = self._known[key] = _Answer(at=now)
        if mine:
            try:
                known.future.set_result(self._ask(dataset, shard, server, saved))
            except CdcError as error:
                known.at = time.monotonic()
                known.future.set_exception(error)
        return known.future.result(timeout=_FORGET_SECONDS)

    def _keep(self, answer: Future[ServerView]) -> float:
        return self._fresh if answer.exception() is None else max(self._fresh, _SILENT_SECONDS)

    def missing_rights(self, dataset: Dataset, shard: Shard, server: Address) -> tuple[str, ...]:
        """What the dataset's user lacks on `server`, by name, as far as a question can tell.

        Raises SourceUnavailable, SourceRejected, SecretUnresolved.
        """
        if dataset.engine is Engine.POSTGRES:
            with self._postgres(dataset, shard, server) as postgres:
                return tuple(lack.what for lack in postgres_rights(postgres, dataset))
        with mysql_cursor(
            server, dataset, timeout=self._timeout, name=shard.name, dirs=self._dirs, rules=self._rules
        ) as cursor:
            return tuple(lack.what for lack in binlog_rights(cursor, dataset, shard))

    def _ask(self, dataset: Dataset, shard: Shard, server: Address, saved: str | None) -> ServerView:
        if dataset.engine is Engine.POSTGRES:
            with self._postgres(dataset, shard, server) as cursor:
                return _postgres_view(cursor, server)
        with mysql_cursor(
            server, dataset, timeout=self._timeout, name=shard.name, dirs=self._dirs, rules=self._rules
        ) as cursor:
            return _mysql_view(cursor, server, dataset.engine, saved)

    def _postgres(self, dataset: Dataset, shard: Shard, server: Address) -> Any:
        return postgres_cursor(
            server,
            dataset,
            database=shard.database,
            timeout=self._timeout,
            name=shard.name,
            purpose="leader probe",
            dirs=self._dirs,
            rules=self._rules,
        )


def _mysql_view(cursor: pymysql.cursors.Cursor, server: Address, engine: Engine, saved: str | None) -> ServerView:
    names = _MARIADB if engine is Engine.MARIADB else _MYSQL
    cursor.execute(f"SELECT {', '.join(names.values())}")
    row = cursor.fetchone()
    assert row is not None
    found = {name: "" if value is None else str(value) for name, value in zip(names, row, strict=True)}
    settings = {name: found[name] for name in found if name not in ("identity", "position", "version")}
    if "expire_logs_days" in found:
        # Fractions of days, in which MariaDB shows what was set in seconds.
        settings["binlog_expire_logs_seconds"] = str(round(float(found["expire_logs_days"] or 0) * 86400))
    if engine is Engine.MYSQL and saved is not None:
        cursor.execute(
            "SELECT GTID_SUBSET(%s, @@GLOBAL.gtid_executed), GTID_SUBTRACT(@@GLOBAL.gtid_purged, %s)", (saved, saved)
        )
        contained, lost = cursor.fetchone() or (0, "")
        settings["saved_is_contained"] = str(int(contained or 0))
        settings["purged_behind_saved"] = str(lost or "").replace("\n", "")
    following, behind = _mysql_replication(cursor, engine)
    return ServerView(
        address=server,
        engine=engine,
        identity=found["identity"],
        writable=found["read_only"] in ("0", "OFF"),
        following=following,
        position=found["position"].replace("\n", ""),
        version=_major(found["version"]),
        server_id=int(found["server_id"]),
        oldest=_oldest(cursor) if engine is Engine.MARIADB else "",
        behind=behind,
        settings=settings,
    )


def _mysql_replication(cursor: pymysql.cursors.Cursor, engine: Engine) -> tuple[bool, float | None]:
    """Whether it follows another server, and the seconds behind. Without the right to know: no, unknown."""
    sql = replication_status(engine)
    if not allowed(cursor, sql):
        return False, None
    cursor.execute(sql)
    running = [channel for channel in channels(cursor) if channel.running]
    return bool(running), max((c.behind for c in running if c.behind is not None), default=None)


def _oldest(cursor: pymysql.cursors.Cursor) -> str:
    """The position before the first transaction that MariaDB's binlog still holds; empty where unknown."""
    if not allowed(cursor, "SHOW BINARY LOGS"):
        return ""
    cursor.execute("SHOW BINARY LOGS")
    first = cursor.fetchone()
    if first is None:
        return ""
    cursor.execute("SELECT BINLOG_GTID_POS(%s, 4)", (str(first[0]),))
    return str((cursor.fetchone() or ("",))[0] or "")


def _postgres_view(cursor: psycopg.Cursor[Any], server: Address) -> ServerView:
    cursor.execute(_POSTGRES)
    row = cursor.fetchone()
    assert row is not None
    identity, recovering, version, lsn, behind, level, keep, read_only = row
    cursor.execute(_SLOTS)
    slots = {
        name: SlotView(flushed=flushed, temporary=temporary, synced=synced, failover=failover, status=status)
        for name, flushed, temporary, synced, failover, status in cursor.fetchall()
    }
    return ServerView(
        address=server,
        engine=Engine.POSTGRES,
        identity=identity,
        writable=not recovering and read_only == "off",
        following=recovering,
        position=str(lsn or 0),
        version=version // 10000,
        behind=None if behind is None else float(behind),
        settings={"wal_level": level, "max_slot_wal_keep_size": _megabytes(keep)},
        slots=slots,
    )


def _megabytes(text: str) -> str:
    units = {"kB": 1 / 1024, "MB": 1, "GB": 1024, "TB": 1024**2}
    for unit, factor in units.items():
        if text.endswith(unit):
            return str(int(float(text.removesuffix(unit)) * factor))
    return text


def _major(version: str) -> int:
    head = version.partition(".")[0]
    return int(head) if head.isdigit() else 0
