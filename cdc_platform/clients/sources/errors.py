"""What a source's error means: refused, which a person must fix, or unavailable, which is tried again.

One table for each protocol. Codes of MariaDB: https://mariadb.com/kb/en/mariadb-error-code-reference/; of MySQL 8.4:
https://dev.mysql.com/doc/mysql-errors/8.4/en/server-error-reference.html; of Postgres:
https://www.postgresql.org/docs/17/errcodes-appendix.html.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pymysql

from cdc_platform.errors import CdcError, SourceRejected, SourceUnavailable

# MariaDB and MySQL.
_LOGIN_REFUSED = frozenset(
    {
        1045,  # access denied
        1129,  # the host is blocked after too many failed connections
        1130,  # the host may not connect
        1251,  # the client does not support the authentication
        1275,  # the password is in an old format
        1524,  # the account's authentication plugin is not loaded
        1698,  # access denied without a password
        1820,  # the password must be changed before anything else
        1862,  # the password has expired
        2049,  # the password is in an old format
        2058,  # the authentication plugin cannot be loaded
        2059,
        2061,
        3118,  # MySQL: the account is locked
        3159,  # MySQL: only encrypted connections may log in
        3955,  # MySQL: the account is blocked after too many failed logins
        4151,  # MariaDB: the account is locked
    }
)
_RIGHT_MISSING = frozenset({1044, 1142, 1143, 1227, 1370})
_REQUEST_WRONG = frozenset(
    {
        1046,  # no database selected
        1049,  # unknown database
        1051,  # unknown table
        1054,  # unknown column
        1064,  # syntax
        1109,  # unknown table in a clause
        1146,  # no such table
        1193,  # unknown system variable
        1231,  # a variable cannot have this value
        1305,  # no such function
        1381,  # no binlog is written
        3546,  # MySQL: GTID_PURGED cannot be changed
    }
)
# Classes of drivers' errors that the same request will meet again, whatever the code.
_REQUEST_CLASSES = (
    pymysql.ProgrammingError,
    pymysql.DataError,
    pymysql.IntegrityError,
    pymysql.NotSupportedError,
)

# Postgres, by SQLSTATE class: connection, rollback, resources, object in use, operator intervention.
_RETRYABLE_CLASSES = ("08", "40", "53", "55", "57")
# A refused login reaches us without a SQLSTATE (libpq), as the server's words.
_LOGIN_REFUSED_WORDS = (
    "authentication",
    "permission denied",
    "not permitted to log in",
    "no pg_hba.conf entry",
    "does not exist",
)


@contextmanager
def source_errors(where: str) -> Iterator[None]:
    """Raises SourceRejected or SourceUnavailable for errors of pymysql, psycopg and the connection below them."""
    try:
        yield
    except (pymysql.Error, psycopg.Error, OSError) as error:
        raise classified(error, where) from None


def classified(error: Exception, where: str) -> CdcError:
    """The driver's error as ours; `where` names shard or table and server."""
    text = _text(error)
    if not _is_refused(error, text):
        return SourceUnavailable(f"the source did not answer: {text}.", where=where, cure="See that the server runs.")
    code = error.args[0] if error.args else None
    wrong = isinstance(error, pymysql.Error) and (code in _REQUEST_WRONG or isinstance(error, _REQUEST_CLASSES))
    return SourceRejected(
        f"the source refused: {text}.",
        where=where,
        cure="See the dataset's database and tables." if wrong else "See the dataset's credentials and rights.",
    )


def is_missing_right(error: pymysql.Error) -> bool:
    """True when the user may log in, but not ask this."""
    return bool(error.args) and error.args[0] in _RIGHT_MISSING


def _is_refused(error: Exception, text: str) -> bool:
    if isinstance(error, psycopg.Error):
        if error.sqlstate:
            return error.sqlstate[:2] not in _RETRYABLE_CLASSES
        return any(words in text for words in _LOGIN_REFUSED_WORDS)
    if isinstance(error, pymysql.Error):
        code = error.args[0] if error.args else 0
        return code in _LOGIN_REFUSED | _RIGHT_MISSING | _REQUEST_WRONG or isinstance(error, _REQUEST_CLASSES)
    return False


def _text(error: Exception) -> str:
    """The first line of what was said."""
    said = str(error.args[-1] if error.args and not isinstance(error, OSError) else error).strip()
    return next(iter(said.splitlines()), type(error).__name__).rstrip(". ")
