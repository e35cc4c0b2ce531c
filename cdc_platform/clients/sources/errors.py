"""What a source's error means: refused, which an operator must fix, or unavailable, which is tried again.

One table for each protocol. Codes of MariaDB: https://mariadb.com/kb/en/mariadb-error-code-reference/; of MySQL 8.4:
https://dev.mysql.com/doc/mysql-errors/8.4/en/server-error-reference.html; of Postgres:
https://www.postgresql.org/docs/17/errcodes-appendix.html.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pymysql

from cdc_platform.errors import CdcError, LoginRefused, SourceRejected, SourceUnavailable
from cdc_platform.model.masking import without_secrets

# MariaDB and MySQL.
_LOGIN_REFUSED = frozenset(
    # Denied; host blocked or not allowed; authentication not supported (the 20xx are pymysql's own).
    {1045, 1129, 1130, 1251, 1275, 1524, 1698, 2049, 2058, 2059, 2061, 3159}
    # Password expired or to be changed; MySQL: account locked, blocked after failed logins; MariaDB: locked.
    | {1820, 1862, 3118, 3955, 4151}
)
_OWN_CURES = {
    **dict.fromkeys(
        (1820, 1862),
        "Give the account a new password (ALTER USER ... IDENTIFIED BY), and write it where it is read from.",
    ),
    **dict.fromkeys((3118, 3955, 4151), "Unlock the account: ALTER USER ... ACCOUNT UNLOCK."),
    3159: "The server takes connections over TLS only: see that it offers TLS to this host.",
}
# The last is MySQL's answer to XA RECOVER without XA_RECOVER_ADMIN.
_RIGHT_MISSING = frozenset({1044, 1142, 1143, 1227, 1370, 1401})
# No or unknown database, table, column, function, variable or value; syntax; no binlog.
_REQUEST_WRONG = frozenset({1046, 1049, 1051, 1054, 1064, 1109, 1146, 1193, 1231, 1305, 1381})
# Classes of drivers' errors that the same request will meet again, whatever the code.
_REQUEST_CLASSES = (pymysql.ProgrammingError, pymysql.DataError, pymysql.IntegrityError, pymysql.NotSupportedError)

# Postgres, by SQLSTATE class: connection, rollback, resources, object in use, operator intervention.
_RETRYABLE_CLASSES = ("08", "40", "53", "55", "57")
# A refused login reaches us without a SQLSTATE (libpq), as the server's words.
_LOGIN_REFUSED_WORDS = re.compile(
    "authentication|permission denied|not permitted to log in|no pg_hba.conf entry|does not exist"
)
# Of OpenSSL, libpq and ours.
_TLS_WORDS = re.compile(
    "certificate verify failed|does not match host name|doesn't match|hostname mismatch|does not support SSL"
    "|offers no TLS|SSL is required but|self.signed certificate",
    re.IGNORECASE,
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
    own = _OWN_CURES.get(code) if isinstance(error, pymysql.Error) and isinstance(code, int) else None
    if _is_login(error, text):
        return LoginRefused(f"the source refused: {text}.", where=where, cure=own or _login_cure(text))
    wrong = isinstance(error, pymysql.Error) and (code in _REQUEST_WRONG or isinstance(error, _REQUEST_CLASSES))
    return SourceRejected(
        f"the source refused: {text}.",
        where=where,
        cure=own or f"See the dataset's {'database and tables' if wrong else 'credentials and rights'}.",
    )


def is_missing_right(error: pymysql.Error) -> bool:
    """True when the user may log in, but not ask this."""
    return bool(error.args) and error.args[0] in _RIGHT_MISSING


def _is_login(error: Exception, text: str) -> bool:
    """True when the server did not let us in, or we did not let it have the login."""
    if isinstance(error, psycopg.Error) and error.sqlstate:
        return error.sqlstate[:2] == "28"
    if isinstance(error, psycopg.Error):
        return _LOGIN_REFUSED_WORDS.search(text) is not None or _is_tls(text)
    known = isinstance(error, pymysql.Error) and bool(error.args) and error.args[0] in _LOGIN_REFUSED
    return known or _is_tls(text)


def _is_tls(text: str) -> bool:
    return _TLS_WORDS.search(text) is not None


def _login_cure(text: str) -> str:
    if _is_tls(text):
        return "See that the server has TLS, with a certificate for this host name by source_ca."
    if "authentication method requirement" in text:
        return "Let the server ask for SCRAM, or set postgres_auth (libpq's require_auth) in the settings."
    return "See the dataset's credentials and rights."


def _is_refused(error: Exception, text: str) -> bool:
    if isinstance(error, psycopg.Error):
        if error.sqlstate:
            return error.sqlstate[:2] not in _RETRYABLE_CLASSES
        return _LOGIN_REFUSED_WORDS.search(text) is not None or _is_tls(text)
    if isinstance(error, pymysql.Error):
        if _is_tls(text):
            return True
        code = error.args[0] if error.args else 0
        return code in _LOGIN_REFUSED | _RIGHT_MISSING | _REQUEST_WRONG or isinstance(error, _REQUEST_CLASSES)
    return False


def _text(error: Exception) -> str:
    """The first line of what was said, without secrets."""
    said = str(error.args[-1] if error.args and not isinstance(error, OSError) else error).strip()
    return without_secrets(next(iter(said.splitlines()), type(error).__name__)[:1000]).rstrip(". ")
