"""One door to the engines' forms, and the SQL that both row and key are hashed with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from cdc_platform.canonical import mariadb, mysql, postgres
from cdc_platform.canonical.columns import Column, Form, Shape
from cdc_platform.model.topology import Engine

# What each server has built in and computes fastest (docs/decisions); MySQL 9 has no SHA1() any
# more. Eight bytes of the digest are kept.
DIGESTS: dict[Engine, Callable[[bytes], hashlib._Hash]] = {
    Engine.MARIADB: hashlib.sha1,
    Engine.MYSQL: hashlib.sha256,
    Engine.POSTGRES: hashlib.sha256,
}

# A primary key of one column of these types is its own 64-bit key.
INTEGER_KEYS = {
    Engine.MARIADB: {"tinyint", "smallint", "mediumint", "int", "integer", "bigint"},
    Engine.MYSQL: {"tinyint", "smallint", "mediumint", "int", "integer", "bigint"},
    Engine.POSTGRES: {"int2", "int4", "int8"},
}


def form(engine: Engine, column: Column) -> Form | None:
    """How a column becomes canonical; None when its type cannot be proven."""
    if engine is Engine.MYSQL:
        return mysql.form(column)
    return mariadb.form(column) if engine is Engine.MARIADB else postgres.form(column)


def quote_name(engine: Engine, name: str) -> str:
    """A column or table name as SQL."""
    if engine.reads_binlog:
        return "`" + name.replace("`", "``") + "`"
    return '"' + name.replace('"', '""') + '"'


def _literal(engine: Engine, text: str) -> str:
    text = text.replace("'", "''")
    return "'" + (text.replace("\\", "\\\\") if engine.reads_binlog else text) + "'"


def json_name(name: str) -> str:
    """A column's name as it stands in the wire's JSON, with the colon."""
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '":'


def token_sql(engine: Engine, column: Column) -> str:
    """SQL for the column's token, `null` for NULL. The type must have a form.

    On MariaDB and MySQL the SQL is NULL, and the row's digest with it, where the value is too long for the server.
    """
    found = form(engine, column)
    if found is None:
        raise ValueError(f"{column.type} has no canonical form")
    name = quote_name(engine, column.name)
    if found.long:
        return f"IF({name} IS NULL,'null',{found.sql(name)})" if column.nullable else found.sql(name)
    return f"coalesce({found.sql(name)},'null')" if column.nullable else _never_null(engine, found.sql(name))


def _never_null(engine: Engine, sql: str) -> str:
    # A zero date in a NOT NULL column gives NULL all the same.
    return f"coalesce({sql},'null')" if engine.reads_binlog else sql


def _joined(engine: Engine, parts: Sequence[str]) -> str:
    return f"CONCAT({','.join(parts)})" if engine.reads_binlog else "(" + "||".join(parts) + ")"


def digest_sql(engine: Engine, sql: str) -> str:
    """SQL for the first 64 bits of the digest of a text in UTF-8, in 16 hex digits (MariaDB and MySQL)."""
    return f"LEFT(SHA2({sql},256),16)" if engine is Engine.MYSQL else f"LEFT(SHA1({sql}),16)"


def row_sql(shape: Shape) -> str:
    """SQL for the canonical row as text."""
    parts: list[str] = []
    for index, column in enumerate(shape.columns):
        parts.append(_literal(shape.engine, ("," if index else "{") + json_name(column.name)))
        parts.append(token_sql(shape.engine, column))
    parts.append("'}'")
    return _joined(shape.engine, parts)


def key_sql(shape: Shape) -> str:
    """SQL for the canonical key as text: the key columns' tokens with commas between."""
    parts: list[str] = []
    for index, name in enumerate(shape.key):
        if index:
            parts.append("','")
        parts.append(token_sql(shape.engine, shape.column(name)))
    return _joined(shape.engine, parts)


def integer_key(shape: Shape) -> bool:
    """True when the key is one integer, which then is its own 64-bit number."""
    return len(shape.key) == 1 and shape.column(shape.key[0]).type in INTEGER_KEYS[shape.engine]
