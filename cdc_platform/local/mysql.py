"""The stack's MySQL: a primary and a replica with GTIDs, row binlog and the users that tests need."""

from __future__ import annotations

import os
import shutil
import ssl
from pathlib import Path
from typing import Any

import pymysql
import pymysql.cursors
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from cdc_platform.errors import SourceUnavailable, StackError
from cdc_platform.local import java, mariadb
from cdc_platform.local.mysql_program import Program
from cdc_platform.local.services import Launch
from cdc_platform.local.short_program import run_program
from cdc_platform.local.stack_passwords import Login, Logins
from cdc_platform.local.stack_security import Security

SERVERS = ("mysql-1", "mysql-2")
# A table of the stack's own: a promotion writes a row into it.
OWN_DATABASE = "cdc_stack"
# Beside the data, with the number of a server that has lost its first one.
_SERVER_ID = "server-id"

# What Debezium needs of the source user where no table is locked, and no more:
# https://debezium.io/documentation/reference/stable/connectors/mysql.html#mysql-creating-user
_SOURCE_GRANTS = "SELECT, SHOW DATABASES, REPLICATION SLAVE, REPLICATION CLIENT, XA_RECOVER_ADMIN"


def write_config(home: Path, name: str, *, port: int, primary: bool, security: Security | None) -> None:
    """Write a server's my.cnf for its role; takes effect when it starts."""
    (home / "tmp").mkdir(parents=True, exist_ok=True)
    tls = ""
    if security is not None:
        _write_key(home, security)
        tls = f"ssl-ca={security.ca}\nssl-cert={home / 'tls' / 'cert.pem'}\nssl-key={home / 'tls' / 'key.pem'}\n"
    (home / "my.cnf").write_text(
        f"""[mysqld]
datadir={home / "data"}
# Its own: a server that starts removes the temporary tables of all others there.
tmpdir={home / "tmp"}
# Relative to the data directory, because a socket's path may only have 107 bytes.
socket=mysql.sock
pid-file=mysql.pid
secure-file-priv=
loose-mysqlx=OFF
bind-address=127.0.0.1
port={port}
skip-name-resolve
server-id={server_id(home, name)}
super-read-only={"OFF" if primary else "ON"}
gtid-mode=ON
enforce-gtid-consistency=ON
log-bin=binlog
binlog-row-image=FULL
binlog-row-metadata=FULL
relay-log=relay
report-host={name}
report-port={port}
max-connections=600
# Memory: with the defaults 540 MB a server, with these below 250.
performance-schema=OFF
innodb-buffer-pool-size=16M
innodb-log-buffer-size=1M
replica-parallel-workers=1
innodb-use-native-aio=OFF
innodb-adaptive-hash-index=OFF
loose-innodb-redo-log-capacity=64M
table-open-cache=400
# A killed process loses nothing by these two; only a killed machine would.
innodb-flush-log-at-trx-commit=2
sync-binlog=0
{tls}"""
    )


def server_id(home: Path, name: str) -> int:
    """The server's number; see `renumber`."""
    own = home / _SERVER_ID
    return int(own.read_text()) if own.exists() else SERVERS.index(name) + 1


def renumber(home: Path, number: int) -> None:
    """Give a server that is made again another number: a replica passes over what was written under its own."""
    (home / _SERVER_ID).write_text(str(number))


def _write_key(home: Path, security: Security) -> None:
    # MySQL reads PEM; the stack's key and certificate are in a keystore.
    password = security.logins["keystore"].password.encode()
    key, certificate, _ = pkcs12.load_key_and_certificates(security.keystore.read_bytes(), password)
    assert key is not None and certificate is not None
    folder = home / "tls"
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def create_data(home: Path, launch: Launch, logins: Logins, *, tls: bool) -> None:
    """Make a data directory with the stack's accounts and no others, once.

    Both servers' histories begin empty, so the replica can start from nothing. With `tls` the
    replication account may only come over TLS.

    Raises:
        StackError: the server's own words.
    """
    data = mariadb.data_directory(home)
    if data.exists():
        return
    scratch = home / "data.new"
    shutil.rmtree(scratch, ignore_errors=True)
    accounts = home / "accounts.sql"
    accounts.touch(mode=0o600)
    accounts.write_text(_accounts(logins, tls))
    argv = [
        *launch.argv, "--initialize-insecure", f"--datadir={scratch}", f"--init-file={accounts}",
        "--disable-log-bin", "--super-read-only=OFF",
    ]  # fmt: skip
    try:
        done = run_program(argv)
    finally:
        accounts.unlink()
    if done.returncode != 0:
        raise StackError(
            f"MySQL's data directory could not be made:\n{(done.stdout + done.stderr).strip()[-2000:]}",
            where=str(home),
            cure="See that the disk has space; a library that is missing must be installed.",
        )
    scratch.replace(data)


def _accounts(logins: Logins, tls: bool) -> str:
    # A statement a line: what --init-file takes. Names and passwords are the stack's own, without quotes in them.
    lines = []
    for login, grants, option in (
        (logins.admin, "ALL PRIVILEGES", " WITH GRANT OPTION"),
        (logins.source, _SOURCE_GRANTS, ""),
        (logins.replication, "REPLICATION SLAVE", ""),
    ):
        required = " REQUIRE SSL" if tls and login is logins.replication else ""
        lines += [
            f"CREATE USER '{login.user}'@'%' IDENTIFIED WITH caching_sha2_password BY '{login.password}'{required};",
            f"GRANT {grants} ON *.* TO '{login.user}'@'%'{option};",
        ]
    lines += [
        f"CREATE DATABASE {OWN_DATABASE};",
        f"CREATE TABLE {OWN_DATABASE}.promotions (id BIGINT AUTO_INCREMENT PRIMARY KEY, "
        "server VARCHAR(64) NOT NULL, at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP);",
        "DROP USER 'root'@'localhost';",
    ]
    return "\n".join(lines) + "\n"


def connect(port: int, login: Login, *, database: str | None = None) -> Any:
    """As MariaDB's, over TLS. Raises SourceUnavailable."""
    return mariadb.connect(port, login, database=database, tls=_any_server(), server="MySQL")


def _any_server() -> ssl.SSLContext:
    # Loopback; without a secure stack the server signs its certificate itself.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def problem(port: int, login: Login) -> str | None:
    """None when the server answers a query. A probe."""
    try:
        with connect(port, login) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except (SourceUnavailable, pymysql.MySQLError) as error:
        return str(error)
    return None


def follow(port: int, primary_port: int, logins: Logins, security: Security | None) -> None:
    """Make the server on `port` replicate from the primary, by GTID. Idempotent."""
    tls = "SOURCE_SSL=0, GET_SOURCE_PUBLIC_KEY=1"
    if security is not None:
        tls = f"SOURCE_SSL=1, SOURCE_SSL_CA='{security.ca}', SOURCE_SSL_VERIFY_SERVER_CERT=1"
    with connect(port, logins.admin) as connection, connection.cursor() as cursor:
        cursor.execute("STOP REPLICA")
        cursor.execute(
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT=%s, SOURCE_USER=%s, "
            "SOURCE_PASSWORD=%s, SOURCE_AUTO_POSITION=1, SOURCE_CONNECT_RETRY=1, SOURCE_RETRY_COUNT=86400, "
            f"SOURCE_HEARTBEAT_PERIOD=1, {tls}",
            (primary_port, logins.replication.user, logins.replication.password),
        )
        cursor.execute("START REPLICA")


def ensure_first_gtid(port: int, name: str, logins: Logins) -> None:
    """Write one row where nothing was ever written: a server in use always has a GTID."""
    with connect(port, logins.admin) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT @@GLOBAL.gtid_executed AS position")
        if not cursor.fetchone()["position"]:
            cursor.execute(f"INSERT INTO {OWN_DATABASE}.promotions (server) VALUES (%s)", (name,))


def replication_problem(port: int, login: Login) -> str | None:
    """None when the replica's threads run. A probe."""
    try:
        status = replica_status(port, login)
    except (SourceUnavailable, pymysql.MySQLError) as error:
        return str(error)
    if status.get("Replica_IO_Running") == status.get("Replica_SQL_Running") == "Yes":
        return None
    return str(status.get("Last_IO_Error") or status.get("Last_SQL_Error") or "replication is not running yet")


def replica_status(port: int, login: Login) -> dict[str, Any]:
    """`SHOW REPLICA STATUS`; empty on a primary."""
    with connect(port, login) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW REPLICA STATUS")
        return dict(cursor.fetchone() or {})


def launch(home: Path, name: str, *, port: int, program: Program, log: Path) -> Launch:
    """How the server is started."""
    argv = [*program.command, f"--defaults-file={home / 'my.cnf'}", *program.options]
    if os.geteuid() == 0:
        argv.append("--user=root")
    return Launch(
        name=name,
        argv=tuple(argv),
        cwd=str(home),
        env=java.environment(),
        log=str(log),
        ports={"mysql": port},
        stage=1,
        grace=20.0,
    )
