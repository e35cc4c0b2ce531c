"""One reading of sources' errors, whoever asks: refused logins are never taken for a server that is away."""

from __future__ import annotations

import atexit
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest

from cdc_platform.clients.sources import bounded
from cdc_platform.clients.sources.errors import classified, source_errors
from cdc_platform.clients.sources.leader_servers import LeaderServers
from cdc_platform.clients.sources.logs import RealSourceLogs
from cdc_platform.clients.sources.mariadb import MariaDbSource
from cdc_platform.clients.sources.postgres import PostgresSource
from cdc_platform.clients.sources.replication import channels
from cdc_platform.errors import CdcError, SourceRejected, SourceUnavailable
from cdc_platform.model.topology import Address, Dataset, Engine, Shard, Table
from tests.own_secrets import write_login

SERVER = Address("db-1", 3306)
Ask = Callable[[Engine], object]
SECRETS = Path(tempfile.mkdtemp())
atexit.register(shutil.rmtree, SECRETS)
DIRS = [str(SECRETS)]


def mysql_error(code: int, text: str = "no") -> pymysql.Error:
    """As the driver makes it of a server's answer."""
    kind = pymysql.err.error_map.get(code, pymysql.OperationalError)
    made: pymysql.Error = kind(code, text)
    return made


def postgres_error(state: str | None, text: str) -> psycopg.Error:
    """As the driver makes it of a server's answer, or with `state` None of a connection that failed."""
    error = psycopg.OperationalError(text)
    error.sqlstate = state
    return error


def dataset(engine: Engine) -> Dataset:
    login = write_login(SECRETS, "pins", "source", "cdc", "secret")
    return Dataset(name="pins", engine=engine, tables=(Table(name="pins"),), clusters=("c",), credentials=login)


SHARD = Shard(dataset="pins", id="00000", leader=SERVER, database="pins", replicas=(Address("db-2", 3306),))


def proof(engine: Engine) -> object:
    source: Any
    if engine is Engine.POSTGRES:
        source = PostgresSource(SERVER, user="u", password="p", database="d", schema="public", table="t")
    else:
        source = MariaDbSource(SERVER, user="u", password="p", database="d", table="t", engine=engine)
    return source.position()


PATHS: dict[str, Ask] = {
    "proof": proof,
    "logs": lambda engine: RealSourceLogs(secrets_dirs=DIRS).check(dataset(engine), SHARD),
    "replica lag": lambda engine: RealSourceLogs(secrets_dirs=DIRS).replica_lag(dataset(engine), SHARD),
    "leader": lambda engine: LeaderServers(secrets_dirs=DIRS).view(dataset(engine), SHARD, SERVER),
    "rights": lambda engine: LeaderServers(secrets_dirs=DIRS).missing_rights(dataset(engine), SHARD, SERVER),
}

LOGINS = [
    *((engine, mysql_error(code)) for engine in (Engine.MARIADB, Engine.MYSQL) for code in (1044, 1045, 1130, 1698)),
    # Expired, and still to be changed.
    *((engine, mysql_error(code)) for engine in (Engine.MARIADB, Engine.MYSQL) for code in (1820, 1862)),
    # Locked, and blocked after too many failed logins.
    (Engine.MYSQL, mysql_error(3118)),
    (Engine.MYSQL, mysql_error(3955)),
    (Engine.MARIADB, mysql_error(4151)),
    (Engine.POSTGRES, postgres_error("28P01", 'password authentication failed for user "cdc"')),
    (Engine.POSTGRES, postgres_error("28000", 'role "cdc" is not permitted to log in')),
    (Engine.POSTGRES, postgres_error("42501", 'permission denied for database "pins"')),
    # libpq gives no SQLSTATE for a login. An expired password is told as a wrong one.
    (Engine.POSTGRES, postgres_error(None, 'FATAL:  password authentication failed for user "cdc"')),
    (Engine.POSTGRES, postgres_error(None, 'FATAL:  role "cdc" is not permitted to log in')),
    (Engine.POSTGRES, postgres_error(None, 'FATAL:  role "cdc" does not exist')),
    (Engine.POSTGRES, postgres_error(None, 'FATAL:  permission denied for database "pins"')),
    (Engine.POSTGRES, postgres_error(None, 'FATAL:  no pg_hba.conf entry for host "::1", user "cdc"')),
]

AWAY = [
    *((engine, mysql_error(code)) for engine in (Engine.MARIADB, Engine.MYSQL) for code in (1040, 1205, 1213, 1226)),
    *((engine, mysql_error(code)) for engine in (Engine.MARIADB, Engine.MYSQL) for code in (2003, 2006, 2013)),
    (Engine.MARIADB, mysql_error(1969)),
    (Engine.MYSQL, mysql_error(3024)),
    (Engine.MARIADB, OSError(104, "connection reset")),
    (Engine.POSTGRES, postgres_error(None, "connection refused")),
    (Engine.POSTGRES, postgres_error(None, 'FATAL:  too many connections for role "cdc"')),
    (Engine.POSTGRES, postgres_error(None, "FATAL:  the database system is starting up")),
    *(
        (Engine.POSTGRES, postgres_error(state, "no"))
        for state in ("08006", "40001", "53300", "55P03", "57014", "57P01")
    ),
]


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> Iterator[None]:
    def connect(*args: object, **options: object) -> Any:
        raise error

    for driver in (bounded.BoundedPostgres, bounded.BoundedMySql):
        monkeypatch.setattr(driver, "connect", connect)
    yield


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("engine", "error"), LOGINS, ids=str)
def test_a_login_that_is_refused_is_rejected_on_every_path(
    monkeypatch: pytest.MonkeyPatch, path: str, engine: Engine, error: Exception
) -> None:
    with failing(monkeypatch, error), pytest.raises(SourceRejected, match=r"the source refused: .* Cure: ") as raised:
        PATHS[path](engine)
    assert re.search("credentials and rights|the account|over TLS", raised.value.cure or "")
    assert "db-" in (raised.value.where or "")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("engine", "error"), AWAY, ids=str)
def test_what_passes_by_itself_is_unavailable_on_every_path(
    monkeypatch: pytest.MonkeyPatch, path: str, engine: Engine, error: Exception
) -> None:
    with failing(monkeypatch, error), pytest.raises(SourceUnavailable, match="the source did not answer: "):
        PATHS[path](engine)


@pytest.mark.parametrize(
    "error",
    [*(mysql_error(code) for code in (1049, 1054, 1064, 1146, 1305)), postgres_error("42P01", "no such table")],
    ids=str,
)
def test_what_the_source_cannot_do_is_rejected(error: Exception) -> None:
    assert isinstance(classified(error, "here"), SourceRejected)


def test_a_missing_table_is_not_blamed_on_the_login() -> None:
    assert "tables" in (classified(mysql_error(1146), "here").cure or "")


def test_our_own_errors_pass_unchanged() -> None:
    with pytest.raises(CdcError, match="ours"), source_errors("here"):
        raise SourceRejected("ours")


class Cursor:
    def __init__(self, columns: tuple[str, ...], *rows: tuple[object, ...]) -> None:
        self.description = [(name,) for name in columns]
        self._rows = rows

    def fetchall(self) -> list[tuple[object, ...]]:
        return list(self._rows)


@pytest.mark.parametrize(
    "columns",
    [
        ("Slave_IO_Running", "Slave_SQL_Running", "Seconds_Behind_Master"),
        ("Replica_IO_Running", "Replica_SQL_Running", "Seconds_Behind_Source"),
    ],
)
def test_replication_is_read_by_old_and_new_names(columns: tuple[str, ...]) -> None:
    shown = channels(Cursor(columns, ("Yes", "Yes", 7), ("Connecting", "Yes", None), ("No", "No", None)))
    assert [(channel.running, channel.behind) for channel in shown] == [(True, 7.0), (True, None), (False, None)]
