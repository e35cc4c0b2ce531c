"""Short connections to source databases: as whom, and with which deadlines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
import pymysql

from cdc_platform.clients.secrets import resolve_credentials
from cdc_platform.clients.sources.errors import source_errors
from cdc_platform.clients.sources.passwords import MYSQL_LOGINS, POSTGRES_LOGINS
from cdc_platform.model.topology import Address, Dataset


@contextmanager
def postgres_cursor(
    server: Address,
    dataset: Dataset,
    *,
    database: str,
    timeout: float,
    name: str,
    purpose: str,
    dirs: Sequence[str],
) -> Iterator[psycopg.Cursor[Any]]:
    """A cursor on a new connection that commits each statement.

    `name` is the shard's, for messages; `purpose` what the server's own views show;
    `dirs` bounds where secrets may lie. Raises SecretUnresolved, SourceUnavailable, SourceRejected.
    """
    user, password = resolve_credentials(dataset, dirs)
    with (
        source_errors(f"shard {name}: {server}"),
        psycopg.connect(
            host=server.host,
            port=server.port,
            user=user,
            password=password,
            dbname=database,
            autocommit=True,
            connect_timeout=max(2, int(timeout)),
            application_name=f"cdc-platform {purpose}",
            options=f"-c statement_timeout={int(timeout * 1000)}",
            require_auth=POSTGRES_LOGINS,
        ) as connection,
        connection.cursor() as cursor,
    ):
        yield cursor


@contextmanager
def mysql_cursor(
    server: Address, dataset: Dataset, *, timeout: float, name: str, dirs: Sequence[str]
) -> Iterator[pymysql.cursors.Cursor]:
    """A cursor on a new connection to MariaDB or MySQL, as `postgres_cursor`."""
    user, password = resolve_credentials(dataset, dirs)
    with source_errors(f"shard {name}: {server}"):
        connection = pymysql.connect(
            host=server.host,
            port=server.port,
            user=user,
            password=password,
            autocommit=True,
            auth_plugin_map=MYSQL_LOGINS,
            init_command=_limit(timeout),
            connect_timeout=max(1, int(timeout)),
            read_timeout=max(1, int(timeout)),
            write_timeout=max(1, int(timeout)),
        )
        try:
            with connection.cursor() as cursor:
                yield cursor
        finally:
            connection.close()


def _limit(seconds: float) -> str:
    """A statement that bounds the time of later ones on the server, for both engines.

    MariaDB alone reads the first comment; the second is for MySQL, and MariaDB passes over those of 5.7 and later.
    """
    mariadb, mysql = f", max_statement_time = {seconds:.3f}", f", max_execution_time = {seconds * 1000:.0f}"
    return f"SET @cdc_platform = 1 /*M!{mariadb} */ /*!80000{mysql} */"
