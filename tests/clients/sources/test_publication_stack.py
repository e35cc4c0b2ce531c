"""What is said of a table before it is published, against what Postgres then does to its application."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from cdc_platform.clients.sources.logs import RealSourceLogs
from cdc_platform.clients.sources.postgres import PostgresSource
from cdc_platform.connectors.identity import Identity, identity
from cdc_platform.errors import SourceRejected
from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import Dataset, Engine, Shard, Table
from cdc_platform.settings import Settings
from tests.own_secrets import write_login


@dataclass(frozen=True, slots=True)
class Source:
    """One database of the stack, and the dataset `o` of it."""

    run: Callable[..., list[Any]]
    dataset: Dataset
    shard: Shard
    user: str
    password: str
    logs: RealSourceLogs

    @property
    def own(self) -> Identity:
        return identity(Settings(), self.dataset, self.shard)

    def of(self, *tables: Table, **connector: str) -> Source:
        options = {name.replace("__", "."): value for name, value in connector.items()}
        return replace(self, dataset=replace(self.dataset, tables=tables, connector=options))

    def check(self) -> None:
        self.logs.check_publication(self.dataset, self.shard, self.own)

    def publish(self) -> None:
        self.logs.publish(self.dataset, self.shard, self.own)

    def published(self) -> set[tuple[str, str]]:
        rows = self.run(
            "SELECT schemaname, tablename FROM pg_publication_tables WHERE pubname = %s", self.own.publication
        )
        return {(schema, name) for schema, name in rows}

    def make_publication(self, tables: str, more: str = "") -> None:
        self.run(f'CREATE PUBLICATION "{self.own.publication}" FOR TABLE {tables} {more}')


@pytest.fixture
def source(stack: Stack, unique_name: Callable[[str], str], tmp_path: Path) -> Iterator[Source]:
    login, address, name = stack.admin(Engine.POSTGRES), stack.postgres_primary, unique_name("pub")

    def connect(database: str) -> psycopg.Connection[Any]:
        return psycopg.connect(
            host=address.host,
            port=address.port,
            user=login.user,
            password=login.password,
            dbname=database,
            autocommit=True,
        )

    with connect("postgres") as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            with connect(name) as connection:

                def run(statement: str, *params: Any) -> list[Any]:
                    cursor = connection.execute(statement.encode(), params or None)
                    return cursor.fetchall() if cursor.description else []

                dataset = Dataset(
                    name="o",
                    engine=Engine.POSTGRES,
                    tables=(Table(name="t"),),
                    clusters=("c",),
                    credentials=write_login(tmp_path, "o", "source", login.user, login.password),
                )
                shard = Shard(dataset="o", id="00000", leader=address, database=name)
                yield Source(
                    run, dataset, shard, login.user, login.password, RealSourceLogs(secrets_dirs=[str(tmp_path)])
                )
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


COLUMNS = "id int NOT NULL, a int NOT NULL, b int NOT NULL, v int"
# Statements that make t, the topology's key, and what is said of it; None: it may be published.
CASES: dict[str, tuple[str, tuple[str, ...], str | None]] = {
    "primary key": (f"CREATE TABLE t ({COLUMNS}, PRIMARY KEY (id))", (), None),
    "full": (f"CREATE TABLE t ({COLUMNS}); ALTER TABLE t REPLICA IDENTITY FULL", ("a", "b"), None),
    "index": (
        f"CREATE TABLE t ({COLUMNS}, CONSTRAINT i UNIQUE (a, b)); ALTER TABLE t REPLICA IDENTITY USING INDEX i",
        ("a", "b"),
        None,
    ),
    "unique": (f"CREATE TABLE t ({COLUMNS}, UNIQUE (a, b))", ("a", "b"), "no primary key"),
    "deferrable": (f"CREATE TABLE t ({COLUMNS}, PRIMARY KEY (id) DEFERRABLE)", (), "deferrable"),
    "partial": (f"CREATE TABLE t ({COLUMNS}); CREATE UNIQUE INDEX ON t (a) WHERE v = 0", ("a",), "no primary key"),
    "nothing": (f"CREATE TABLE t ({COLUMNS}, PRIMARY KEY (id)); ALTER TABLE t REPLICA IDENTITY NOTHING", (), "NOTHING"),
    "dropped index": (
        f"CREATE TABLE t ({COLUMNS}); CREATE UNIQUE INDEX i ON t (a);"
        " ALTER TABLE t REPLICA IDENTITY USING INDEX i; DROP INDEX i",
        (),
        "is gone",
    ),
    "whole index beside columns": (
        f"CREATE TABLE t ({COLUMNS}); CREATE UNIQUE INDEX i ON t (a) INCLUDE (b);"
        " ALTER TABLE t REPLICA IDENTITY USING INDEX i",
        ("a",),
        None,
    ),
    "partitions": (
        f"CREATE TABLE t ({COLUMNS}, PRIMARY KEY (id)) PARTITION BY RANGE (id);"
        " CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (100)",
        (),
        None,
    ),
    "partitions without key": (
        f"CREATE TABLE t ({COLUMNS}) PARTITION BY RANGE (id);"
        " CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (100)",
        (),
        "no primary key",
    ),
    "silent partition": (
        f"CREATE TABLE t ({COLUMNS}, PRIMARY KEY (id)) PARTITION BY RANGE (id);"
        " CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (100); ALTER TABLE t_1 REPLICA IDENTITY NOTHING",
        (),
        "t_1 .*NOTHING",
    ),
}


@pytest.mark.stack
@pytest.mark.parametrize("case", CASES)
@pytest.mark.field("REPL-ID", Engine.POSTGRES)
def test_a_table_is_refused_exactly_when_its_application_would_break(source: Source, case: str) -> None:
    statements, key, why = CASES[case]
    source.run(statements)
    source.run("INSERT INTO t VALUES (1, 2, 3, 0)")
    asked = source.of(Table(name="t", key=key), publish__via__partition__root="true")
    refused = None
    try:
        asked.check()
    except SourceRejected as error:
        refused = error
    assert not source.run("SELECT 1 FROM pg_publication")
    if why is None:
        assert refused is None
    else:
        with pytest.raises(SourceRejected, match=rf"public\.t.* cannot be captured: .*{why.split('.*')[-1]}"):
            asked.publish()
    # What the server does once it is published.
    asked.make_publication("t", "WITH (publish_via_partition_root = true)")
    if why is None:
        source.run("UPDATE t SET v = 1")
        source.run("DELETE FROM t")
        return
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="does not have a replica identity"):
        source.run("UPDATE t SET v = 1")
    assert refused is not None and refused.cure is not None
    if refused.cure.startswith("ALTER TABLE"):
        source.run(refused.cure.split(" FULL")[0] + " FULL")
        asked.check()
        source.run("UPDATE t SET v = 1")
        source.run("DELETE FROM t")


@pytest.mark.stack
@pytest.mark.field("KEY-NOT-ID", Engine.POSTGRES)
def test_a_key_that_is_not_the_identity_is_refused_until_the_whole_row_is_sent(source: Source) -> None:
    source.run(f"CREATE TABLE t ({COLUMNS}, PRIMARY KEY (id), UNIQUE (a, b))")
    asked = source.of(Table(name="t", key=("a", "b")))
    with pytest.raises(SourceRejected, match=r"its key \(a, b\) is not its replica identity \(id\)"):
        asked.check()
    proof = PostgresSource(
        source.shard.leader, user=source.user, password=source.password, database=source.shard.database,
        schema="public", table="t", key=("a", "b"),
    )  # fmt: skip
    try:
        assert any("is not its replica identity" in warning for warning in proof.inspect().warnings)
        source.run("ALTER TABLE t REPLICA IDENTITY USING INDEX t_a_b_key")
        asked.check()
        source.run("ALTER TABLE t REPLICA IDENTITY FULL")
        asked.check()
        assert not proof.inspect().warnings
    finally:
        proof.close()


@pytest.mark.stack
def test_a_refused_table_leaves_a_publication_and_its_application_alone(source: Source) -> None:
    for name in ("t", "u"):
        key = "PRIMARY KEY (id)" if name == "t" else "UNIQUE (id)"
        source.run(f"CREATE TABLE {name} ({COLUMNS}, {key})")
        source.run(f"INSERT INTO {name} VALUES (1, 2, 3, 0)")
    asked = source.of(Table(name="t"), Table(name="u", key=("id",)))
    asked.make_publication("t")
    with pytest.raises(SourceRejected, match=r"public\.u cannot be captured: it has no primary key"):
        asked.publish()
    assert asked.published() == {("public", "t")}
    source.run("UPDATE u SET v = 1")
    source.run("ALTER TABLE u REPLICA IDENTITY FULL")
    asked.publish()
    assert asked.published() == {("public", "t"), ("public", "u")}
    source.run("UPDATE u SET v = 2")


@pytest.mark.stack
@pytest.mark.field("PG-PART", Engine.POSTGRES)
def test_partitions_and_inheriting_tables_are_not_published_unasked(source: Source) -> None:
    source.run("CREATE TABLE t (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    with pytest.raises(SourceRejected, match=r"public\.t cannot be captured: it is partitioned"):
        source.of(Table(name="t")).check()
    source.run("CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child () INHERITS (parent)")
    with pytest.raises(SourceRejected, match=r"public\.child inherits from it"):
        source.of(Table(name="parent")).check()
    source.of(Table(name="parent"), publication__autocreate__mode="disabled").check()


@pytest.mark.stack
def test_names_are_matched_as_they_are(source: Source) -> None:
    """Neither in another case nor as patterns."""
    for name in ("orders", "Orders", "a$b", "aXb"):
        source.run(f'CREATE TABLE "{name}" (id int PRIMARY KEY)')
    source.of(Table(name="orders")).check()
    asked = source.of(Table(name="a$b"))
    asked.make_publication("orders")
    asked.publish()
    assert asked.published() == {("public", "a$b")}
    byhand = source.of(Table(name="a$b"), Table(name="Orders"), publication__autocreate__mode="disabled")
    with pytest.raises(SourceRejected, match=r"lacks public\.Orders") as refused:
        byhand.publish()
    assert refused.value.cure is not None
    source.run(refused.value.cure.removesuffix("."))
    byhand.publish()


@pytest.mark.stack
def test_an_operators_publication_of_inserts_needs_no_identity(source: Source) -> None:
    source.run("CREATE TABLE t (id int)")
    asked = source.of(Table(name="t"), publication__autocreate__mode="disabled")
    with pytest.raises(SourceRejected, match="it has no primary key"):
        asked.publish()
    asked.make_publication("t", "WITH (publish = 'insert')")
    asked.publish()
