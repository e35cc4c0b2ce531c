"""The documented grants on real servers: all works with these; with one missing, something fails by its name."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest

from cdc_platform.clients.sources.leader_servers import LeaderServers
from cdc_platform.clients.sources.open_source import open_source
from cdc_platform.connectors.config import desired_config
from cdc_platform.errors import SourceRejected
from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import BootstrapMode, Credentials, Dataset, Engine, Shard, Table, TopicSpec
from tests.connectors.field import Field

pytestmark = [pytest.mark.stack, pytest.mark.slow]

SQL = Path(__file__).parents[2] / "examples" / "sql"


def statements(file: str, names: dict[str, str]) -> list[str]:
    """The statements of a documented script, with the test's own names and password."""
    text = "\n".join(line for line in (SQL / file).read_text().splitlines() if not line.startswith("--"))
    for old, new in names.items():
        text = text.replace(f"'{old}'", f"'{new}'") if old == "PASSWORD" else re.sub(rf"\b{old}\b", new, text)
    return [statement.strip() for statement in text.split(";") if statement.strip()]


class Ground:
    """A dataset with a user of its own, on the shared stack."""

    def __init__(self, stack: Stack, engine: Engine, tmp_path: Path) -> None:
        own = f"g{secrets.token_hex(3)}"
        self.stack, self.engine, self.user, self.database = stack, engine, f"{own}_cdc", f"{own}_0"
        self.password = secrets.token_urlsafe(12)
        # Where the worker may read secrets.
        self.file = stack.secrets_dir / f"{own}.properties"
        self.file.touch(mode=0o600)
        self.file.write_text(f"user={self.user}\npassword={self.password}\n")
        self.settings = replace(stack.settings(), platform=own, heartbeat_topic=f"{own}.heartbeat")
        postgres = engine is Engine.POSTGRES
        tables = ("orders", "order_items") if postgres else ("pins", "boards")
        reference = f"${{file:{self.file}:"
        self.dataset = Dataset(
            name=own,
            engine=engine,
            tables=tuple(Table(name=name) for name in tables),
            clusters=(stack.cluster().name,),
            credentials=Credentials(user=f"{reference}user}}", password=f"{reference}password}}"),
            bootstrap=BootstrapMode.SNAPSHOT,
            topics=TopicSpec(partitions=1, replication=1),
            connector={"publication.autocreate.mode": "disabled"} if postgres else {},
        )
        leader = stack.postgres_primary if postgres else stack.mariadb_primary
        self.shard = Shard(dataset=own, id="00000", leader=leader, database=self.database)
        self.field = Field(stack=stack, settings=self.settings)
        self.config = desired_config(self.dataset, self.shard, stack.cluster(), self.settings)

    def missing(self) -> tuple[str, ...]:
        """What the preflight says is missing."""
        return LeaderServers().missing_rights(self.dataset, self.shard, self.shard.leader)

    def everything_works(self, insert: Callable[[str], object]) -> None:
        """Snapshot, stream, view, proof's reads."""
        assert self.missing() == ()
        view = LeaderServers().view(self.dataset, self.shard, self.shard.leader)
        assert view.writable and not view.following
        self.field.deploy(self.dataset, self.shard)
        table = self.dataset.tables[0]
        topic = self.dataset.topic(table)
        self.field.read(topic, lambda rows: len(rows) >= 1)
        insert("2")
        self.field.read(topic, lambda rows: len(rows) >= 2)
        source = open_source(self.dataset, self.shard, table, timeout=10.0)
        inspection = source.inspect()
        assert inspection.problems == ()
        assert len(source.read_chunk(None, None).keys) == 2
        source.close()

    def failure(self, name: str) -> str:
        """What a new connector of the same user says: the refusal of its creation, or its task's trace."""
        shard = replace(self.shard, id=name)
        self.field.write_leader(shard)
        self.field.topology = replace(self.field.topology, shards={self.dataset.name: (self.shard, shard)})
        self.field._make_topics()
        config = desired_config(self.dataset, shard, self.stack.cluster(), self.settings)
        config["publication.name"] = self.config.get("publication.name", "")
        url = self.field.url
        end = time.monotonic() + 90
        try:
            while time.monotonic() < end:
                answer = self.field.rest.put(f"{url}/connectors/{shard.name}/config", json=config)
                if answer.status_code == 400:
                    return answer.text
                if answer.is_success:
                    break
                time.sleep(0.3)
            while time.monotonic() < end:
                seen = self.field.rest.get(f"{url}/connectors/{shard.name}/status")
                tasks = seen.json().get("tasks", []) if seen.is_success else []
                if tasks and tasks[0]["state"] == "FAILED":
                    return str(tasks[0]["trace"])
                time.sleep(0.3)
            pytest.fail("the connector neither failed nor was refused")
        finally:
            self.field.rest.delete(f"{url}/connectors/{shard.name}")

    def close(self) -> None:
        self.field.close()
        self.file.unlink()


@pytest.fixture
def mariadb(stack: Stack, tmp_path: Path) -> Iterator[tuple[Ground, Any]]:
    ground = Ground(stack, Engine.MARIADB, tmp_path)
    login, leader = stack.admin(Engine.MARIADB), stack.mariadb_primary
    connection = pymysql.connect(
        host=leader.host, port=leader.port, user=login.user, password=login.password, autocommit=True
    )
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {ground.database}")
        for table in ("pins", "boards"):
            cursor.execute(f"CREATE TABLE {ground.database}.{table} (id BIGINT PRIMARY KEY)")
        cursor.execute(f"INSERT INTO {ground.database}.pins VALUES (1)")
        yield ground, cursor
        ground.close()
        cursor.execute(f"DROP DATABASE {ground.database}")
        cursor.execute(f"DROP USER IF EXISTS {ground.user}")
    connection.close()


def test_mariadb_grants_suffice_and_each_is_needed(mariadb: tuple[Ground, Any]) -> None:
    ground, cursor = mariadb
    script = statements(
        "grants-mariadb.sql", {"cdc": ground.user, "pins_00000": ground.database, "PASSWORD": ground.password}
    )
    for statement in script:
        cursor.execute(statement)
    ground.everything_works(lambda row: cursor.execute(f"INSERT INTO {ground.database}.pins VALUES ({row})"))

    grants = [statement for statement in script if statement.startswith("GRANT")]
    assert len(grants) == 4
    for number, grant in enumerate(grants):
        cursor.execute(grant.replace("GRANT", "REVOKE", 1).replace(" TO ", " FROM "))
        right = grant.split(" ON ")[0].removeprefix("GRANT ")
        missing = ground.missing()
        if right == "SELECT":
            assert missing == (f"SELECT on {ground.database}.pins", f"SELECT on {ground.database}.boards")
            with pytest.raises(SourceRejected, match=r"Access denied for user .* to database"):
                open_source(ground.dataset, ground.shard, ground.dataset.tables[0], timeout=10.0).inspect()
        else:
            assert missing == (right,)
        if right in ("REPLICATION SLAVE", "BINLOG MONITOR"):
            # The connector itself says it too.
            assert re.search(
                r"Access denied; you need .*(REPLICATION SLAVE|BINLOG MONITOR)", ground.failure(f"x{number}")
            )
        cursor.execute(grant)
    assert ground.missing() == ()
    cursor.execute(f"SHOW GRANTS FOR {ground.user}")
    held = " ".join(row[0] for row in cursor.fetchall())
    for more in ("ALL PRIVILEGES", "SUPER", "INSERT", "UPDATE", "DELETE", "FILE", "RELOAD", "CREATE"):
        assert more not in held
    with pytest.raises(pymysql.OperationalError, match="denied"):
        as_user(ground, f"INSERT INTO {ground.database}.pins VALUES (99)")


def as_user(ground: Ground, statement: str) -> None:
    leader = ground.shard.leader
    connection = pymysql.connect(host=leader.host, port=leader.port, user=ground.user, password=ground.password)
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
    finally:
        connection.close()


@pytest.fixture
def postgres(stack: Stack, tmp_path: Path) -> Iterator[tuple[Ground, Callable[[str], Any]]]:
    ground = Ground(stack, Engine.POSTGRES, tmp_path)
    login, leader = stack.admin(Engine.POSTGRES), stack.postgres_primary

    def run(statement: str, database: str = ground.database) -> Any:
        with psycopg.connect(
            host=leader.host, port=leader.port, user=login.user, password=login.password,
            dbname=database, autocommit=True,
        ) as connection:  # fmt: skip
            return connection.execute(statement).rowcount

    run(f"CREATE DATABASE {ground.database}", "postgres")
    for table in ("orders", "order_items"):
        run(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY)")
    run("INSERT INTO orders VALUES (1)")
    yield ground, run
    ground.close()
    slots = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = '{}' AND NOT active"
    busy = f"SELECT 1 FROM pg_replication_slots WHERE database = '{ground.database}'"
    end = time.monotonic() + 60
    while run(busy, "postgres") and time.monotonic() < end:
        run(slots.format(ground.database), "postgres")
        time.sleep(0.3)
    # The database stays: Postgres 17.6's standby dies of a dropped database whose slot it is still copying.


def test_postgres_grants_suffice_and_each_is_needed(postgres: tuple[Ground, Callable[[str], Any]]) -> None:
    ground, run = postgres
    script = statements(
        "grants-postgres.sql",
        {
            "cdc": ground.user,
            "orders_00000": ground.database,
            "cdc_orders_00000": ground.config["publication.name"],
            "PASSWORD": ground.password,
        },
    )
    for statement in script:
        run(statement)
    run("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    ground.everything_works(lambda row: run(f"INSERT INTO orders VALUES ({row})"))

    role = f"ALTER ROLE {ground.user} "
    run(role + "NOREPLICATION")
    assert ground.missing() == ("REPLICATION",)
    assert re.search(r"[Pp]ermission denied|must be superuser or replication role", ground.failure("x0"))
    run(role + "REPLICATION")
    for statement in [each for each in script if each.startswith("GRANT")]:
        run(statement.replace("GRANT", "REVOKE", 1).replace(" TO ", " FROM "))
        if "CONNECT" in statement:
            with pytest.raises(SourceRejected, match="permission denied for database"):
                ground.missing()
        elif "USAGE" in statement:
            assert "USAGE on schema public" in ground.missing()
        else:
            table = statement.split("TABLE ")[1].split()[0]
            assert ground.missing() == (f"SELECT on public.{table}",)
        run(statement)
    assert ground.missing() == ()
    run(f"DROP PUBLICATION {ground.config['publication.name']}")
    assert "ublication" in ground.failure("x1")
    leader = ground.shard.leader
    for forbidden in ("INSERT INTO orders VALUES (99)", "CREATE TABLE mine (id INT)", "DROP TABLE orders"):
        with (
            pytest.raises(psycopg.errors.InsufficientPrivilege),
            psycopg.connect(
                host=leader.host, port=leader.port, user=ground.user, password=ground.password, dbname=ground.database
            ) as connection,
        ):
            connection.execute(forbidden)


def test_the_stacks_own_user_has_the_documented_rights_of_mariadb(stack: Stack) -> None:
    login, leader = stack.admin(Engine.MARIADB), stack.mariadb_primary
    connection = pymysql.connect(host=leader.host, port=leader.port, user=login.user, password=login.password)
    with connection.cursor() as cursor:
        cursor.execute("SHOW GRANTS FOR cdc")
        held = " ".join(row[0] for row in cursor.fetchall())
    connection.close()
    for statement in statements("grants-mariadb.sql", {}):
        if statement.startswith("GRANT"):
            assert statement.split(" ON ")[0].removeprefix("GRANT ") in held
    assert "SUPER" not in held and "INSERT" not in held
