"""Values that are long or full of quotes, on real servers: in little time, and never taken for NULL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cdc_platform.clients.sources.sessions import mysql_cursor
from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import Dataset, Engine, Shard, Table
from cdc_platform.verification.proof.verdicts import Verdict
from tests.verification.proof.harness import Harness, MakeHarness

pytestmark = pytest.mark.stack

ENGINES = pytest.mark.parametrize("engine", [Engine.MARIADB, Engine.MYSQL], ids=str)

_MEBIBYTE = 1 << 20
_TABLE = "CREATE TABLE t (id BIGINT PRIMARY KEY, body LONGTEXT CHARACTER SET utf8mb4, raw LONGBLOB)"


@contextmanager
def _packets_of(harness: Harness, size: int) -> Iterator[None]:
    """New sessions of the server take and give no more than that in one value."""
    [(before,)] = [tuple(row) for row in harness.execute(None, "SELECT @@global.max_allowed_packet")]
    harness.execute(None, f"SET GLOBAL max_allowed_packet = {size}")
    try:
        yield
    finally:
        harness.execute(None, f"SET GLOBAL max_allowed_packet = {before}")


def _hidden(harness: Harness, shard: Shard, statement: str) -> None:
    """Run a statement that the connector never hears of."""
    cursor = harness.connection(shard, "hidden").cursor()
    cursor.execute("SET sql_log_bin = 0")
    cursor.execute(statement)
    cursor.execute("SET sql_log_bin = 1")


@ENGINES
def test_completeness_of_quotes_takes_time_in_line_with_their_number(make_harness: MakeHarness, engine: Engine) -> None:
    """By REPLACE each of these rows took MariaDB 11 s of CPU: this would not end within the statement's limit."""
    harness = make_harness(engine, verification={"source_seconds": 60})
    shard = harness.add_shard("00000", _TABLE)
    for number in range(10):
        harness.execute(shard, f"INSERT INTO t VALUES ({number}, REPEAT('\"', 300000), NULL)")
    source = harness.outside().source(harness.dataset, shard, harness.tables[0])
    assert source.inspect().shape is not None
    found = source.read_chunk(None, None)
    source.close()
    assert len(found.keys) == 10


@ENGINES
@pytest.mark.parametrize("column", ["body", "raw"])
@pytest.mark.field("PACKET-NULL", Engine.MARIADB, Engine.MYSQL)
def test_completeness_never_takes_a_long_value_for_null(make_harness: MakeHarness, engine: Engine, column: str) -> None:
    harness = make_harness(engine)
    shard = harness.add_shard("00000", _TABLE, "INSERT INTO t VALUES (1, NULL, NULL), (2, 'short', 'x')")
    harness.deploy()
    assert harness.verify()["00000"].verdict is Verdict.PROVEN
    with _packets_of(harness, _MEBIBYTE):
        # Its canonical form is beyond the limit: twice as long.
        _hidden(harness, shard, f"UPDATE t SET {column} = REPEAT('\"', 600 * 1024) WHERE id = 1")
        verdict = harness.verify()["00000"]
        assert verdict.verdict is Verdict.UNVERIFIABLE, verdict
        assert "1 rows are longer in canonical form" in verdict.reason, verdict
        assert f"max_allowed_packet, which is {_MEBIBYTE}" in verdict.reason, verdict
    verdict = harness.verify()["00000"]
    assert (verdict.verdict, verdict.mismatched) == (Verdict.MISMATCHED, 1)
    assert [sample.columns for sample in verdict.samples] == [(column,)]


@ENGINES
def test_completeness_of_long_values_within_the_limit_is_proven(make_harness: MakeHarness, engine: Engine) -> None:
    harness = make_harness(engine)
    shard = harness.add_shard("00000", _TABLE)
    harness.execute(shard, "INSERT INTO t VALUES (1, REPEAT('é\"', 150000), REPEAT(X'00ff', 150000))")
    harness.deploy()
    with _packets_of(harness, _MEBIBYTE * 2):
        assert harness.verify()["00000"].verdict is Verdict.PROVEN


@ENGINES
def test_the_server_ends_statements_of_ours_that_take_too_long(stack: Stack, engine: Engine) -> None:
    limit = "@@max_statement_time * 1000" if engine is Engine.MARIADB else "@@max_execution_time"
    own = Dataset(
        name="x",
        engine=engine,
        tables=(Table(name="t"),),
        clusters=("local",),
        credentials=stack.credentials(engine, "x"),
    )
    dirs = [str(stack.dataset_secrets_dir)]
    with mysql_cursor(stack.primary(engine), own, timeout=2.5, name="x", dirs=dirs) as cursor:
        cursor.execute(f"SELECT {limit}")
        assert [int(value) for value in cursor.fetchone() or ()] == [2500]
