"""What others do on a server whose binlog we read stops no shard, or one command lets just that one go on."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import pytest

from cdc_platform.errors import BadInput
from cdc_platform.model.topology import Engine, Shard
from cdc_platform.planning.health.failures import Failure, classify
from cdc_platform.snapshots.lost_positions import failed_trace
from cdc_platform.snapshots.observed_connectors import observe_connectors
from cdc_platform.snapshots.unparsed_statements import skips, stopped_shards
from cdc_platform.verification.proof.verdicts import Verdict
from tests.engines import EACH_BINLOG
from tests.verification.proof.harness import Harness, MakeHarness
from tests.waiting import assert_eventually

pytestmark = pytest.mark.stack

# Statements that the parser does not know, on tables `x`, `y` and `z` of a database that nobody captures.
_PERIODS = (
    "CREATE TABLE p (id INT, s DATE, e DATE, PERIOD FOR q (s, e), UNIQUE (id, q WITHOUT OVERLAPS))",
    "ALTER TABLE z ADD PERIOD FOR q (s, e)",
)
_VERSIONED = (
    "CREATE TABLE v (id INT PRIMARY KEY, n INT WITHOUT SYSTEM VERSIONING) WITH SYSTEM VERSIONING",
    "ALTER TABLE x ADD SYSTEM VERSIONING",
    "ALTER TABLE x PARTITION BY SYSTEM_TIME (PARTITION p0 HISTORY, PARTITION pn CURRENT)",
    "INSERT INTO x (id) VALUES (1)",
    "UPDATE x SET n = 5",
    "ALTER TABLE x REMOVE PARTITIONING",
    "ALTER TABLE x DROP SYSTEM VERSIONING",
)
_ZIPPED = (
    "CREATE TABLE c (id INT PRIMARY KEY, v TEXT COMPRESSED)",
    "ALTER TABLE x ADD COLUMN w VARCHAR(100) COMPRESSED=zlib DEFAULT 'a'",
    "ALTER TABLE x MODIFY n VARCHAR(9) COMPRESSED",
)
_OTHERS = {
    Engine.MARIADB: (
        "CREATE TABLE i (id UUID PRIMARY KEY, i INET6, system VARCHAR(9), option INT)",
        "CREATE TABLE r (id INT) PARTITION BY RANGE (id) "
        "(PARTITION a VALUES LESS THAN (9), PARTITION b VALUES LESS THAN (99))",
        "ALTER TABLE r CONVERT PARTITION a TO TABLE s",
        "CREATE ROLE IF NOT EXISTS {role}",
        "SET DEFAULT ROLE NONE FOR {user}",
        "ALTER DATABASE {database} COMMENT 'of nobody'",
        "SET sql_mode = 'ORACLE'",
        "CREATE PACKAGE k AS PROCEDURE p(); END",
        "SET sql_mode = DEFAULT",
        "DROP PACKAGE k",
        "DROP ROLE {role}",
    ),
    Engine.MYSQL: (
        "CREATE TABLE u (id INT PRIMARY KEY, url VARCHAR(90), auto INT, parallel BOOL)",
        "ALTER TABLE x ADD COLUMN url TEXT",
        'CREATE SPATIAL REFERENCE SYSTEM {srs} NAME \'{role}\' DEFINITION \'GEOGCS["x",DATUM["y",'
        'SPHEROID["z",6378137,298.2]],PRIMEM["G",0],UNIT["d",0.017453292519943278],AXIS["Lat",NORTH],AXIS["Lon",EAST]]\'',
        "DROP SPATIAL REFERENCE SYSTEM {srs}",
        "ALTER INSTANCE RELOAD TLS",
    ),
}
# Nothing of the filter, for they may be of a captured table: the parser does not know these either.
_UNKNOWN = {
    Engine.MARIADB: "CREATE OR REPLACE TABLE z (id INT PRIMARY KEY, i INET6)",
    Engine.MYSQL: "ALTER TABLE z CHANGE s url TEXT",
}


def _captured(harness: Harness) -> Shard:
    shard = harness.add_shard("00000", "CREATE TABLE t (id INT PRIMARY KEY, n INT)", "INSERT INTO t VALUES (0, 0)")
    harness.deploy()
    harness.settle(shard)
    return shard


def _stranger(harness: Harness, engine: Engine, statements: Sequence[str]) -> None:
    """Run them in a database beside the shard's, which is dropped again."""
    database = f"{harness.name}_other"
    words = {"database": database, "role": f"{harness.name}_r", "user": harness.source_user}
    words["srs"] = str(9_000_000 + secrets.randbelow(90_000))
    cursor = harness.connection(None, "stranger").cursor()
    for statement in (
        f"CREATE DATABASE {database}",
        f"USE {database}",
        "CREATE TABLE x (id INT PRIMARY KEY, n INT)",
        "CREATE TABLE z (id INT, s DATE NOT NULL, e DATE NOT NULL)",
        *statements,
    ):
        cursor.execute(statement.format(**words) if "{" in statement else statement)
    cursor.execute(f"DROP DATABASE {database}")


def assert_proven_on(harness: Harness, shard: Shard, rows: int) -> None:
    """The shard goes on, and nothing was read a second time."""
    harness.execute(shard, "INSERT INTO t VALUES (%s, 1)", (rows,))
    harness.settle(shard)
    assert harness.field.task_state(shard) == "RUNNING"
    verdict = harness.verify()[shard.id]
    assert (verdict.verdict, verdict.source_rows) == (Verdict.PROVEN, rows + 1), verdict
    assert sum(len(part) for part in harness.records()) == rows + 1


@pytest.mark.field("DDL-PARSE", Engine.MARIADB, Engine.MYSQL)
@EACH_BINLOG
def test_a_strangers_statement_stops_no_shard(make_harness: MakeHarness, engine: Engine) -> None:
    harness = make_harness(engine)
    shard = _captured(harness)
    _stranger(harness, engine, (*(_PERIODS if engine is Engine.MARIADB else ()), *_OTHERS[engine]))
    assert_proven_on(harness, shard, 1)


@pytest.mark.slow
@pytest.mark.field("VERSIONED", Engine.MARIADB)
def test_a_strangers_versioned_table_stops_no_shard(make_harness: MakeHarness) -> None:
    harness = make_harness(Engine.MARIADB)
    shard = _captured(harness)
    _stranger(harness, Engine.MARIADB, _VERSIONED)
    assert_proven_on(harness, shard, 1)


@pytest.mark.slow
@pytest.mark.field("COL-ZIP", Engine.MARIADB)
def test_a_strangers_compressed_column_stops_no_shard_before_its_rows_do(make_harness: MakeHarness) -> None:
    harness = make_harness(Engine.MARIADB)
    shard = _captured(harness)
    _stranger(harness, Engine.MARIADB, _ZIPPED)
    assert_proven_on(harness, shard, 1)
    # Its rows do: the client of the binlog has no name for the column's type, whoever's table it is.
    database = f"{harness.name}_other"
    for statement in (
        f"CREATE DATABASE {database}",
        f"CREATE TABLE {database}.c (id INT PRIMARY KEY, v TEXT COMPRESSED)",
        f"INSERT INTO {database}.c VALUES (1, REPEAT('x', 1000))",
        f"DROP DATABASE {database}",
    ):
        harness.execute(None, statement)
    assert_eventually(lambda: harness.field.task_state(shard) == "FAILED", "the task fails", 90)
    trace = failed_trace(observe_connectors(harness.platform(), harness.topology), shard.name)
    assert classify(trace) is Failure.COLUMN_UNREADABLE


@pytest.mark.slow
@pytest.mark.field("DDL-PARSE", Engine.MARIADB, Engine.MYSQL)
@pytest.mark.parametrize("engine", [Engine.MARIADB, Engine.MYSQL], ids=str)
def test_one_command_lets_a_shard_pass_over_a_statement_and_read_nothing_again(
    make_harness: MakeHarness, engine: Engine
) -> None:
    harness = make_harness(engine)
    shard = _captured(harness)
    _stranger(harness, engine, (_UNKNOWN[engine],))
    assert_eventually(lambda: harness.field.task_state(shard) == "FAILED", "the task fails", 90)
    observed = observe_connectors(harness.platform(), harness.topology)
    assert classify(failed_trace(observed, shard.name)) is Failure.DDL_UNPARSED
    assert stopped_shards(observed, harness.shards) == [shard]
    [skip] = skips(observed, harness.dataset, harness.shards, force=False)
    assert skip.statement == _UNKNOWN[engine]
    harness.shards[0] = skip.shard
    harness.deploy()
    assert_proven_on(harness, skip.shard, 1)
    with pytest.raises(BadInput, match="it has not failed at a statement"):
        skips(observe_connectors(harness.platform(), harness.topology), harness.dataset, harness.shards, force=False)
