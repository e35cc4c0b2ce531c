"""What a snapshot run asks of tables: the columns of their keys, and how many rows they have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
import pymysql

from cdc_platform.canonical.columns import Column
from cdc_platform.canonical.hash_sql import quote_name
from cdc_platform.connectors.tables import DEFAULT_SCHEMA
from cdc_platform.model.topology import Engine, Shard, Table

Keys = Mapping[str, tuple[Column, ...]]

_MYSQL = """
SELECT table_name, column_name, data_type, column_type, numeric_precision, column_key = 'PRI'
  FROM information_schema.columns WHERE table_schema = %s AND table_name IN %s ORDER BY ordinal_position
"""

# The type below all domains.
_POSTGRES = """
SELECT c.relname::text, a.attname::text, b.typname::text, b.typtype::text, coalesce(a.attnum = ANY (i.indkey), false)
  FROM unnest(%s::text[], %s::text[]) AS t(s, n)
  JOIN pg_namespace m ON m.nspname = t.s
  JOIN pg_class c ON c.relnamespace = m.oid AND c.relname = t.n
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
 CROSS JOIN LATERAL (
       WITH RECURSIVE types AS (
            SELECT typname, typtype, typbasetype FROM pg_type WHERE oid = a.atttypid
            UNION ALL
            SELECT p.typname, p.typtype, p.typbasetype FROM types JOIN pg_type p ON p.oid = types.typbasetype)
       SELECT typname, typtype FROM types WHERE typtype <> 'd') b
 ORDER BY a.attnum
"""


def mysql_keys(cursor: pymysql.cursors.Cursor, shard: Shard, tables: Sequence[Table]) -> Keys:
    """Table to the columns of its key: those that the topology names, else of the primary key."""
    cursor.execute(_MYSQL, (shard.database, tuple(table.name for table in tables)))
    return _keys(tables, [(row[0], _mysql_column(row), row[5]) for row in cursor.fetchall()])


def postgres_keys(cursor: psycopg.Cursor[Any], tables: Sequence[Table]) -> Keys:
    """As `mysql_keys`. A column of a domain has the type that is below it."""
    cursor.execute(_POSTGRES, ([t.schema or DEFAULT_SCHEMA for t in tables], [t.name for t in tables]))
    kinds = {"e": "enum", "c": "composite"}
    rows = [
        (table, Column(name=name, type=kind, kind=kinds.get(typtype, "base")), primary)
        for table, name, kind, typtype, primary in cursor.fetchall()
    ]
    return _keys(tables, rows)


def count_sql(engine: Engine, place: str, table: str, condition: str | None) -> str:
    """A statement that counts the rows of a table (`place`: its database or schema) that a condition is true for."""
    where = f" WHERE {condition}" if condition else ""
    return f"SELECT COUNT(*) FROM {quote_name(engine, place)}.{quote_name(engine, table)}{where}"


def _mysql_column(row: Sequence[Any]) -> Column:
    _, name, kind, full, precision, _ = row
    return Column(
        name=str(name),
        type=str(kind).lower(),
        unsigned="unsigned" in str(full),
        length=None if precision is None else int(precision),
    )


def _keys(tables: Sequence[Table], rows: Sequence[tuple[str, Column, bool]]) -> Keys:
    return {
        table.name: tuple(
            column
            for name, column, primary in rows
            if name == table.name and (column.name in table.key if table.key else primary)
        )
        for table in tables
    }
