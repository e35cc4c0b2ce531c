"""Which statements of a binlog connectors pass over unread, and which never."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cdc_platform.connectors.config import desired_config
from cdc_platform.connectors.engines import ddl_filter
from cdc_platform.errors import OverrideRefused
from cdc_platform.model.topology import Engine
from tests.connectors.test_config import CASES

FILTERS = {Engine.MARIADB: ddl_filter.MARIADB, Engine.MYSQL: ddl_filter.MYSQL}
# Each stopped every connector of its server, tried with Debezium 3.5.0 and 3.6.1.
PASSED = {
    Engine.MARIADB: (
        "SET DEFAULT ROLE r FOR u",
        "CREATE OR REPLACE PACKAGE p AS PROCEDURE a(); END",
        "CREATE DEFINER=`ad min`@`localhost` PACKAGE BODY p AS PROCEDURE a() AS BEGIN NULL; END; END",
        "DROP PACKAGE BODY IF EXISTS p",
        "/* by a tool */ CREATE OR REPLACE SERVER s FOREIGN DATA WRAPPER mysql OPTIONS (HOST '1.2.3.4')",
        "INSTALL SONAME 'x'",
        "CREATE DATABASE k COMMENT 'x'",
        "ALTER DATABASE k COMMENT = 'x'",
        "CREATE TABLE a (id INT, s DATE, e DATE, PERIOD FOR p (s, e), UNIQUE (id, p WITHOUT OVERLAPS))",
        "ALTER TABLE x ADD PERIOD FOR p (s, e)",
        "ALTER TABLE d.`x y` WAIT 5 ADD SYSTEM VERSIONING",
        "ALTER TABLE x DROP SYSTEM VERSIONING;",
        "CREATE TABLE a (id INT PRIMARY KEY, v INT WITHOUT SYSTEM VERSIONING) WITH SYSTEM VERSIONING",
        "CREATE TABLE a (id INT PRIMARY KEY) WITH SYSTEM VERSIONING PARTITION BY SYSTEM_TIME (PARTITION p0 HISTORY)",
        "ALTER TABLE x PARTITION BY SYSTEM_TIME (PARTITION p0 HISTORY, PARTITION pn CURRENT)",
        "ALTER TABLE x PARTITION BY KEY () PARTITIONS 3",
        "SET STATEMENT max_statement_time=1 FOR ALTER TABLE x CONVERT PARTITION p0 TO TABLE y",
        "ALTER TABLE x CONVERT TABLE y TO PARTITION p0 VALUES LESS THAN (10)",
        "CREATE TABLE a (id INT PRIMARY KEY, v TEXT COMPRESSED)",
        "CREATE TABLE `a` (\n  `id` INT PRIMARY KEY,\n  `v` VARCHAR (100) CHARSET utf8mb4 COMPRESSED=zlib DEFAULT 'a')",
        "ALTER TABLE x ADD COLUMN z TEXT COMPRESSED",
        "ALTER TABLE x MODIFY v VARCHAR(100) COMPRESSED",
        "CREATE TABLE a (id UUID PRIMARY KEY DEFAULT UUID(), i INET6)",
        "CREATE TABLE a (id INT PRIMARY KEY, v VECTOR(3) NOT NULL, VECTOR INDEX (v))",
        "ALTER TABLE x ADD i INET6 DEFAULT '::1'",
        "ALTER TABLE x ADD CONSTRAINT IF NOT EXISTS c CHECK (v > 0)",
        "CREATE TABLE a (id INT PRIMARY KEY, system VARCHAR(9), option TEXT)",
        "ALTER TABLE x ADD COLUMN window INT NOT NULL DEFAULT 0 AFTER v",
    ),
    Engine.MYSQL: (
        "CREATE SPATIAL REFERENCE SYSTEM 4120 NAME 'x' DEFINITION 'y'",
        "ALTER INSTANCE ROTATE INNODB MASTER KEY",
        "CREATE OR REPLACE JSON RELATIONAL DUALITY VIEW v AS SELECT JSON_DUALITY_OBJECT('a': id) FROM x",
        "CREATE LIBRARY l LANGUAGE JAVASCRIPT AS $$ export function f() {} $$",
        "INSTALL COMPONENT 'file://component_x'",
        "CREATE TABLE a (id INT PRIMARY KEY, url VARCHAR(200), auto BOOL)",
        "ALTER TABLE x ADD url TEXT",
    ),
}
# Any of these may change the columns of a captured table, and none would stop its connector for certain.
READ = (
    "CREATE TABLE a (id INT PRIMARY KEY, v TEXT COMMENT 'is TEXT COMPRESSED', compressed INT)",
    "CREATE OR REPLACE TABLE a (id INT PRIMARY KEY, v TEXT COMPRESSED)",
    "ALTER TABLE x ADD COLUMN compressed TEXT",
    "ALTER TABLE x ADD COLUMN q INT COMMENT 'add system versioning'",
    "ALTER TABLE x RENAME COLUMN v TO w, ADD SYSTEM VERSIONING",
    "ALTER TABLE x RENAME COLUMN v TO w, COMMENT = 'PARTITION BY SYSTEM_TIME'",
    "ALTER TABLE x ADD z TEXT COMPRESSED, RENAME COLUMN v TO w",
    "ALTER TABLE x ADD i INET6, DROP COLUMN v",
    "ALTER TABLE x MODIFY v INET6",
    "ALTER TABLE x ADD CONSTRAINT IF NOT EXISTS c CHECK (v > 0), ADD COLUMN q INT",
    "CREATE OR REPLACE DATABASE k COMMENT 'x'",
    "ALTER DATABASE k CHARACTER SET latin1 COMMENT 'x'",
    "/*! ALTER TABLE x ADD q INT */ DROP PACKAGE p",
    "DROP TABLE x",
    "CREATE TABLE a (id INT PRIMARY KEY, `url` TEXT, `system` INT, KEY url (`url`))",
    "ALTER TABLE x ADD url TEXT, DROP COLUMN v",
    "ALTER TABLE x CHANGE v url TEXT",
    "RENAME TABLE x TO y, z TO x",
)


@pytest.mark.parametrize("engine", FILTERS, ids=str)
def test_what_changes_no_captured_table_is_passed_over_and_nothing_else(engine: Engine) -> None:
    assert [one for one in PASSED[engine] if not ddl_filter.matches(FILTERS[engine], one)] == []
    assert [one for one in READ if ddl_filter.matches(FILTERS[engine], one)] == []


def test_a_statement_is_passed_over_exactly() -> None:
    statement = "CREATE OR REPLACE TABLE `größe 😀`,(\n id INET6 DEFAULT '::1' COMMENT 'a.c, b\\s*')"
    pattern = ddl_filter.exactly(statement)
    assert ddl_filter.is_exact(pattern) and ddl_filter.is_exact(f"{pattern},{pattern}")
    plain = ddl_filter.exactly("DROP TABLE a.b, c")
    assert ddl_filter.matches(plain, " DROP  TABLE\na.b, c ")
    assert not ddl_filter.matches(plain, "DROP TABLE axb, c") and not ddl_filter.matches(plain, "DROP TABLE a.b, c, d")
    for wide in (".*", r"\s*DROP.*\s*", r"\s*\s*", "", r"\s*a|b\s*", f"{plain},.*"):
        assert not ddl_filter.is_exact(wide), wide


def test_a_shard_adds_to_the_filter_of_its_engine_and_replaces_nothing() -> None:
    dataset, shard, cluster, settings = CASES["mariadb"]
    pattern = ddl_filter.exactly("ALTER TABLE strange PLEASE")
    config = desired_config(dataset, replace(shard, connector={ddl_filter.OPTION: pattern}), cluster, settings)
    assert config[ddl_filter.OPTION] == f"{ddl_filter.MARIADB},{pattern}"
    with pytest.raises(OverrideRefused, match="may pass over a change of a captured table"):
        desired_config(dataset, replace(shard, connector={ddl_filter.OPTION: "ALTER.*"}), cluster, settings)
