"""What a promotion does to the stack's MySQL servers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pymysql

from cdc_platform.local.mysql import OWN_DATABASE, connect, replica_status
from cdc_platform.local.stack_passwords import Login


@contextlib.contextmanager
def writes_locked(port: int, login: Login) -> Iterator[str]:
    """Hold all writes of a server, the admin's too; gives the GTIDs that it executed."""
    with connect(port, login) as connection, connection.cursor() as cursor:
        cursor.execute("FLUSH TABLES WITH READ LOCK")
        cursor.execute("SELECT @@GLOBAL.gtid_executed AS position")
        row = cursor.fetchone()
        try:
            yield row["position"]
        finally:
            # The server may be dead by now: then so is the lock.
            with contextlib.suppress(pymysql.MySQLError):
                cursor.execute("UNLOCK TABLES")


def behind(port: int, login: Login, position: str) -> str | None:
    """None when a replica has applied all of that GTID set."""
    with connect(port, login) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, 0.5) AS late, @@GLOBAL.gtid_executed AS position", (position,)
        )
        row = cursor.fetchone()
    return None if row["late"] == 0 else f"the replica is at {row['position']!r}, the primary at {position!r}"


def unapplied(port: int, login: Login) -> str | None:
    """None when a replica has applied all that it received."""
    status = replica_status(port, login)
    if not status:
        return "it is no replica"
    if status["Last_SQL_Errno"]:
        return str(status["Last_SQL_Error"])
    with connect(port, login) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT GTID_SUBTRACT(%s, @@GLOBAL.gtid_executed) AS missing", (status["Retrieved_Gtid_Set"],))
        missing = cursor.fetchone()["missing"]
    return f"it received {missing} and has not applied it" if missing else None


def become_primary(port: int, login: Login, name: str) -> None:
    """End replication, take writes, and write a row."""
    with connect(port, login) as connection, connection.cursor() as cursor:
        cursor.execute("STOP REPLICA")
        cursor.execute("RESET REPLICA ALL")
        # read_only alone stays ON when super_read_only is set to OFF.
        cursor.execute("SET GLOBAL read_only = OFF")
        cursor.execute(f"INSERT INTO {OWN_DATABASE}.promotions (server) VALUES (%s)", (name,))
