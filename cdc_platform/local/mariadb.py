"""The stack's MariaDB: a primary and a replica with GTIDs, row binlog and the users that tests need."""

from __future__ import annotations

import os
import shutil
import ssl
from pathlib import Path
from typing import Any

import pymysql
import pymysql.cursors

from cdc_platform.errors import SourceUnavailable, StackError
from cdc_platform.local import java
from cdc_platform.local.services import Launch
from cdc_platform.local.short_program import run_program
from cdc_platform.local.stack_passwords import Login, Logins

SERVERS = ("mariadb-1", "mariadb-2")
# By role, not by server: the server that is promoted takes the primary's over.
PRIMARY_ID = 1
REPLICA_ID = 2
# A table of the stack's own: a promotion writes a row into it.
OWN_DATABASE = "cdc_stack"

EMPTY_ROOT = Login(user="root", password="")

# What Debezium needs of the source user, and no more:
# https://debezium.io/documentation/reference/stable/connectors/mariadb.html#mariadb-creating-user
_NEW = "accounts.missing"
# Notes that a promotion left the server behind.
STALE = "data.stale"
SOURCE_GRANTS = "SELECT, SHOW DATABASES, REPLICATION SLAVE, BINLOG MONITOR, SLAVE MONITOR"


def write_config(home: Path, name: str, *, port: int, primary: bool, basedir: Path) -> None:
    """Write a server's my.cnf for its role; takes effect when it starts."""
    (home / "tmp").mkdir(parents=True, exist_ok=True)
    (home / "my.cnf").write_text(
        f"""[mariadbd]
basedir={basedir}
datadir={home / "data"}
# Its own: a server that starts removes the temporary tables of all others there.
tmpdir={home / "tmp"}
lc-messages-dir={basedir / "share"}
# Relative to the data directory, because a socket's path may only have 107 bytes.
socket=mariadb.sock
pid-file=mariadb.pid
bind-address=127.0.0.1
port={port}
skip-name-resolve
# Else MariaDB makes a 4096-bit key at each start, which takes up to 20 s of CPU.
skip-ssl
server_id={PRIMARY_ID if primary else REPLICA_ID}
read_only={"OFF" if primary else "ON"}
log_bin=binlog
binlog_format=ROW
binlog_row_image=FULL
binlog_row_metadata=FULL
gtid_strict_mode=ON
log_slave_updates=ON
relay_log=relay
report_host={name}
character-set-server=utf8mb4
max_connections=600
performance_schema=OFF
innodb_buffer_pool_size=64M
innodb_log_file_size=32M
# A killed process loses nothing by these two; only a killed machine would.
innodb_flush_log_at_trx_commit=2
sync_binlog=0
"""
    )


def create_data(home: Path, basedir: Path) -> bool:
    """Make an empty data directory, once; True when its accounts must still be made.

    Raises:
        StackError: the installer's own words.
    """
    data = data_directory(home)
    if data.exists():
        return (home / _NEW).exists()
    scratch = home / "data.new"
    shutil.rmtree(scratch, ignore_errors=True)
    (home / "tmp").mkdir(parents=True, exist_ok=True)
    argv = [
        "bash", str(basedir / "scripts" / "mariadb-install-db"), "--no-defaults", f"--basedir={basedir}",
        f"--datadir={scratch}", "--auth-root-authentication-method=normal", "--skip-test-db",
        "--innodb-log-file-size=32M", "--innodb-buffer-pool-size=32M", f"--tmpdir={home / 'tmp'}",
    ]  # fmt: skip
    if os.geteuid() == 0:
        argv.append("--user=root")
    done = run_program(argv)
    if done.returncode != 0:
        raise StackError(
            f"MariaDB's data directory could not be made:\n{(done.stdout + done.stderr).strip()[-2000:]}",
            where=str(home),
            cure="See that the disk has space; a library that is missing must be installed.",
        )
    (home / _NEW).touch()
    scratch.replace(data)
    return True


def data_directory(home: Path) -> Path:
    """Where a server's data are: removed first if they went another way than the primary's."""
    data, stale = home / "data", home / STALE
    if stale.exists():
        shutil.rmtree(data, ignore_errors=True)
        stale.unlink()
    return data


def connect(
    port: int,
    login: Login,
    *,
    database: str | None = None,
    timeout: float = 5.0,
    tls: ssl.SSLContext | None = None,
    server: str = "MariaDB",
) -> Any:
    """A connection that commits each statement and gives rows as dicts.

    Raises:
        SourceUnavailable: no server answered there, or it refused the user.
    """
    try:
        return pymysql.connect(
            host="127.0.0.1",
            port=port,
            user=login.user,
            password=login.password,
            database=database,
            autocommit=True,
            connect_timeout=int(timeout),
            read_timeout=60,
            cursorclass=pymysql.cursors.DictCursor,
            ssl=tls,
        )
    except pymysql.MySQLError as error:
        raise SourceUnavailable(
            f"{server} did not answer: {error.args[-1]}.",
            where=f"127.0.0.1:{port}",
            cure="`cdc-platform stack status` shows whether it runs.",
        ) from error


def problem(port: int, login: Login) -> str | None:
    """None when the server answers a query. A probe."""
    try:
        with connect(port, login) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except (SourceUnavailable, pymysql.MySQLError) as error:
        return str(error)
    return None


def create_users(home: Path, port: int, logins: Logins) -> None:
    """Make the accounts and close root's, on both servers alike and outside the binlog.

    So both histories begin empty, and the replica can start from nothing.
    """
    with connect(port, EMPTY_ROOT) as connection, connection.cursor() as cursor:
        cursor.execute("SET SESSION sql_log_bin = 0")
        for login, grants in (
            (logins.admin, "ALL PRIVILEGES"),
            (logins.source, SOURCE_GRANTS),
            (logins.replication, "REPLICATION SLAVE"),
        ):
            cursor.execute("CREATE OR REPLACE USER %s@'%%' IDENTIFIED BY %s", (login.user, login.password))
            option = " WITH GRANT OPTION" if login is logins.admin else ""
            cursor.execute(f"GRANT {grants} ON *.* TO %s@'%%'{option}", (login.user,))
        cursor.execute(f"CREATE DATABASE IF NOT EXISTS {OWN_DATABASE}")
        cursor.execute(
            f"CREATE TABLE IF NOT EXISTS {OWN_DATABASE}.promotions "
            "(id BIGINT AUTO_INCREMENT PRIMARY KEY, server VARCHAR(64) NOT NULL, "
            "at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)"
        )
        cursor.execute("DELETE FROM mysql.global_priv WHERE User IN ('root', '')")
        cursor.execute("FLUSH PRIVILEGES")
    (home / _NEW).unlink()


def follow(port: int, primary_port: int, logins: Logins) -> None:
    """Make the server on `port` replicate from the primary, by GTID. Idempotent."""
    with connect(port, logins.admin) as connection, connection.cursor() as cursor:
        cursor.execute("STOP SLAVE")
        cursor.execute(
            "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT=%s, MASTER_USER=%s, MASTER_PASSWORD=%s, "
            "MASTER_USE_GTID=slave_pos, MASTER_SSL=0, MASTER_CONNECT_RETRY=1, MASTER_HEARTBEAT_PERIOD=1",
            (primary_port, logins.replication.user, logins.replication.password),
        )
        cursor.execute("START SLAVE")


def ensure_first_gtid(port: int, name: str, logins: Logins) -> None:
    """Write one row where nothing was ever written: an offset without a GTID cannot be read back.

    Debezium 3.5.0 that started on an empty binlog fails at its next start
    (`gtidSet is null`). A server in use always has a GTID.
    """
    with connect(port, logins.admin) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT @@gtid_binlog_pos AS position")
        if not cursor.fetchone()["position"]:
            cursor.execute(f"INSERT INTO {OWN_DATABASE}.promotions (server) VALUES (%s)", (name,))


def replication_problem(port: int, login: Login) -> str | None:
    """None when the replica's two threads run. A probe."""
    try:
        status = replica_status(port, login)
    except (SourceUnavailable, pymysql.MySQLError) as error:
        return str(error)
    if status.get("Slave_IO_Running") == status.get("Slave_SQL_Running") == "Yes":
        return None
    return str(status.get("Last_IO_Error") or status.get("Last_SQL_Error") or "replication is not running yet")


def replica_status(port: int, login: Login) -> dict[str, Any]:
    """`SHOW SLAVE STATUS`; empty on a primary."""
    with connect(port, login) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW SLAVE STATUS")
        return dict(cursor.fetchone() or {})


def launch(home: Path, name: str, *, port: int, basedir: Path, log: Path) -> Launch:
    """How the server is started."""
    argv = [str(basedir / "bin" / "mariadbd"), f"--defaults-file={home / 'my.cnf'}"]
    if os.geteuid() == 0:
        argv.append("--user=root")
    return Launch(
        name=name,
        argv=tuple(argv),
        cwd=str(home),
        env=java.environment(),
        log=str(log),
        ports={"mariadb": port},
        stage=1,
        grace=20.0,
    )
