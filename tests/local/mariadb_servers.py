"""What a promotion does to the stack's MariaDB servers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pymysql

from cdc_platform.local.mariadb import OWN_DATABASE, PRIMARY_ID, connect, replica_status
from cdc_platform.local.stack_passwords import Login


@contextlib.contextmanager
def writes_locked(port: int, login: Login) -> Iterator[str]:
    """Hold all writes of a server, the admin's too; gives its last GTID position."""
    with connect(port, login) as connection, connection.cursor() as cursor:
        cursor.execute("FLUSH TABLES WITH READ LOCK")
        cursor.execute("SELECT @@gtid_binlog_pos AS position")
        row = cursor.fetchone()
        try:
            yield row["position"]
        finally:
            # The server may be dead by now: then so is the lock.
            with contextlib.suppress(pymysql.MySQLError):
                cursor.execute("UNLOCK TABLES")


def behind(port: int, login: Login, position: str) -> str | None:
    """None when a replica has applied everything up to that GTID position."""
    with connect(port, login) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT MASTER_GTID_WAIT(%s, 0.5) AS late, @@gtid_slave_pos AS position", (position,))
        row = cursor.fetchone()
    return None if row["late"] == 0 else f"the replica is at {row['position']!r}, the primary at {position!r}"


def unapplied(port: int, login: Login) -> str | None:
    """None when a replica has applied all that it received."""
    status = replica_status(port, login)
    if not status:
        return "it is no replica"
    if status["Last_SQL_Errno"]:
        return str(status["Last_SQL_Error"])
    received = (status["Master_Log_File"], status["Read_Master_Log_Pos"])
    applied = (status["Relay_Master_Log_File"], status["Exec_Master_Log_Pos"])
    return None if received == applied else f"it received {received} and applied {applied}"


def become_primary(port: int, login: Login, name: str) -> None:
    """End replication, take the primary's id over, and write a row under it."""
    with connect(port, login) as connection, connection.cursor() as cursor:
        cursor.execute("STOP SLAVE")
        cursor.execute("RESET SLAVE ALL")
        cursor.execute("SET GLOBAL server_id = %s", (PRIMARY_ID,))
        cursor.execute("SET GLOBAL read_only = OFF")
    # A new session: the old one still has the old id.
    with connect(port, login) as connection, connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {OWN_DATABASE}.promotions (server) VALUES (%s)", (name,))
