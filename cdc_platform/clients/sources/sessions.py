"""Short connections to source databases: as whom, and with which deadlines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
import pymysql

from cdc_platform.clients.secrets import resolve_credentials
from cdc_platform.clients.sources.connecting import connect_mysql, connect_postgres
from cdc_platform.clients.sources.errors import source_errors
from cdc_platform.clients.sources.source_rules import ANY, SourceRules
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
    rules: SourceRules = ANY,
    answer: float | None = None,
) -> Iterator[psycopg.Cursor[Any]]:
    """A cursor on a new connection that commits each statement.

    `name` is the shard's, for messages; `purpose` what the server's own views show; `dirs` bounds where secrets
    may lie; `answer` are the seconds of a statement where they differ from `timeout`.
    Raises LoginRefused, SecretUnresolved, SourceUnavailable, SourceRejected.
    """
    rules.check(server)
    user, password = resolve_credentials(dataset, dirs)
    with (
        source_errors(f"shard {name}: {server}"),
        connect_postgres(
            server,
            user,
            password,
            database=database,
            seconds=answer or timeout,
            connect_seconds=timeout,
            purpose=purpose,
            grace=1.0,
            rules=rules,
        ) as connection,
        connection.cursor() as cursor,
    ):
        yield cursor


@contextmanager
def mysql_cursor(
    server: Address,
    dataset: Dataset,
    *,
    timeout: float,
    name: str,
    dirs: Sequence[str],
    rules: SourceRules = ANY,
    answer: float | None = None,
) -> Iterator[pymysql.cursors.Cursor]:
    """A cursor on a new connection to MariaDB or MySQL, as `postgres_cursor`."""
    rules.check(server)
    user, password = resolve_credentials(dataset, dirs)
    with source_errors(f"shard {name}: {server}"):
        connection = connect_mysql(
            server,
            user,
            password,
            seconds=answer or timeout,
            connect_seconds=timeout,
            purpose="probe",
            grace=1.0,
            rules=rules,
        )
        try:
            with connection.cursor() as cursor:
                yield cursor
        finally:
            connection.close()
