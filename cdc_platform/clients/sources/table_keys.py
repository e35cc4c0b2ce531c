"""What a snapshot run asks of tables: the columns of their keys, and how many rows they have."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import psycopg
import pymysql

from cdc_platform.canonical.chunk_keys import TableKey, may_go_beyond
from cdc_platform.canonical.columns import Column
from cdc_platform.canonical.hash_sql import quote_name
from cdc_platform.connectors.tables import DEFAULT_SCHEMA
from cdc_platform.model.topology import Engine, Shard, Table

Keys = Mapping[str, TableKey]

# For one table: with both names given as constants the servers read one definition, and not those of all databases.
_MYSQL_COLUMNS = """
SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, NUMERIC_PRECISION, COLUMN_KEY = 'PRI'
  FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s ORDER BY ORDINAL_POSITION
"""
_MYSQL_LEADING = """
SELECT COLUMN_NAME FROM information_schema.STATISTICS
 WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s AND SEQ_IN_INDEX = 1
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


def mysql_keys(cursor: pymysql.cursors.Cursor, engine: Engine, shard: Shard, tables: Sequence[Table]) -> Keys:
    """Table to its key: the columns that the topology names, else those of the primary key."""
    return {table.name: _mysql_key(cursor, engine, shard, table) for table in tables}


def _mysql_key(cursor: pymysql.cursors.Cursor, engine: Engine, shard: Shard, table: Table) -> TableKey:
    place = (shard.database, table.name)
    cursor.execute(_MYSQL_COLUMNS, place)
    columns = [(_mysql_column(row), row[-1]) for row in cursor.fetchall()]
    key = _of_key(table, columns)
    leading: Collection[str] = ()
    if any(may_go_beyond(engine, column) for column in key):
        cursor.execute(_MYSQL_LEADING, place)
        leading = {str(name) for (name,) in cursor.fetchall()}
    return mysql_table_key(cursor, engine, place, key, leading)


def mysql_table_key(
    cursor: pymysql.cursors.Cursor,
    engine: Engine,
    place: tuple[str, str],
    columns: Sequence[Column],
    leading: Collection[str],
) -> TableKey:
    """A key of these columns, with those that have numbers above 2^63 - 1.

    Args:
        place: database and table.
        columns: of the key.
        leading: columns with which an index begins. Only those are looked at; of others the count of rows tells.
    """
    asked = [column.name for column in columns if column.name in leading and may_go_beyond(engine, column)]
    return TableKey(tuple(columns), tuple(name for name in asked if _goes_beyond(cursor, engine, *place, name)))


def _goes_beyond(cursor: pymysql.cursors.Cursor, engine: Engine, *place: str) -> bool:
    database, table, column = (quote_name(engine, name) for name in place)
    cursor.execute(f"SELECT 1 FROM {database}.{table} WHERE {column} > 9223372036854775807 LIMIT 1")
    return bool(cursor.fetchall())


def postgres_keys(cursor: psycopg.Cursor[Any], tables: Sequence[Table]) -> Keys:
    """As `mysql_keys`. A column of a domain has the type that is below it."""
    cursor.execute(_POSTGRES, ([t.schema or DEFAULT_SCHEMA for t in tables], [t.name for t in tables]))
    kinds = {"e": "enum", "c": "composite"}
    rows = [
        (table, Column(name=name, type=kind, kind=kinds.get(typtype, "base")), primary)
        for table, name, kind, typtype, primary in cursor.fetchall()
    ]
    return {table.name: TableKey(_of_key(table, [row[1:] for row in rows if row[0] == table.name])) for table in tables}


def count_sql(engine: Engine, place: str, table: str, condition: str | None) -> tuple[str, str]:
    """Statements of which the last counts the rows of a table (`place`: its database or schema) that meet a condition.

    The first gives the session the database, or the path, in which the connector's own reads the condition.
    """
    where = f" WHERE {condition}" if condition else ""
    path = 'SET search_path = pg_catalog, "$user", public' if condition else "SELECT 1"
    return (
        f"USE {quote_name(engine, place)}" if engine.reads_binlog else path,
        f"SELECT COUNT(*) FROM {quote_name(engine, place)}.{quote_name(engine, table)}{where}",
    )


def counted(cursor: pymysql.cursors.Cursor | psycopg.Cursor[Any], statements: Sequence[str]) -> int:
    """What the last of the statements counts."""
    for statement in statements:
        cursor.execute(statement)
    return int(cursor.fetchall()[0][0])


def _mysql_column(row: Sequence[Any]) -> Column:
    name, kind, full, precision, _ = row
    return Column(
        name=str(name),
        type=str(kind).lower(),
        unsigned="unsigned" in str(full),
        length=None if precision is None else int(precision),
    )


def _of_key(table: Table, columns: Sequence[tuple[Column, bool]]) -> tuple[Column, ...]:
    """Of a table's columns, each with whether it is of the primary key, those of the key that counts."""
    return tuple(column for column, primary in columns if (column.name in table.key if table.key else primary))
