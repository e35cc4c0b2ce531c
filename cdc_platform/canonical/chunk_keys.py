"""Keys by which a table cannot be read in chunks. Pure.

An incremental snapshot reads the rows behind the last key of the chunk before. Debezium binds that key as its driver
has read it: where that is no longer what the server sorts by, rows are skipped without a word, or the statement fails
and takes the connector with it. docs/bootstrap.md has what arrived on real servers, type by type.
"""

from __future__ import annotations

from dataclasses import dataclass

from cdc_platform.canonical.columns import Column
from cdc_platform.model.topology import Engine

_BY_NUMBER = "the server sorts it by number, and compares it with the driver's text as text"
_BINLOG = {
    "enum": _BY_NUMBER,
    "set": _BY_NUMBER,
    "bit": "the driver hands over bytes, which the server does not compare as the number that it sorts by",
    "time": "the driver wraps times below zero and above a day",
    "float": "the driver's text of a number is not just that number, and the same rows are read again and again",
}

_POSTGRES = dict.fromkeys(("money", "hstore"), "the driver hands over another type, with which the server has no order")


@dataclass(frozen=True, slots=True)
class TableKey:
    """The columns of a table's key; none where it has no key. `beyond` are those with numbers above 2^63 - 1."""

    columns: tuple[Column, ...] = ()
    beyond: tuple[str, ...] = ()


def may_go_beyond(engine: Engine, column: Column) -> bool:
    """True when it depends on a column's values whether it serves: `TableKey.beyond` must be known."""
    # The driver of MariaDB gives such numbers as they are (tried, 3.5.0).
    return engine is Engine.MYSQL and column.type == "bigint" and column.unsigned


def unfit_key(engine: Engine, key: TableKey) -> str | None:
    """Why a table with this key cannot be read in chunks, in half a sentence; None when it can."""
    for column in key.columns:
        reason = _binlog(column) if engine.reads_binlog else _postgres(column)
        if column.name in key.beyond and may_go_beyond(engine, column):
            reason = "the driver wraps its numbers above 2^63 - 1"
        if reason is not None:
            return f"its key column {column.name} is of type {column.type.upper()}: {reason}"
    return None


def _binlog(column: Column) -> str | None:
    return None if (column.type, column.length) == ("bit", 1) else _BINLOG.get(column.type)


def _postgres(column: Column) -> str | None:
    if column.type.startswith("_"):
        return "the connector cannot keep an array in its offset"
    return _POSTGRES.get(column.type)
