"""Keys by which no table is read in chunks; tests/snapshots/test_key_types.py has what arrives on real servers."""

from __future__ import annotations

import pytest

from cdc_platform.canonical.chunk_keys import TableKey, unfit_key
from cdc_platform.canonical.columns import Column
from cdc_platform.model.topology import Engine

ID = Column(name="id", type="bigint")


def key(*columns: Column) -> TableKey:
    return TableKey(columns)


@pytest.mark.parametrize("engine", [Engine.MARIADB, Engine.MYSQL], ids=str)
def test_keys_of_a_binlog_engine_that_sort_otherwise_than_they_are_compared(engine: Engine) -> None:
    for kind in ("enum", "set", "time", "float"):
        reason = unfit_key(engine, key(ID, Column(name="k", type=kind)))
        assert reason is not None and f"key column k is of type {kind.upper()}" in reason
    assert unfit_key(engine, key(Column(name="k", type="bit", length=8)))
    assert unfit_key(engine, key(Column(name="k", type="bit", length=1), ID)) is None
    for kind in ("bigint", "decimal", "double", "varchar", "binary", "date", "datetime", "timestamp", "year", "uuid"):
        assert unfit_key(engine, key(Column(name="k", type=kind))) is None


def test_keys_of_postgres() -> None:
    for kind in ("_int4", "money", "hstore"):
        assert unfit_key(Engine.POSTGRES, key(Column(name="n", type="int4"), Column(name="k", type=kind)))
    for kind in ("int8", "numeric", "uuid", "date", "time", "timestamptz", "bit", "bytea", "citext", "inet", "label"):
        assert unfit_key(Engine.POSTGRES, key(Column(name="k", type=kind))) is None


def test_a_table_without_a_key_is_left_to_the_connector() -> None:
    assert unfit_key(Engine.POSTGRES, TableKey()) is None


def test_numbers_that_the_driver_of_mysql_wraps() -> None:
    number = Column(name="k", type="bigint", unsigned=True)
    assert unfit_key(Engine.MYSQL, TableKey((number,), beyond=("k",)))
    assert unfit_key(Engine.MYSQL, key(number)) is None, "most never come so far"
    assert unfit_key(Engine.MARIADB, TableKey((number,), beyond=("k",))) is None
