"""The stack's MariaDB: a primary and a replica with GTIDs, row binlog and the users that tests need."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymysql
import pymysql.cursors

from cdc_platform.errors import SourceUnavailable, StackError
from cdc_platform.local import java
from cdc_platform.local.artifacts import Programs
from cdc_platform.local.secrets import Login
from cdc_platform.local.services import Launch

PRIMARY = "mariadb-primary"
REPLICA = "mariadb-replica"
SERVER_IDS = {PRIMARY: 1, REPLICA: 2}

# What Debezium needs of the source user, and no more:
# https://debezium.io/documentation/reference/stable/connectors/mariadb.html#mariadb-creating-user
_SOURCE_GRANTS = "SELECT, SHOW DATABASES, REPLICATION SLAVE, BINLOG MONITOR, SLAVE MONITOR"


@dataclass(frozen=True, slots=True, kw_only=True)
class Logins:
    """The accounts that are made: `source` is what connectors use, `replication` the replica's."""

    admin: Login
    source: Login
    replication: Login


def write_config(home: Path, name: str, *, port: int, server_id: int, read_only: bool, basedir: Path) -> Path:
    """Write a server's my.cnf; its path. Relative names in it are relative to the data directory."""
    config = home / "my.cnf"
    config.write_text(
        f"""[mariadbd]
basedir={basedir}
datadir={home / "data"}
lc-messages-dir={basedir / "share"}
# Relative, because a socket's path may only have 107 bytes.
socket=mariadb.sock
pid-file=mariadb.pid
bind-address=127.0.0.1
port={port}
skip-name-resolve
server_id={server_id}
read_only={"ON" if read_only else "OFF"}
log_bin=binlog
binlog_format=ROW
binlog_row_image=FULL
binlog_row_metadata=FULL
gtid_strict_mode=ON
log_slave_updates=ON
relay_log=relay
character-set-server=utf8mb4
max_connections=600
performance_schema=OFF
innodb_buffer_pool_size=64M
innodb_log_file_size=32M
innodb_flush_log_at_trx_commit=2
# A killed process loses nothing by this; only a killed machine would.
sync_binlog=0
report_host={name}
"""
    )
    return config


def create_data(home: Path, basedir: Path) -> bool:
    """Make an empty data directory, once; True when it was made now.

    Raises:
        StackError: the installer's own words.
    """
    data = home / "data"
    if data.exists():
        return False
    scratch = home / "data.new"
    shutil.rmtree(scratch, ignore_errors=True)
    home.mkdir(parents=True, exist_ok=True)
    argv = [
        "bash", str(basedir / "scripts" / "mariadb-install-db"), "--no-defaults", f"--basedir={basedir}",
        f"--datadir={scratch}", "--auth-root-authentication-method=normal", "--skip-test-db",
        "--innodb-log-file-size=32M", "--innodb-buffer-pool-size=32M",
    ]  # fmt: skip
    if os.geteuid() == 0:
        argv.append("--user=root")
    done = subprocess.run(argv, capture_output=True, text=True, env=java.environment(), timeout=120, check=False)
    if done.returncode != 0:
        raise StackError(
            f"MariaDB's data directory could not be made:\n{(done.stdout + done.stderr).strip()[-2000:]}",
            where=str(home),
            cure="See that the disk has space; a library that is missing must be installed.",
        )
    scratch.replace(data)
    return True


def launch(home: Path, name: str, *, port: int, programs: Programs, log: Path) -> Launch:
    """How the server is started."""
    argv = [str(programs.directories["mariadb"] / "bin" / "mariadbd"), f"--defaults-file={home / 'my.cnf'}"]
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


def connect(port: int, login: Login, *, database: str | None = None, timeout: float = 5.0) -> Any:
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
        )
    except pymysql.MySQLError as error:
        raise SourceUnavailable(
            f"MariaDB did not answer: {error.args[-1]}.",
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


EMPTY_ROOT = Login(user="root", password="")


def create_users(port: int, logins: Logins) -> None:
    """Make the accounts and close root's, on both servers alike and outside the binlog.

    So both histories begin empty, and the replica can start from nothing.
    """
    with connect(port, EMPTY_ROOT) as connection, connection.cursor() as cursor:
        cursor.execute("SET SESSION sql_log_bin = 0")
        for login, grants in (
            (logins.admin, "ALL PRIVILEGES"),
            (logins.source, _SOURCE_GRANTS),
            (logins.replication, "REPLICATION SLAVE"),
        ):
            cursor.execute("CREATE USER %s@'%%' IDENTIFIED BY %s", (login.user, login.password))
            option = " WITH GRANT OPTION" if login is logins.admin else ""
            cursor.execute(f"GRANT {grants} ON *.* TO %s@'%%'{option}", (login.user,))
        cursor.execute("DELETE FROM mysql.global_priv WHERE User IN ('root', '') AND User <> %s", (logins.admin.user,))
        cursor.execute("FLUSH PRIVILEGES")


def follow(port: int, primary_port: int, logins: Logins) -> None:
    """Make the server on `port` replicate from the primary, by GTID. Idempotent."""
    with connect(port, logins.admin) as connection, connection.cursor() as cursor:
        cursor.execute("STOP SLAVE")
        cursor.execute(
            "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT=%s, MASTER_USER=%s, MASTER_PASSWORD=%s, "
            "MASTER_USE_GTID=slave_pos, MASTER_CONNECT_RETRY=1, MASTER_HEARTBEAT_PERIOD=1",
            (primary_port, logins.replication.user, logins.replication.password),
        )
        cursor.execute("START SLAVE")


def replication_problem(port: int, login: Login) -> str | None:
    """None when the replica's two threads run. A probe."""
    try:
        with connect(port, login) as connection, connection.cursor() as cursor:
            cursor.execute("SHOW SLAVE STATUS")
            status = cursor.fetchone() or {}
    except (SourceUnavailable, pymysql.MySQLError) as error:
        return str(error)
    if status.get("Slave_IO_Running") == status.get("Slave_SQL_Running") == "Yes":
        return None
    return str(status.get("Last_IO_Error") or status.get("Last_SQL_Error") or "replication is not running yet")
