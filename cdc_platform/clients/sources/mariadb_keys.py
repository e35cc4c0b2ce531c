"""Keys in the SQL of MariaDB and MySQL: selected as text, hashed, and compared so that an index serves.

Percent signs are doubled: the statements have parameters.
"""

from __future__ import annotations

from collections.abc import Sequence

from cdc_platform.canonical import hash_sql
from cdc_platform.canonical.columns import Column, Shape
from cdc_platform.clients.sources.source import Key
from cdc_platform.model.topology import Engine

# Types whose text form a comparison reads back as the same value.
_TEXT_KEYS = {"char", "varchar", "tinytext", "text", "mediumtext", "longtext", "uuid"}
_BINARY_KEYS = {"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"}
_TIME_KEYS = {"date", "time", "datetime", "timestamp"}


def escaped(sql: str) -> str:
    """SQL beside parameters."""
    return sql.replace("%", "%%")


def quoted(name: str) -> str:
    """A name of a table or column."""
    return escaped(hash_sql.quote_name(Engine.MARIADB, name))


def key_word(shape: Shape) -> str:
    """16 hex digits: the key itself when it is one integer, else the first eight bytes of its digest."""
    if hash_sql.integer_key(shape):
        return f"LPAD(HEX({quoted(shape.key[0])}+0),16,'0')"
    return escaped(hash_sql.digest_sql(shape.engine, hash_sql.key_sql(shape)))


def key_texts(shape: Shape) -> str:
    """The key's columns as text that the source reads back exactly."""
    return ",".join(_text(column) for column in _columns(shape))


def range_condition(shape: Shape, after: Key | None, until: Key | None) -> tuple[str, tuple[str, ...]]:
    """A condition and its parameters: keys above `after` up to `until`, None being open."""
    parts, params = ["1=1"], list[str]()
    for bound, strict, last in ((after, ">", ">"), (until, "<", "<=")):
        if bound is not None:
            where, values = _beyond(_columns(shape), bound, strict, last)
            parts.append(where)
            params += values
    return " AND ".join(parts), tuple(params)


def keys_condition(shape: Shape, keys: Sequence[Key]) -> tuple[str, tuple[str, ...]]:
    """A condition and its parameters: just these keys."""
    columns = _columns(shape)
    marks = ",".join(_mark(column) for column in columns)
    names = ",".join(quoted(column.name) for column in columns)
    if len(columns) > 1:
        names, marks = f"({names})", f"({marks})"
    return f"{names} IN ({','.join([marks] * len(keys))})", tuple(part for key in keys for part in key)


def _columns(shape: Shape) -> list[Column]:
    return [shape.column(name) for name in shape.key]


def _text(column: Column) -> str:
    name = quoted(column.name)
    if column.type in _BINARY_KEYS:
        return f"HEX({name})"
    if column.zerofill:
        return f"{name}+0"
    # Times as well: the driver makes `-1 day, 13:59:59` of a TIME of -10:00:01.
    return f"CONVERT({name} USING utf8mb4)" if column.type in _TEXT_KEYS | _TIME_KEYS else name


def _mark(column: Column) -> str:
    """A parameter compared as the column is, so that its index serves."""
    if column.type in _BINARY_KEYS:
        return "UNHEX(%s)"
    if column.type in ("decimal", "numeric"):
        return f"CAST(%s AS DECIMAL({column.length},{column.scale}))"
    if column.type == "time":
        return "CAST(%s AS TIME(6))"
    if column.type in _TEXT_KEYS | _TIME_KEYS:
        return "%s"
    return "CAST(%s AS UNSIGNED)" if column.unsigned else "CAST(%s AS SIGNED)"


def _beyond(columns: Sequence[Column], bound: Key, strict: str, last: str) -> tuple[str, list[str]]:
    # The optimizer does not use an index for (a,b) > (x,y); it does for what this spells out.
    parts, params = list[str](), list[str]()
    for depth, column in enumerate(columns):
        equal = [f"{quoted(c.name)}={_mark(c)}" for c in columns[:depth]]
        sign = last if depth == len(columns) - 1 else strict
        parts.append("(" + " AND ".join([*equal, f"{quoted(column.name)}{sign}{_mark(column)}"]) + ")")
        params += [*bound[:depth], bound[depth]]
    where = "(" + " OR ".join(parts) + ")"
    if len(columns) > 1:
        where = f"{quoted(columns[0].name)}{strict}={_mark(columns[0])} AND {where}"
        params = [bound[0], *params]
    return where, params
