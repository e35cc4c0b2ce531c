"""Servers that nothing could be captured from are refused by name, before a connector is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pymysql
import pytest

from cdc_platform.clients.sources import binlog_demands
from cdc_platform.clients.sources.logs import RealSourceLogs
from cdc_platform.connectors.identity import identity
from cdc_platform.errors import SourceRejected
from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import Address, Credentials, Dataset, Engine, Shard, Table
from tests.engines import EACH_BINLOG
from tests.own_secrets import write_login

# Variable, the wrong value, and what the refusal says.
_WRONG = {
    Engine.MARIADB: [
        ("binlog_format", "MIXED", "it does not log rows (binlog_format is MIXED)"),
        ("binlog_row_image", "MINIMAL", "it does not log whole rows (binlog_row_image is MINIMAL)"),
        ("log_bin_compress", "ON", "the connector drops compressed events (log_bin_compress is 1)"),
    ],
    Engine.MYSQL: [
        ("binlog_format", "MIXED", "it does not log rows (binlog_format is MIXED)"),
        ("binlog_row_image", "NOBLOB", "it does not log whole rows (binlog_row_image is NOBLOB)"),
        ("gtid_mode", "ON_PERMISSIVE", "it gives transactions no GTIDs (gtid_mode is ON_PERMISSIVE)"),
        ("binlog_row_value_options", "PARTIAL_JSON", "whole documents (binlog_row_value_options is PARTIAL_JSON)"),
    ],
}


class Asked:
    """A shard whose dataset has a login of its own, and the administrator's session."""

    def __init__(self, stack: Stack, engine: Engine, name: str, run: Callable[[str], list[Any]]) -> None:
        self.stack, self.run, self.user = stack, run, name
        run(f"CREATE USER {name} IDENTIFIED BY 'first'")
        self.logs = RealSourceLogs(secrets_dirs=stack.settings().secrets_dirs)
        self.dataset = Dataset(
            name=name,
            engine=engine,
            tables=(Table(name="t"),),
            clusters=("local",),
            credentials=write_login(stack.dataset_secrets_dir, name, "own", name, "first"),
        )
        self.shard = Shard(dataset=name, id="0", leader=stack.primary(engine), database="d")

    def refusal(self, **connector: str) -> str:
        """What a pass would say instead of making the connector; empty when it would make it."""
        dataset = replace(self.dataset, connector=connector)
        try:
            self.logs.publish(dataset, self.shard, identity(self.stack.settings(), dataset, self.shard))
        except SourceRejected as error:
            return str(error)
        return ""


@pytest.fixture
def asked(stack: Stack, engine: Engine, unique_name: Callable[[str], str]) -> Iterator[Asked]:
    login, at, name = stack.admin(engine), stack.primary(engine), unique_name("asked")
    connection = pymysql.connect(host=at.host, port=at.port, user=login.user, password=login.password, autocommit=True)
    with connection, connection.cursor() as cursor:

        def run(statement: str) -> list[Any]:
            cursor.execute(statement)
            return list(cursor.fetchall())

        yield Asked(stack, engine, name, run)
        run(f"DROP USER {name}")


@EACH_BINLOG
@pytest.mark.stack
def test_a_server_or_account_that_cannot_serve_is_refused_by_name(asked: Asked, engine: Engine) -> None:
    assert asked.refusal() == ""
    for variable, value, words in _WRONG[engine]:
        [(right,)] = asked.run(f"SELECT @@global.{variable}")
        asked.run(f"SET GLOBAL {variable} = '{value}'")
        try:
            found = asked.refusal()
        finally:
            asked.run(f"SET GLOBAL {variable} = {right!r}")
        assert words in found and "Cure: S" in found, found

    locks = asked.refusal(**{"snapshot.locking.mode": "minimal"})
    assert "snapshot.locking.mode is minimal" in locks and "neither RELOAD nor LOCK TABLES" in locks, locks
    asked.run(f"GRANT RELOAD ON *.* TO {asked.user}")
    assert asked.refusal(**{"snapshot.locking.mode": "minimal"}) == ""

    asked.run(f"ALTER USER {asked.user} ACCOUNT LOCK")
    assert "Unlock the account" in asked.refusal()
    asked.run(f"ALTER USER {asked.user} ACCOUNT UNLOCK")
    asked.run(f"ALTER USER {asked.user} PASSWORD EXPIRE")
    assert "Give the account a new password" in asked.refusal()
    asked.run(f"ALTER USER {asked.user} IDENTIFIED BY 'second'")
    assert "Access denied" in asked.refusal(), "the secret has not followed"
    write_login(asked.stack.dataset_secrets_dir, asked.user, "own", asked.user, "first")
    asked.run(f"ALTER USER {asked.user} IDENTIFIED BY 'first' REQUIRE SSL")
    assert engine is not Engine.MYSQL or asked.refusal() == "", "the session is encrypted"


class ReplicaWithoutLog:
    """Answers of a MySQL replica that runs with log_replica_updates=OFF, which no running server can be set to."""

    def execute(self, statement: str) -> None:
        names = statement.removeprefix("SELECT ").split(",")
        right = {"@@global.log_bin": "1", "@@global.binlog_format": "ROW", "@@global.binlog_row_image": "FULL",
                 "@@global.gtid_mode": "ON", "@@global.binlog_row_value_options": ""}  # fmt: skip
        self._row: tuple[str, ...] = tuple(right.get(name, "0") for name in names)

    def fetchone(self) -> tuple[str, ...]:
        return self._row

    def fetchall(self) -> list[tuple[str, ...]]:
        return [self._row]


def test_a_replica_that_does_not_log_what_it_applies_is_refused() -> None:
    credentials = Credentials(user="${env:U}", password="${env:P}")
    dataset = Dataset(
        name="d", engine=Engine.MYSQL, tables=(Table(name="t"),), clusters=("c",), credentials=credentials
    )
    shard = Shard(dataset="d", id="0", leader=Address("db-2", 3306), database="d")
    with pytest.raises(SourceRejected, match=r"a replica that does not log what it applies \(log_replica_updates is 0"):
        binlog_demands.check(ReplicaWithoutLog(), dataset, shard)  # type: ignore[arg-type]
