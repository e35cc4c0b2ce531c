"""Keys by which a table cannot be read in chunks. Pure.

An incremental snapshot reads the rows behind the last key of the chunk before. Debezium binds that key as its driver
has read it: where that is no longer what the server sorts by, rows are skipped without a word, or the statement fails
and takes the connector with it. docs/bootstrap.md has what arrived on real servers, type by type.
"""

from __future__ import annotations

from collections.abc import Sequence

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


def unfit_key(engine: Engine, columns: Sequence[Column]) -> str | None:
    """Why a table with these key columns cannot be read in chunks, in half a sentence; None when it can."""
    for column in columns:
        reason = _binlog(column) if engine.reads_binlog else _postgres(column)
        if reason is not None:
            return f"its key column {column.name} is of type {column.type.upper()}: {reason}"
    return None


def _binlog(column: Column) -> str | None:
    return None if (column.type, column.length) == ("bit", 1) else _BINLOG.get(column.type)


def _postgres(column: Column) -> str | None:
    if column.type.startswith("_"):
        return "the connector cannot keep an array in its offset"
    return _POSTGRES.get(column.type)
