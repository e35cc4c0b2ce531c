"""Names, cascades, spellings and sessions as everyday schemas and applications have them."""

from __future__ import annotations

import json

import pytest

from cdc_platform.errors import TopologyError
from cdc_platform.model.topology import Address, Engine, Shard, Table
from cdc_platform.verification.proof.verdicts import Verdict
from tests.verification.proof.harness import Harness, MakeHarness

pytestmark = pytest.mark.stack


def assert_proven(harness: Harness, shard: Shard, rows: int, table: str | None = None) -> None:
    [verdict] = harness.verify(table, shards=[shard.id]).values()
    assert (verdict.verdict, verdict.source_rows, verdict.topic_rows) == (Verdict.PROVEN, rows, rows), verdict


@pytest.mark.field("NAMES", Engine.MARIADB, Engine.MYSQL, Engine.POSTGRES)
@pytest.mark.parametrize(
    "engine",
    [Engine.MARIADB, Engine.MYSQL, pytest.param(Engine.POSTGRES, marks=pytest.mark.slow)],
    ids=str,
)
def test_everyday_names_are_captured_and_the_others_are_refused(make_harness: MakeHarness, engine: Engine) -> None:
    schema = "Sales" if engine is Engine.POSTGRES else None
    harness = make_harness(engine, Table(name="Order", schema=schema))
    q = harness.quoted
    table = f"{q('Sales')}.{q('Order')}" if schema else q("Order")
    columns = ", ".join(f"{q(name)} INT" for name in ("key", "größe", "my column", "a.b", "2nd", "url", "system"))
    made = [
        f"CREATE TABLE {table} ({q('order')} INT PRIMARY KEY, {columns})",
        f"INSERT INTO {table} ({q('order')}) VALUES (1)",
    ]
    shards = []
    for number, database in enumerate((f"shop-eu-{harness.name}", f"2024_{harness.name}-Shop")):
        first = [f"CREATE SCHEMA {q(schema)} AUTHORIZATION {harness.source_user}"] if schema else []
        shards.append(harness.add_shard(f"{number:05d}", *first, *made, database=database))
        if schema:
            harness.own(shards[-1], table)
    harness.deploy()
    for shard in shards:
        harness.settle(shard)
        harness.execute(shard, f"INSERT INTO {table} ({q('order')}, {q('größe')}, {q('my column')}) VALUES (2, 3, 4)")
        harness.execute(shard, f"UPDATE {table} SET {q('a.b')} = 5, {q('2nd')} = 6 WHERE {q('order')} = 1")
        harness.settle(shard)
        assert_proven(harness, shard, 2)
    for name in ("order-items", "2024_log", "größe", "my table", "a.b"):
        with pytest.raises(TopologyError, match="is not a valid table"):
            Table(name=name)
    for database in ("my.app", "größe", "my app", "-x", ""):
        with pytest.raises(TopologyError, match="is not a valid database"):
            Shard(dataset="d", id="0", leader=Address("h", 1), database=database)


@pytest.mark.slow
@pytest.mark.field("FK-CASCADE", Engine.POSTGRES)
def test_cascades_of_postgres_are_in_its_log(make_harness: MakeHarness) -> None:
    harness = make_harness(Engine.POSTGRES, Table(name="p"), Table(name="c"), Table(name="n"))
    reference = "id INT PRIMARY KEY, pid INT REFERENCES p (id)"
    shard = harness.add_shard(
        "00000",
        "CREATE TABLE p (id INT PRIMARY KEY)",
        f"CREATE TABLE c ({reference} ON DELETE CASCADE ON UPDATE CASCADE)",
        f"CREATE TABLE n ({reference} ON DELETE SET NULL ON UPDATE SET NULL)",
        "INSERT INTO p SELECT generate_series(1, 100)",
        "INSERT INTO c SELECT n, n % 100 + 1 FROM generate_series(1, 300) n",
        "INSERT INTO n SELECT n, n % 100 + 1 FROM generate_series(1, 300) n",
    )
    for table in ("p", "c", "n"):
        harness.own(shard, table)
    harness.deploy()
    harness.settle(shard)
    harness.execute(shard, "DELETE FROM p WHERE id < 10")
    harness.execute(shard, "UPDATE p SET id = id + 1000 WHERE id > 90")
    harness.settle(shard)
    for table, rows in (("p", 91), ("c", 273), ("n", 300)):
        assert_proven(harness, shard, rows, table)


@pytest.mark.slow
@pytest.mark.field("STMT-DML", Engine.MARIADB, Engine.MYSQL)
@pytest.mark.parametrize("engine", [Engine.MARIADB, Engine.MYSQL], ids=str)
def test_statements_that_a_session_logs_are_named_by_the_next_proof(make_harness: MakeHarness, engine: Engine) -> None:
    harness = make_harness(engine)
    shard = harness.add_shard(
        "00000", "CREATE TABLE t (id INT PRIMARY KEY, n INT)", "INSERT INTO t VALUES (1, 1), (2, 2)"
    )
    harness.deploy()
    harness.settle(shard)
    session = harness.connection(shard, "batch").cursor()
    session.execute("SET SESSION binlog_format = 'STATEMENT'")
    for statement in ("INSERT INTO t VALUES (3, 3)", "UPDATE t SET n = 5 WHERE id = 1", "DELETE FROM t WHERE id = 2"):
        session.execute(statement)
    harness.execute(shard, "INSERT INTO t VALUES (4, 4)")
    harness.settle(shard)
    assert harness.field.task_state(shard) == "RUNNING"
    [verdict] = harness.verify().values()
    assert (verdict.verdict, verdict.missing, verdict.extra, verdict.mismatched) == (Verdict.MISMATCHED, 1, 1, 1)
    assert {json.loads(sample.key)["id"] for sample in verdict.samples} == {"1", "2", "3"}


@pytest.mark.slow
@pytest.mark.field("KEY-SPELL", Engine.POSTGRES)
def test_a_timestamp_key_of_postgres_has_one_spelling(make_harness: MakeHarness) -> None:
    harness = make_harness(Engine.POSTGRES)
    shard = harness.add_shard("00000", "CREATE TABLE t (dev INT, at TIMESTAMPTZ, n INT, PRIMARY KEY (dev, at))")
    harness.own(shard, "t")
    for dev, fraction in enumerate(("0", "5", "120", "000001", "100000")):
        harness.execute(shard, "INSERT INTO t VALUES (%s, %s, 0)", (dev, f"2026-01-02 03:04:05.{fraction}+01"))
    harness.deploy()
    harness.settle(shard)
    harness.execute(shard, "UPDATE t SET n = 1")
    harness.settle(shard)
    assert len({key for part in harness.records() for key, _ in part}) == 5
    assert_proven(harness, shard, 5)
    harness.execute(shard, "DELETE FROM t")
    harness.settle(shard)
    last = {key: value for part in harness.records() for key, value in part}
    assert len(last) == 5 and set(last.values()) == {None}


@pytest.mark.slow
@pytest.mark.field("OSC-SWAP", Engine.MARIADB, Engine.MYSQL)
@pytest.mark.parametrize("engine", [Engine.MARIADB, Engine.MYSQL], ids=str)
def test_a_table_that_gh_ost_swaps_stays_proven(make_harness: MakeHarness, engine: Engine) -> None:
    """By SQL what the tool does; a column comes in the middle, and another gets a wider type."""
    harness = make_harness(engine)
    shard = harness.add_shard("00000", "CREATE TABLE t (id INT PRIMARY KEY, n INT, v VARCHAR(20) CHARACTER SET latin1)")
    rows = ",".join(f"({n}, {n}, 'é')" for n in range(50))
    harness.execute(shard, f"INSERT INTO t VALUES {rows}")
    harness.deploy()
    harness.settle(shard)
    for statement in (
        "CREATE /* gh-ost */ TABLE _t_gho LIKE t",
        "ALTER TABLE _t_gho ADD COLUMN x INT NULL AFTER id, MODIFY n BIGINT, CONVERT TO CHARACTER SET utf8mb4",
        "INSERT /* gh-ost */ INTO _t_gho (id, n, v) SELECT id, n, v FROM t WHERE id < 25",
        "UPDATE t SET n = 1000 WHERE id = 3",
        "INSERT /* gh-ost */ INTO _t_gho (id, n, v) SELECT id, n, v FROM t WHERE id >= 25",
        "REPLACE /* gh-ost */ INTO _t_gho (id, n, v) SELECT id, n, v FROM t WHERE id = 3",
        "RENAME /* gh-ost */ TABLE t TO _t_del, _t_gho TO t",
        "INSERT INTO t VALUES (100, 7, 1099511627776, '€')",
        "UPDATE t SET n = n + 1 WHERE id > 10",
        "DROP TABLE _t_del",
        "DELETE FROM t WHERE id = 0",
    ):
        harness.execute(shard, statement)
    harness.settle(shard)
    harness.stop(shard)
    harness.resume(shard)
    harness.execute(shard, "UPDATE t SET x = 1 WHERE id = 1")
    harness.settle(shard)
    assert_proven(harness, shard, 50)
