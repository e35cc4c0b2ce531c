"""What promotions and dropped databases do to the stack's Postgres servers."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from cdc_platform.errors import SourceUnavailable, StackError
from cdc_platform.local.postgres import connect
from cdc_platform.local.postgres_directories import PostgresDirectories, own
from cdc_platform.local.stack_passwords import Login


def make_standby(directories: PostgresDirectories, name: str) -> None:
    """Make a server come up read-only: one that must never take writes again."""
    path = directories.root / name / "standby.signal"
    path.touch()
    own(directories, path)


def failover_slots(primary_port: int, login: Login) -> frozenset[str]:
    """The logical slots of the primary that a standby is to have as well."""
    with connect(primary_port, login) as connection:
        rows = connection.execute("SELECT slot_name FROM pg_replication_slots WHERE failover").fetchall()
    return frozenset(row["slot_name"] for row in rows)


def slots_of(port: int, login: Login, database: str) -> tuple[str, ...]:
    """The logical slots on one database, also those that a standby has copied."""
    with connect(port, login) as connection:
        rows = connection.execute(
            "SELECT slot_name FROM pg_replication_slots WHERE database = %s ORDER BY 1", (database,)
        ).fetchall()
    return tuple(row["slot_name"] for row in rows)


def drop_slots(port: int, login: Login, slots: Sequence[str]) -> None:
    """Drop slots of a primary; who reads one is disconnected. Raises psycopg.Error: one was taken again at once."""
    with connect(port, login) as connection:
        for slot in slots:
            connection.execute(
                "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots "
                "WHERE slot_name = %s AND active",
                (slot,),
            )
            connection.execute(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", (slot,)
            )


def drop_database(port: int, login: Login, database: str) -> None:
    """Drop a database if it is there; who is connected to it is disconnected."""
    with connect(port, login) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database)))


def log_snapshot(primary_port: int, login: Login) -> None:
    """Write the running transactions to the log now, not in the next 15 s: slots advance over such a record."""
    with connect(primary_port, login) as connection:
        connection.execute("SELECT pg_log_standby_snapshot()")


def slots_not_ready(standby_port: int, login: Login, wanted: frozenset[str]) -> str | None:
    """None when all `wanted` slots, and all that the standby has, would survive its promotion."""
    with connect(standby_port, login) as connection:
        rows = connection.execute(
            "SELECT slot_name, synced AND NOT temporary AND confirmed_flush_lsn IS NOT NULL "
            "AND invalidation_reason IS NULL AS ready FROM pg_replication_slots WHERE slot_type = 'logical'"
        ).fetchall()
    found = {row["slot_name"]: row["ready"] for row in rows}
    late = sorted(wanted - found.keys()) + sorted(name for name, ready in found.items() if not ready)
    return f"failover slots not ready on the standby: {', '.join(late)}" if late else None


def flushed(primary_port: int, login: Login) -> str:
    """The primary's last durable log position."""
    with connect(primary_port, login) as connection:
        row = connection.execute("SELECT pg_current_wal_flush_lsn()::text AS position").fetchone()
    if row is None:
        raise SourceUnavailable("Postgres told no log position.", where=f"127.0.0.1:{primary_port}")
    return str(row["position"])


def behind(standby_port: int, login: Login, position: str) -> str | None:
    """None when a standby has replayed the log up to that position."""
    with connect(standby_port, login) as connection:
        row = connection.execute(
            "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn AS there, pg_last_wal_replay_lsn()::text AS at",
            (position,),
        ).fetchone()
    if row and row["there"]:
        return None
    return f"the standby is at {row['at'] if row else 'no position'}, the primary at {position}"


def promote(standby_port: int, login: Login) -> None:
    """End recovery and wait for it. Raises StackError."""
    with connect(standby_port, login) as connection:
        row = connection.execute("SELECT pg_promote(wait => true, wait_seconds => 60) AS done").fetchone()
    if not row or not row["done"]:
        raise StackError("it did not become a primary within 60 s.", where=f"127.0.0.1:{standby_port}")
