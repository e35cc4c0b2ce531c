"""Keys as an SQL condition, for Debezium's signals: there values cannot be bound, they are written out."""

from __future__ import annotations

from collections.abc import Sequence

from cdc_platform.canonical.columns import Column, Shape
from cdc_platform.canonical.hash_sql import INTEGER_KEYS, quote_name
from cdc_platform.errors import BadInput
from cdc_platform.model.topology import Engine

_BINARY = {"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"}


def key_condition(shape: Shape, keys: Sequence[tuple[str, ...]]) -> str:
    """A condition that is true for the rows with these keys (as `Source` gives them).

    Raises:
        BadInput: no keys, or one that has not a value for each column of the table's key.
    """
    columns = [shape.column(name) for name in shape.key]
    if not keys or any(len(key) != len(columns) for key in keys):
        raise BadInput(
            f"a key of this table has {len(columns)} values.", field="keys", cure=f"Give {', '.join(shape.key)}."
        )
    if len(columns) == 1:
        values = ", ".join(_literal(shape.engine, columns[0], key[0]) for key in keys)
        return f"{quote_name(shape.engine, columns[0].name)} IN ({values})"
    return " OR ".join("(" + " AND ".join(_equal(shape.engine, columns, key)) + ")" for key in keys)


def _equal(engine: Engine, columns: Sequence[Column], key: tuple[str, ...]) -> list[str]:
    return [
        f"{quote_name(engine, column.name)} = {_literal(engine, column, value)}"
        for column, value in zip(columns, key, strict=True)
    ]


def _literal(engine: Engine, column: Column, value: str) -> str:
    if column.type in INTEGER_KEYS[engine]:
        # Bare: as text a server may compare them as floating point numbers.
        try:
            return str(int(value))
        except ValueError:
            raise BadInput(f"{value!r} is no number.", field=column.name, cure="Give the key as a number.") from None
    if engine.reads_binlog and column.type in _BINARY:
        try:
            bytes.fromhex(value)
        except ValueError:
            raise BadInput(f"{value!r} is not hex.", field=column.name, cure="Give the key in hex.") from None
        return f"X'{value}'"
    text = value.replace("'", "''")
    return "'" + (text.replace("\\", "\\\\") if engine.reads_binlog else text) + "'"
