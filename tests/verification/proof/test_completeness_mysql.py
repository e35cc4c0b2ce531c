"""What MySQL does otherwise than MariaDB (docs/connectors.md), captured and proven."""

from __future__ import annotations

import pytest

from cdc_platform.model.topology import Engine, Table
from cdc_platform.verification.proof.verdicts import Verdict
from tests.verification.proof.harness import MakeHarness

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.mysql, pytest.mark.timeout(600)]


@pytest.mark.field("BINLOG-ZIP", Engine.MYSQL)
def test_completeness_through_compressed_and_xa_transactions_instant_ddl_and_create_select(
    make_harness: MakeHarness,
) -> None:
    harness = make_harness(Engine.MYSQL, Table(name="t"), Table(name="copied"))
    shard = harness.add_shard("00000", "CREATE TABLE t (id BIGINT PRIMARY KEY, title TEXT, doc JSON)")
    harness.deploy()
    harness.settle(shard)

    def run(*statements: str) -> None:
        for statement in statements:
            harness.execute(shard, statement)

    rows = ",".join(f"({n}, REPEAT('é', 500), JSON_OBJECT('n', {n}))" for n in range(1, 200))
    run("SET SESSION binlog_transaction_compression = ON", f"INSERT INTO t VALUES {rows}", "DELETE FROM t WHERE id = 7")
    run("SET SESSION binlog_transaction_compression = OFF")
    run(
        "XA START 'one'",
        "INSERT INTO t VALUES (1000, 'xa', '1')",
        "XA END 'one'",
        "XA PREPARE 'one'",
        "XA COMMIT 'one'",
    )
    run("XA START 'two'", "DELETE FROM t WHERE id < 50", "XA END 'two'", "XA PREPARE 'two'", "XA ROLLBACK 'two'")
    run("XA START 'three'", "UPDATE t SET title = 'p' WHERE id = 9", "XA END 'three'", "XA COMMIT 'three' ONE PHASE")
    run("ALTER TABLE t ADD COLUMN more INT FIRST, ALGORITHM = INSTANT", "UPDATE t SET more = 5 WHERE id < 20")
    run("ALTER TABLE t DROP COLUMN title, ALGORITHM = INSTANT", "UPDATE t SET more = 6 WHERE id BETWEEN 15 AND 30")
    run("UPDATE t SET doc = JSON_SET(doc, '$.n', 'partly') WHERE id BETWEEN 20 AND 40")
    run("CREATE TABLE copied (PRIMARY KEY (id)) AS SELECT id, doc FROM t", "UPDATE copied SET doc = '[1]' WHERE id = 3")
    run("UPDATE t SET more = 0 WHERE more IS NULL")
    for table in ("t", "copied"):
        [verdict] = harness.verify(table).values()
        assert verdict.verdict is Verdict.PROVEN, "\n".join(harness.explain(verdict))
        assert verdict.source_rows == verdict.topic_rows == 199


_SET = ",".join(f"'m{n}'" for n in range(64))
# Table to its definition, and rows before and after the connector's snapshot.
_TABLES: dict[str, tuple[str, str, str]] = {
    "functional": (
        "(id INT PRIMARY KEY, name VARCHAR(50), doc JSON, UNIQUE KEY u ((LOWER(name))),"
        " KEY k ((CAST(doc->>'$.n' AS CHAR(20)))), g INT AS (id * 2) STORED, KEY (g), h VARCHAR(60) AS (UPPER(name)))",
        "(id, name, doc) VALUES (1, 'Ä', '{\"n\": 1}'), (2, 'b', '{\"n\": 2.50, \"a\": null}')",
        "(id, name, doc) VALUES (3, 'ß', '{\"n\": 1e2}'), (4, '\U0001f600', '{\"n\": 4}')",
    ),
    # Its key is my_row_id, which the server makes and does not show.
    "unkeyed": ("(n INT, v VARCHAR(20))", "VALUES (1, 'a'), (1, 'a')", "VALUES (1, 'a'), (2, 'b')"),
    "places": (
        "(id INT PRIMARY KEY, p POINT NOT NULL SRID 4326, g GEOMETRY, SPATIAL INDEX (p))",
        "VALUES (1, ST_GeomFromText('POINT(52.5 13.4)', 4326), ST_GeomFromText('POINT(1 2)', 3857)), "
        "(2, ST_GeomFromText('POINT(-33.9 151.2)', 4326), NULL)",
        "VALUES (3, ST_GeomFromText('POINT(0 -0.1)', 4326), ST_GeomFromText('LINESTRING(1 2, 3 4)', 4326)), "
        "(4, ST_GeomFromText('POINT(90 180)', 4326), ST_GeomFromText('POINT(1 2)'))",
    ),
    "odd": (
        f"(id INT PRIMARY KEY, s SET({_SET}), y YEAR, t TIME(6), big BIGINT UNSIGNED, d DECIMAL(65,30))",
        f"VALUES (1, '{_SET.replace(chr(39), '')}', 1901, '-838:59:59', 18446744073709551615, -1e-30), "
        "(2, '', 2155, '-00:00:00.000001', 0, 99999999999999999999999999999999999.999999999999999999999999999999)",
        "VALUES (3, 'm63', 2000, '838:59:58.999999', 9223372036854775808, 0), (4, 'm0,m62', NULL, '0', NULL, NULL)",
    ),
}


def test_completeness_of_functional_keys_keys_of_the_server_and_values_that_mysql_alone_has(
    make_harness: MakeHarness,
) -> None:
    harness = make_harness(Engine.MYSQL, *(Table(name=name) for name in _TABLES))
    shard = harness.add_shard("00000")
    session = harness.connection(shard, "own").cursor()
    session.execute("SET SESSION sql_generate_invisible_primary_key = ON")
    for name, (definition, first, _) in _TABLES.items():
        session.execute(f"CREATE TABLE {name} {definition}")
        session.execute(f"INSERT INTO {name} {first}")
    harness.deploy()
    harness.settle(shard)
    for name, (_, _, later) in _TABLES.items():
        session.execute(f"INSERT INTO {name} {later}")
    for change in (
        "UPDATE functional SET name = CONCAT(name, 'x'), doc = JSON_SET(doc, '$.n', 9) WHERE id IN (1, 4)",
        "UPDATE unkeyed SET v = 'c' WHERE n = 1 LIMIT 1",
        "DELETE FROM unkeyed WHERE n = 2",
        "UPDATE places SET p = ST_GeomFromText('POINT(1 1)', 4326), g = NULL WHERE id IN (1, 3)",
        "UPDATE odd SET s = 'm31,m32', big = big - 1, t = '-00:00:01.5' WHERE id IN (1, 3)",
    ):
        session.execute(change)
    harness.settle(shard)
    for name in _TABLES:
        rows = 3 if name == "unkeyed" else 4
        [verdict] = harness.verify(name).values()
        assert verdict.verdict is Verdict.PROVEN, (name, "\n".join(harness.explain(verdict)))
        assert (verdict.source_rows, verdict.topic_rows) == (rows, rows), name

    # What is changed unseen by the log is found, in each table.
    session.execute("SET SESSION sql_log_bin = 0")
    for name, change in (
        ("functional", "doc = JSON_SET(doc, '$.n', 10) WHERE id = 2"),
        ("unkeyed", "v = 'd' WHERE v = 'c'"),
        ("places", "p = ST_GeomFromText('POINT(1 1.0000001)', 4326) WHERE id = 1"),
        ("odd", "s = 'm31,m33' WHERE id = 1"),
    ):
        session.execute(f"UPDATE {name} SET {change}")
        [verdict] = harness.verify(name).values()
        assert (verdict.verdict, verdict.mismatched) == (Verdict.MISMATCHED, 1), (name, verdict.reason)
