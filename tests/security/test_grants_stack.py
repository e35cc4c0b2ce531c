"""The documented grants on real servers: all works with these; with one missing, something fails by its name."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest

from cdc_platform.clients.sources.open_source import open_source
from cdc_platform.errors import SourceRejected
from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import Engine
from tests.engines import EACH_BINLOG
from tests.security.harness import Harness

pytestmark = [pytest.mark.stack, pytest.mark.slow]

SQL = Path(__file__).parents[2] / "examples" / "sql"


def statements(file: str, names: dict[str, str]) -> list[str]:
    """The statements of a documented script, with the test's own names and password."""
    text = "\n".join(line for line in (SQL / file).read_text().splitlines() if not line.startswith("--"))
    for old, new in names.items():
        text = text.replace(f"'{old}'", f"'{new}'") if old == "PASSWORD" else re.sub(rf"\b{old}\b", new, text)
    return [statement.strip() for statement in text.split(";") if statement.strip()]


@pytest.fixture
def binlog(engine: Engine, stack: Stack, tmp_path: Path) -> Iterator[tuple[Harness, Any]]:
    harness = Harness(stack, engine, tmp_path)
    login, leader = stack.admin(engine), stack.primary(engine)
    connection = pymysql.connect(
        host=leader.host, port=leader.port, user=login.user, password=login.password, autocommit=True
    )
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {harness.database}")
        for table in ("pins", "boards"):
            cursor.execute(f"CREATE TABLE {harness.database}.{table} (id BIGINT PRIMARY KEY)")
        cursor.execute(f"INSERT INTO {harness.database}.pins VALUES (1)")
        yield harness, cursor
        harness.close()
        cursor.execute(f"DROP DATABASE {harness.database}")
        cursor.execute(f"DROP USER IF EXISTS {harness.user}")
    connection.close()


@EACH_BINLOG
def test_binlog_grants_suffice_and_each_is_needed(engine: Engine, binlog: tuple[Harness, Any]) -> None:
    harness, cursor = binlog
    script = statements(
        f"grants-{engine}.sql", {"cdc": harness.user, "pins_00000": harness.database, "PASSWORD": harness.password}
    )
    for statement in script:
        cursor.execute(statement)
    harness.everything_works(lambda row: cursor.execute(f"INSERT INTO {harness.database}.pins VALUES ({row})"))

    grants = [statement for statement in script if statement.startswith("GRANT")]
    assert len(grants) == 4
    for number, grant in enumerate(grants):
        cursor.execute(grant.replace("GRANT", "REVOKE", 1).replace(" TO ", " FROM "))
        right = grant.split(" ON ")[0].removeprefix("GRANT ")
        missing = harness.missing()
        if right == "SELECT":
            assert missing == (f"SELECT on {harness.database}.pins", f"SELECT on {harness.database}.boards")
            with pytest.raises(SourceRejected, match=r"Access denied for user .* to database"):
                open_source(
                    harness.dataset,
                    harness.shard,
                    harness.dataset.tables[0],
                    timeout=10.0,
                    secrets_dirs=harness.settings.secrets_dirs,
                ).inspect()
        elif right == "XA_RECOVER_ADMIN":
            # For the reason of a verdict alone.
            assert missing == () and prepared(harness) is None
        else:
            assert missing == (right,)
        if right in CONNECTORS[engine]:
            # The connector itself says it too.
            said = harness.failure(f"x{number}")
            assert re.search(rf"Access denied; you need .*({'|'.join(CONNECTORS[engine])})", said)
        cursor.execute(grant)
    assert harness.missing() == () and prepared(harness) == ()
    cursor.execute(f"SHOW GRANTS FOR {harness.user}")
    held = " ".join(row[0] for row in cursor.fetchall())
    for more in ("ALL PRIVILEGES", "SUPER", "INSERT", "UPDATE", "DELETE", "FILE", "RELOAD", "CREATE"):
        assert more not in held
    with pytest.raises(pymysql.OperationalError, match="denied"):
        as_user(harness, f"INSERT INTO {harness.database}.pins VALUES (99)")


# Rights that a connector names when it lacks them. Without REPLICATION CLIENT MySQL's is not made (3.6.1: Connect
# answers its validation with a NullPointerException), so that only the preflight names it.
CONNECTORS = {
    Engine.MARIADB: ("REPLICATION SLAVE", "BINLOG MONITOR"),
    Engine.MYSQL: ("REPLICATION SLAVE",),
}


def prepared(harness: Harness) -> tuple[str, ...] | None:
    """The prepared transactions that the proof sees."""
    source = open_source(
        harness.dataset,
        harness.shard,
        harness.dataset.tables[0],
        timeout=10.0,
        secrets_dirs=harness.settings.secrets_dirs,
    )
    try:
        return source.prepared()
    finally:
        source.close()


def as_user(harness: Harness, statement: str) -> None:
    leader = harness.shard.leader
    connection = pymysql.connect(host=leader.host, port=leader.port, user=harness.user, password=harness.password)
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
    finally:
        connection.close()


@pytest.fixture
def postgres(stack: Stack, tmp_path: Path) -> Iterator[tuple[Harness, Callable[[str], Any]]]:
    harness = Harness(stack, Engine.POSTGRES, tmp_path)
    login, leader = stack.admin(Engine.POSTGRES), stack.postgres_primary

    def run(statement: str, database: str = harness.database) -> Any:
        with psycopg.connect(
            host=leader.host, port=leader.port, user=login.user, password=login.password,
            dbname=database, autocommit=True,
        ) as connection:  # fmt: skip
            return connection.execute(statement).rowcount

    run(f"CREATE DATABASE {harness.database}", "postgres")
    for table in ("orders", "order_items"):
        run(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY)")
    run("INSERT INTO orders VALUES (1)")
    yield harness, run
    harness.close()
    slots = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = '{}' AND NOT active"
    busy = f"SELECT 1 FROM pg_replication_slots WHERE database = '{harness.database}'"
    end = time.monotonic() + 60
    while run(busy, "postgres") and time.monotonic() < end:
        run(slots.format(harness.database), "postgres")
        time.sleep(0.3)
    # The database stays: Postgres 17.6's standby dies of a dropped database whose slot it is still copying.


def test_postgres_grants_suffice_and_each_is_needed(postgres: tuple[Harness, Callable[[str], Any]]) -> None:
    harness, run = postgres
    script = statements(
        "grants-postgres.sql",
        {
            "cdc": harness.user,
            "orders_00000": harness.database,
            "cdc_orders_00000": harness.config["publication.name"],
            "PASSWORD": harness.password,
        },
    )
    for statement in script:
        run(statement)
    run("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    harness.everything_works(lambda row: run(f"INSERT INTO orders VALUES ({row})"))

    role = f"ALTER ROLE {harness.user} "
    run(role + "NOREPLICATION")
    assert harness.missing() == ("REPLICATION",)
    assert re.search(r"[Pp]ermission denied|must be superuser or replication role", harness.failure("x0"))
    run(role + "REPLICATION")
    for statement in [each for each in script if each.startswith("GRANT")]:
        run(statement.replace("GRANT", "REVOKE", 1).replace(" TO ", " FROM "))
        if "CONNECT" in statement:
            with pytest.raises(SourceRejected, match="permission denied for database"):
                harness.missing()
        elif "USAGE" in statement:
            assert "USAGE on schema public" in harness.missing()
        else:
            table = statement.split("TABLE ")[1].split()[0]
            assert harness.missing() == (f"SELECT on public.{table}",)
        run(statement)
    assert harness.missing() == ()
    run(f"DROP PUBLICATION {harness.config['publication.name']}")
    assert "ublication" in harness.failure("x1")
    leader = harness.shard.leader
    for forbidden in ("INSERT INTO orders VALUES (99)", "CREATE TABLE mine (id INT)", "DROP TABLE orders"):
        with (
            pytest.raises(psycopg.errors.InsufficientPrivilege),
            psycopg.connect(
                host=leader.host,
                port=leader.port,
                user=harness.user,
                password=harness.password,
                dbname=harness.database,
            ) as connection,
        ):
            connection.execute(forbidden)


@EACH_BINLOG
def test_the_stacks_own_user_has_the_documented_rights(engine: Engine, stack: Stack) -> None:
    login, leader = stack.admin(engine), stack.primary(engine)
    connection = pymysql.connect(host=leader.host, port=leader.port, user=login.user, password=login.password)
    with connection.cursor() as cursor:
        cursor.execute("SHOW GRANTS FOR cdc")
        held = " ".join(row[0] for row in cursor.fetchall())
    connection.close()
    for statement in statements(f"grants-{engine}.sql", {}):
        if statement.startswith("GRANT"):
            assert statement.split(" ON ")[0].removeprefix("GRANT ") in held
    assert "SUPER" not in held and "INSERT" not in held
