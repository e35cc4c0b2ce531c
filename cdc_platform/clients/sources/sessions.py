"""Short connections to source databases: as whom, with which deadlines, and our errors for the drivers'."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
import pymysql

from cdc_platform.clients.secrets import resolve_credentials
from cdc_platform.errors import CdcError, SourceRejected, SourceUnavailable
from cdc_platform.model.topology import Address, Credentials

# A refused login has no sqlstate in libpq, only the server's words.
_REFUSALS = ("authentication", "permission denied", "not permitted to log in", "no pg_hba.conf entry", "does not exist")
# MariaDB and MySQL: denied, expired password (1820, 1862), locked account (3118, 3955, 4151).
_DENIED = frozenset({1044, 1045, 1142, 1227, 1698, 1820, 1862, 3118, 3955, 4151})


@contextmanager
def postgres_cursor(
    server: Address,
    credentials: Credentials,
    *,
    database: str,
    timeout: float,
    name: str,
    purpose: str,
    dirs: Sequence[str] = (),
) -> Iterator[psycopg.Cursor[Any]]:
    """A cursor on a new connection that commits each statement.

    `name` is the shard's, for messages; `purpose` what the server's own views show;
    `dirs` bounds where secrets may lie. Raises SecretUnresolved, SourceUnavailable, SourceRejected.
    """
    user, password = resolve_credentials(credentials, dirs)
    with (
        _postgres_errors(name, server),
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
        ) as connection,
        connection.cursor() as cursor,
    ):
        yield cursor


@contextmanager
def mysql_cursor(
    server: Address, credentials: Credentials, *, timeout: float, name: str, dirs: Sequence[str] = ()
) -> Iterator[pymysql.cursors.Cursor]:
    """A cursor on a new connection to MariaDB or MySQL, as `postgres_cursor`."""
    user, password = resolve_credentials(credentials, dirs)
    with _mysql_errors(name, server):
        connection = pymysql.connect(
            host=server.host,
            port=server.port,
            user=user,
            password=password,
            autocommit=True,
            connect_timeout=max(1, int(timeout)),
            read_timeout=max(1, int(timeout)),
            write_timeout=max(1, int(timeout)),
        )
        try:
            with connection.cursor() as cursor:
                yield cursor
        finally:
            connection.close()


@contextmanager
def _postgres_errors(name: str, server: Address) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        state = error.sqlstate or ""
        text = next(iter(str(error).strip().splitlines()), type(error).__name__)
        # Without a state the connection failed; classes 08, 53, 55, 57 pass by themselves.
        busy = not state or state[:2] in ("08", "53", "55", "57")
        raise _said(busy and not any(words in text for words in _REFUSALS), text, name, server) from None


@contextmanager
def _mysql_errors(name: str, server: Address) -> Iterator[None]:
    try:
        yield
    except pymysql.Error as error:
        code = error.args[0] if error.args else 0
        away = isinstance(error, pymysql.OperationalError | pymysql.InterfaceError) and code not in _DENIED
        raise _said(away, str(error.args[-1] if error.args else error), name, server) from None


def _said(away: bool, text: str, name: str, server: Address) -> CdcError:
    where = f"shard {name}: {server}"
    text = text.strip().rstrip(".")
    if away:
        return SourceUnavailable(f"the source does not answer: {text}.", where=where, cure="See that the server runs.")
    return SourceRejected(f"the source refused: {text}.", where=where, cure="See the dataset's credentials and rights.")
