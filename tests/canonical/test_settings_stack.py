"""Settings of database and server that change how values are written do not change what is captured, nor the proof."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cdc_platform.model.topology import Engine, Table
from cdc_platform.verification.proof.verdicts import Verdict
from tests.verification.proof.harness import Harness

VALUES = r"""
SELECT {id}, '\x01fe5c'::bytea, ARRAY['\xff00'::bytea], '1 year 2 mons -3 days 04:05:06.7'::interval,
       0.1::real + 0.2::real, 0.1::float8 + 0.2::float8, ARRAY[1e-7::float8 / 3],
       point(0.1, 1.0 / 3), '2026-01-02 03:04:05.6+00'::timestamptz, '[2026-01-01,2026-02-01)'::tstzrange,
       '12.34'::money, '-0.5'::money, '{{"a": 1.10}}'::jsonb, B'101', '10:11:12.5+02'::timetz
"""
COLUMNS = """
id int PRIMARY KEY, b bytea, bs bytea[], i interval, r real, f float8, fs float8[], p point,
z timestamptz, tr tstzrange, m money, n money, j jsonb, bi bit(3), tz timetz
"""
SETTINGS = {
    "bytea_output": "escape",
    "IntervalStyle": "sql_standard",
    "DateStyle": "SQL, DMY",
    "extra_float_digits": "-3",
    "TimeZone": "America/Sao_Paulo",
    "xmlbinary": "hex",
    "quote_all_identifiers": "on",
}


@pytest.mark.stack
@pytest.mark.field("PG-GUC", Engine.POSTGRES)
@pytest.mark.field("ZONE", Engine.POSTGRES)
def test_settings_of_a_database_change_nothing(make_harness: Callable[..., Harness]) -> None:
    harness = make_harness(Engine.POSTGRES, Table(name="t"))
    shard = harness.add_shard("00000", f"CREATE TABLE t ({COLUMNS})")
    harness.own(shard, "t")
    for name, value in SETTINGS.items():
        harness.execute(None, f"ALTER DATABASE {shard.database} SET {name} = '{value}'")
    harness.execute(shard, "INSERT INTO t " + VALUES.format(id=1))
    harness.deploy()
    harness.settle(shard)
    harness.execute(shard, "INSERT INTO t " + VALUES.format(id=2))
    harness.settle(shard)
    verdict = harness.verify()["00000"]
    assert verdict.verdict is not Verdict.UNVERIFIABLE, verdict.reason
    assert verdict.verdict is Verdict.PROVEN, harness.explain(verdict)


BINLOG_COLUMNS = """
id INT PRIMARY KEY, c CHAR(9), v VARCHAR(40), t TEXT, b BINARY(5), ts TIMESTAMP(6) NULL, dt DATETIME(3), ti TIME(2),
f FLOAT, d DOUBLE, n DECIMAL(20,5), e ENUM('a ','b'), y YEAR, j JSON, l VARCHAR(20) CHARACTER SET latin1, bi BIT(9)
"""
BINLOG_VALUES = """
{id}, 'ab', 'a\\\\b"c''d|é€😀', 'x ', 'ab', '2026-03-08 07:30:00.123456', '2026-03-08 02:30:00.5', '-101:02:03.4',
0.1, 1e-7 / 3, 1.5, 'b', 1999, '{{"a": "\\\\"é"}}', 'é€', 5
"""
BINLOG_SETTINGS = {
    "time_zone": "'-05:00'",
    "sql_mode": "'ANSI,NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH,STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'",
    "character_set_server": "'latin1'",
    "character_set_client": "'latin1'",
    "character_set_results": "'latin1'",
    "div_precision_increment": "1",
    "lc_time_names": "'de_DE'",
    "group_concat_max_len": "64",
    "init_connect": "'SET NAMES latin1, @x = 1'",
}


@pytest.mark.stack
@pytest.mark.parametrize("engine", [Engine.MARIADB, pytest.param(Engine.MYSQL, marks=pytest.mark.mysql)])
@pytest.mark.field("PG-GUC", Engine.MARIADB, Engine.MYSQL)
@pytest.mark.field("ZONE", Engine.MARIADB, Engine.MYSQL)
def test_global_settings_of_a_binlog_server_change_nothing(
    make_harness: Callable[..., Harness], engine: Engine
) -> None:
    harness = make_harness(engine, Table(name="t"))
    shard = harness.add_shard("00000", f"CREATE TABLE t ({BINLOG_COLUMNS}) DEFAULT CHARSET utf8mb4")
    before = {name: harness.execute(None, f"SELECT @@global.{name}")[0][0] for name in BINLOG_SETTINGS}
    harness.execute(shard, f"INSERT INTO t VALUES ({BINLOG_VALUES.format(id=1)})")
    try:
        for name, value in BINLOG_SETTINGS.items():
            harness.execute(None, f"SET GLOBAL {name} = {value}")
        harness.deploy()
        harness.settle(shard)
        harness.execute(shard, f"INSERT INTO t VALUES ({BINLOG_VALUES.format(id=2)})")
        harness.execute(shard, "UPDATE t SET y = 2000 WHERE id = 1")
        harness.execute(shard, f"INSERT INTO t VALUES ({BINLOG_VALUES.format(id=3)})")
        harness.settle(shard)
        verdict = harness.verify()["00000"]
        assert verdict.verdict is not Verdict.UNVERIFIABLE, verdict.reason
        assert verdict.verdict is Verdict.PROVEN, harness.explain(verdict)
    finally:
        for name, value in before.items():
            harness.execute(None, f"SET GLOBAL {name} = %s", (value,))
