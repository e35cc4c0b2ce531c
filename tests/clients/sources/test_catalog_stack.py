"""What the catalog of a real server says of captured tables."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cdc_platform.canonical.catalog import CatalogTable, ForeignKey, Generated, TableKind
from cdc_platform.clients.sources.catalog import RealCatalog
from cdc_platform.model.topology import Engine, Shard, Table
from tests.verification.proof.harness import Harness

pytestmark = pytest.mark.stack

MakeHarness = Callable[..., Harness]
BINLOG = [Engine.MARIADB, pytest.param(Engine.MYSQL, marks=pytest.mark.mysql)]


def read(harness: Harness, shard: Shard) -> dict[str, CatalogTable]:
    return dict(RealCatalog(secrets_dirs=harness.settings.secrets_dirs).read(harness.dataset, shard))


@pytest.mark.parametrize("engine", BINLOG)
def test_a_binlog_servers_tables_are_read_whole(make_harness: MakeHarness, engine: Engine) -> None:
    harness = make_harness(engine, Table(name="t"), Table(name="c"), Table(name="p"), Table(name="gone"))
    shard = harness.add_shard(
        "00000",
        "CREATE TABLE t (id BIGINT UNSIGNED PRIMARY KEY COMMENT 'the ''key''', a DECIMAL(9,2) NULL DEFAULT 1.5,"
        " b VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL, s INT AS (id + 1) STORED,"
        " v INT AS (id + 2) VIRTUAL, h INT NOT NULL DEFAULT 0 INVISIBLE,"
        " UNIQUE KEY part (b(3)), UNIQUE KEY whole (b), CONSTRAINT positive CHECK (a > 0)) COMMENT 'of orders'",
        "CREATE TABLE c (id INT PRIMARY KEY, p BIGINT UNSIGNED,"
        " CONSTRAINT k FOREIGN KEY (p) REFERENCES t (id) ON DELETE CASCADE ON UPDATE RESTRICT)",
        "CREATE TABLE p (id INT, d DATE, PRIMARY KEY (id, d)) PARTITION BY HASH (id) PARTITIONS 3",
        "CREATE TRIGGER tr BEFORE INSERT ON c FOR EACH ROW SET NEW.p = NEW.p",
    )
    found = read(harness, shard)
    assert list(found) == ["t", "c", "p"]
    t = found["t"]
    assert (t.kind, t.comment, t.place, t.storage) == (TableKind.TABLE, "of orders", shard.database, "InnoDB")
    assert [(column.name, column.column.nullable) for column in t.columns][:3] == [
        ("id", False),
        ("a", True),
        ("b", False),
    ]
    columns = {column.name: column for column in t.columns}
    assert columns["id"].declared.startswith("bigint") and columns["id"].column.unsigned
    assert columns["id"].comment == "the 'key'" and columns["b"].collation == "utf8mb4_bin"
    assert (columns["a"].declared, columns["a"].column.length, columns["a"].column.scale) == ("decimal(9,2)", 9, 2)
    assert (columns["s"].generated, columns["v"].generated) == (Generated.STORED, Generated.VIRTUAL)
    assert [name for name, column in columns.items() if column.hidden] == ["h"]
    assert t.primary_key == ("id",) and t.key(("b",)) == ("b",) and t.key(("a",)) == ()
    assert {index.name: index.total for index in t.indexes} == {"PRIMARY": True, "part": False, "whole": True}
    assert len(t.checks) == 1 and "> 0" in t.checks[0]
    assert found["c"].foreign_keys == (ForeignKey(name="k", references="t", acts="ON DELETE CASCADE"),)
    # The user has no TRIGGER right.
    assert found["c"].triggers == () and found["p"].kind is TableKind.PARTITIONED


def test_postgres_tables_are_read_whole(make_harness: MakeHarness) -> None:
    harness = make_harness(
        Engine.POSTGRES, Table(name="t"), Table(name="c", schema="s"), Table(name="p"), Table(name="gone")
    )
    shard = harness.add_shard(
        "00000",
        "CREATE TABLE t (id bigint PRIMARY KEY, a numeric(9,2) DEFAULT 1.5 CHECK (a > 0),"
        ' b varchar(20) COLLATE "C" NOT NULL, g int GENERATED ALWAYS AS (1) STORED, e text[])',
        "COMMENT ON TABLE t IS 'of orders'; COMMENT ON COLUMN t.a IS 'the %s'",
        "CREATE UNIQUE INDEX whole ON t (b); CREATE UNIQUE INDEX part ON t (b) WHERE a > 1",
        "CREATE SCHEMA s; CREATE UNLOGGED TABLE s.c (id int PRIMARY KEY DEFERRABLE, p bigint REFERENCES t (id))",
        "CREATE TABLE p (id int, d date, PRIMARY KEY (id, d)) PARTITION BY RANGE (d)",
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "CREATE TRIGGER tr BEFORE INSERT ON p FOR EACH ROW EXECUTE FUNCTION f()",
        "ALTER TABLE p ENABLE ROW LEVEL SECURITY",
    )
    found = read(harness, shard)
    assert set(found) == {"t", "c", "p"}
    t = found["t"]
    assert (t.place, t.kind, t.comment, t.identity, t.logged) == ("public", TableKind.TABLE, "of orders", "d", True)
    columns = {column.name: column for column in t.columns}
    assert columns["a"].declared == "numeric(9,2)" and columns["a"].comment == "the %s"
    assert columns["a"].default == "1.5" and columns["b"].collation == "C" and not columns["b"].column.nullable
    assert columns["g"].generated is Generated.STORED
    assert (columns["e"].column.kind, columns["e"].column.element) == ("array", "text")
    assert t.key() == ("id",) and t.key(("b",)) == ("b",) and len(t.checks) == 1
    assert {index.name: index.total for index in t.indexes} == {"part": False, "t_pkey": True, "whole": True}
    c = found["c"]
    assert not c.logged and not c.indexes[0].immediate and c.foreign_keys[0].references == "public.t"
    assert found["p"].kind is TableKind.PARTITIONED and found["p"].triggers == ("tr",)
