"""What a snapshot run asks of tables: the columns of their keys, and how many rows they have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import psycopg
import pymysql

from cdc_platform.canonical.chunk_keys import TableKey, may_go_beyond
from cdc_platform.canonical.columns import Column
from cdc_platform.canonical.hash_sql import quote_name
from cdc_platform.connectors.tables import DEFAULT_SCHEMA
from cdc_platform.model.topology import Engine, Shard, Table

Keys = Mapping[str, TableKey]

_MYSQL = """
SELECT c.table_name, c.column_name, c.data_type, c.column_type, c.numeric_precision, c.column_key = 'PRI',
       EXISTS (SELECT 1 FROM information_schema.statistics s
                WHERE s.table_schema = c.table_schema AND s.table_name = c.table_name
                  AND s.column_name = c.column_name AND s.seq_in_index = 1)
  FROM information_schema.columns c WHERE c.table_schema = %s AND c.table_name IN %s ORDER BY c.ordinal_position
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
    cursor.execute(_MYSQL, (shard.database, tuple(table.name for table in tables)))
    rows = list(cursor.fetchall())
    keys = _keys(tables, [(row[0], _mysql_column(row), row[5]) for row in rows])
    # Only where an index answers at once; of others the count of rows tells.
    indexed = {(row[0], row[1]) for row in rows if row[6]}
    asked = {(name, c.name) for name, key in keys.items() for c in key.columns if may_go_beyond(engine, c)} & indexed
    beyond = [(table, column) for table, column in asked if goes_beyond(cursor, engine, shard.database, table, column)]
    return {
        name: replace(key, beyond=tuple(column for table, column in beyond if table == name))
        for name, key in keys.items()
    }


def goes_beyond(cursor: pymysql.cursors.Cursor, engine: Engine, *place: str) -> bool:
    """True when a column (`place`: database, table, column) with which an index begins has numbers above 2^63 - 1."""
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
    return _keys(tables, rows)


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
    _, name, kind, full, precision, *_ = row
    return Column(
        name=str(name),
        type=str(kind).lower(),
        unsigned="unsigned" in str(full),
        length=None if precision is None else int(precision),
    )


def _keys(tables: Sequence[Table], rows: Sequence[tuple[str, Column, bool]]) -> Keys:
    return {
        table.name: TableKey(
            tuple(
                column
                for name, column, primary in rows
                if name == table.name and (column.name in table.key if table.key else primary)
            )
        )
        for table in tables
    }
