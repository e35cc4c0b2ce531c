"""Connections to source databases: how a login is made, and what a session may do."""

from __future__ import annotations

from typing import Any

import psycopg
import pymysql

from cdc_platform.clients.sources.bounded import BoundedMySql, BoundedPostgres
from cdc_platform.clients.sources.passwords import MYSQL_LOGINS, REQUIRES_AUTH
from cdc_platform.clients.sources.source_rules import ANY, SourceRules
from cdc_platform.model.topology import Address

# On Postgres functions, operators and casts are found by the path, and the better match wins wherever it is: with
# another schema in it, a user who may create functions there has them run as the connector's user (CVE-2018-1058).
_PATH = "pg_catalog,pg_temp"


def connect_postgres(
    server: Address,
    user: str,
    password: str,
    *,
    database: str,
    seconds: float,
    connect_seconds: float,
    purpose: str,
    grace: float = 5.0,
    rules: SourceRules = ANY,
) -> psycopg.Connection[Any]:
    """A connection that commits each statement and searches `pg_catalog` only. Raises psycopg.Error, LoginRefused.

    Args:
        seconds: for which the server works on a statement.
        connect_seconds: for the login.
        purpose: what the server's own views show.
        grace: seconds beside, for the way to the server and back; then the connection is cut.
        rules: what is demanded of the server.
    """
    rules.check(server)
    millis = int(seconds * 1000)
    connection = BoundedPostgres.connect(
        host=server.host,
        port=server.port,
        user=user,
        password=password,
        dbname=database,
        autocommit=True,
        connect_timeout=max(2, int(connect_seconds)),
        application_name=f"cdc-platform {purpose}",
        # The server ends a statement; TCP ends one whose server is gone.
        options=f"-c statement_timeout={millis} -c search_path={_PATH}",
        require_auth=rules.postgres_auth if REQUIRES_AUTH else None,
        **rules.postgres_options(),
        tcp_user_timeout=millis + 5000,
        keepalives_idle=5,
        keepalives_interval=5,
        keepalives_count=3,
    )
    connection.answer_seconds = seconds + grace
    return connection


def connect_mysql(
    server: Address,
    user: str,
    password: str,
    *,
    seconds: float,
    connect_seconds: float,
    purpose: str,
    database: str | None = None,
    grace: float = 5.0,
    rules: SourceRules = ANY,
) -> pymysql.Connection[Any]:
    """As `connect_postgres`, to MariaDB or MySQL. Raises pymysql.Error, LoginRefused."""
    rules.check(server)
    connection = BoundedMySql(
        host=server.host,
        port=server.port,
        user=user,
        password=password,
        database=database,
        autocommit=True,
        auth_plugin_map=MYSQL_LOGINS,
        charset="utf8mb4",
        init_command=_limit(seconds),
        connect_timeout=max(1, int(connect_seconds)),
        read_timeout=max(1, int(seconds + grace)),
        write_timeout=max(1, int(seconds + grace)),
        program_name=f"cdc-platform {purpose}",
        defer_connect=True,
        **rules.mysql_options(),
    )
    connection.answer_seconds = seconds + grace
    connection.must_encrypt = bool(rules.ca)
    connection.connect()
    return connection


def _limit(seconds: float) -> str:
    """A statement that bounds the time of later ones on the server, for both engines.

    MariaDB alone reads the first comment; the second is for MySQL, and MariaDB passes over those of 5.7 and later.
    """
    mariadb, mysql = f", max_statement_time = {seconds:.3f}", f", max_execution_time = {seconds * 1000:.0f}"
    return f"SET @cdc_platform = 1 /*M!{mariadb} */ /*!80000{mysql} */"
