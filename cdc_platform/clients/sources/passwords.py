"""What drivers do not do with a password: hand it over in clear, to a server that has not proven that it knows it.

A leader's address comes from the topology, and a server there, or on the way, may ask for any method of login.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import psycopg
import pymysql

# MariaDB Connector/C and mysql name these as servers do.
_IN_CLEAR = ("mysql_clear_password", "dialog", "mysql_old_password")
_NOT_ALLOWED = 1045  # ER_ACCESS_DENIED_ERROR: a login that fails for good


class _Refuse:
    """An authentication plugin of pymysql that sends nothing."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def authenticate(self, packet: Any) -> NoReturn:
        """Refuse whatever the server asked for."""
        raise pymysql.OperationalError(
            _NOT_ALLOWED,
            "the server asks for the password in clear (mysql_clear_password, dialog or mysql_old_password)",
        )


# Of pymysql.connect: `auth_plugin_map`.
MYSQL_LOGINS: dict[str, Callable[[Any], Any]] = dict.fromkeys(_IN_CLEAR, _Refuse)

# libpq before 16 does whatever the server asks for.
REQUIRES_AUTH = psycopg.pq.version() >= 160000
