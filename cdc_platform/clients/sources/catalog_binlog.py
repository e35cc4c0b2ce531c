"""Tables in the catalog of a MariaDB or MySQL server."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pymysql

from cdc_platform.canonical.catalog import CatalogColumn, CatalogTable, ForeignKey, Generated, TableKind, UniqueIndex
from cdc_platform.canonical.columns import Column
from cdc_platform.clients.sources.errors import is_missing_right
from cdc_platform.clients.sources.mariadb_keys import quoted

# Statements for one table: with both names given as constants MariaDB reads one definition, and not the schema's.
COLUMNS = """
SELECT TABLE_NAME, COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, IS_NULLABLE, CHARACTER_SET_NAME, DATETIME_PRECISION,
       NUMERIC_PRECISION, NUMERIC_SCALE, COLLATION_NAME, COLUMN_DEFAULT, EXTRA, COLUMN_COMMENT, ORDINAL_POSITION
  FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s
"""
INDEXES = """
SELECT TABLE_NAME, INDEX_NAME, COLUMN_NAME, NULLABLE, SUB_PART, INDEX_TYPE, SEQ_IN_INDEX
  FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s AND NON_UNIQUE = 0
"""
_TABLES = """
SELECT TABLE_NAME, TABLE_TYPE, ENGINE, COALESCE(TABLE_ROWS, 0), CREATE_OPTIONS, TABLE_COMMENT
  FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s
"""
_TRIGGERS = """
SELECT EVENT_OBJECT_TABLE, TRIGGER_NAME FROM information_schema.TRIGGERS
 WHERE EVENT_OBJECT_SCHEMA = %s AND EVENT_OBJECT_TABLE = %s
"""

_KINDS = {
    "BASE TABLE": TableKind.TABLE,
    "SYSTEM VERSIONED": TableKind.VERSIONED,
    "VIEW": TableKind.VIEW,
    "SEQUENCE": TableKind.SEQUENCE,
}

# In SHOW CREATE TABLE, where the rules of foreign keys stand also for a user with SELECT alone.
_FOREIGN = re.compile(
    r"^ +CONSTRAINT `((?:[^`]|``)+)` FOREIGN KEY \(.*?\) REFERENCES (.+?) \((.*?)\)(.*?),?$", re.MULTILINE
)
_ACT = re.compile(r"ON (?:DELETE|UPDATE) (?:CASCADE|SET NULL|SET DEFAULT)")
_CHECK = re.compile(r"^ +CONSTRAINT `(?:[^`]|``)+` CHECK (\(.*\)).*?,?$", re.MULTILINE)
_PERIOD = re.compile(r"^ +PERIOD FOR `((?:[^`]|``)+)` \(", re.MULTILINE)


def binlog_tables(cursor: pymysql.cursors.Cursor, database: str, names: Sequence[str]) -> dict[str, CatalogTable]:
    """Those of these tables that are there and that the user may see, by name."""
    found = _rows(cursor, _TABLES, database, names)
    if not found:
        return {}
    columns, indexes = _rows(cursor, COLUMNS, database, names), _rows(cursor, INDEXES, database, names)
    triggers = _rows(cursor, _TRIGGERS, database, names)
    return {
        name: _table(
            database,
            name,
            row,
            columns=columns_of(columns.get(name, ())),
            indexes=indexes_of(indexes.get(name, ())),
            triggers=tuple(str(trigger) for (trigger,) in triggers.get(name, ())),
            definition=_definition(cursor, database, name),
        )
        for name, (row,) in found.items()
    }


def columns_of(rows: Sequence[Sequence[Any]]) -> tuple[CatalogColumn, ...]:
    """The columns of a table from rows of `COLUMNS` without the table's name, in the table's order."""
    return tuple(_column(row) for row in sorted(rows, key=lambda row: int(row[-1])))


def indexes_of(rows: Sequence[Sequence[Any]]) -> tuple[UniqueIndex, ...]:
    """The unique indexes of a table from rows of `INDEXES` without the table's name."""
    parts: dict[str, list[Sequence[Any]]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: int(row[-1])):
        parts[as_text(row[0])].append(row)
    return tuple(
        UniqueIndex(
            name=name,
            columns=tuple(as_text(column) for _, column, *_ in own),
            primary=name == "PRIMARY",
            not_null=all(nullable != "YES" for _, _, nullable, *_ in own),
            # A part over an expression has no column (MySQL).
            total=all(part is None and column is not None for _, column, _, part, *_ in own),
            hashed=any(kind == "HASH" for *_, kind, _ in own),
        )
        for name, own in sorted(parts.items())
    )


def foreign_keys(definition: str) -> tuple[ForeignKey, ...]:
    """Those of a definition that SHOW CREATE TABLE gave, with the rules by which the server changes rows itself."""
    return tuple(
        ForeignKey(name=_unquoted(key), references=_unquoted(other), acts=" ".join(_ACT.findall(rules)))
        for key, other, _, rules in _FOREIGN.findall(definition)
    )


def _rows(
    cursor: pymysql.cursors.Cursor, sql: str, database: str, names: Sequence[str]
) -> dict[str, list[tuple[Any, ...]]]:
    """Table to its rows, without its name. Names of other case are other tables."""
    params = [part for name in names for part in (database, name)]
    cursor.execute(" UNION ALL ".join([sql] * len(names)), params)
    rows: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for name, *row in cursor.fetchall():
        rows[as_text(name)].append(tuple(row))
    return {name: rows[name] for name in names if name in rows}


def _definition(cursor: pymysql.cursors.Cursor, database: str, name: str) -> str:
    try:
        cursor.execute(f"SHOW CREATE TABLE {quoted(database)}.{quoted(name)}".replace("%%", "%"))
        return as_text((cursor.fetchone() or ("", ""))[1])
    except pymysql.Error as error:
        # That right is named among those that are missing.
        if is_missing_right(error):
            return ""
        raise


def _table(
    database: str,
    name: str,
    row: Sequence[Any],
    *,
    columns: tuple[CatalogColumn, ...],
    indexes: tuple[UniqueIndex, ...],
    triggers: tuple[str, ...],
    definition: str,
) -> CatalogTable:
    kind, storage, rows, options, comment = row
    what = _KINDS.get(str(kind), TableKind.OTHER)
    if what is TableKind.TABLE and "partitioned" in str(options or "").lower():
        what = TableKind.PARTITIONED
    return CatalogTable(
        place=database,
        name=name,
        kind=what,
        columns=columns,
        indexes=indexes,
        foreign_keys=foreign_keys(definition),
        checks=tuple(_CHECK.findall(definition)),
        triggers=triggers,
        periods=tuple(map(_unquoted, _PERIOD.findall(definition))),
        comment=as_text(comment or ""),
        rows=int(rows),
        storage=str(storage or ""),
    )


def _column(row: Sequence[Any]) -> CatalogColumn:
    name, kind, full, nullable, charset, fraction, precision, scale, collation, default, extra, comment, _ = row
    kind, full, extra = as_text(kind).lower(), as_text(full), as_text(extra or "").upper()
    number = kind in ("bit", "decimal", "numeric")
    digits = number or kind in ("float", "double")
    virtual = "VIRTUAL" in extra
    return CatalogColumn(
        column=Column(
            name=as_text(name),
            type=kind,
            nullable=nullable == "YES",
            unsigned="unsigned" in full,
            zerofill="zerofill" in full,
            members=full if kind in ("enum", "set") else None,
            charset=charset,
            length=int(precision) if number else (None if fraction is None else int(fraction)),
            scale=int(scale) if digits and scale is not None else None,
        ),
        declared=full,
        collation=as_text(collation or ""),
        default=None if default is None else as_text(default),
        # MySQL says DEFAULT_GENERATED of a default that is an expression.
        generated=Generated.VIRTUAL if virtual else Generated.STORED if "STORED GENERATED" in extra else Generated.NO,
        hidden="INVISIBLE" in extra,
        comment=as_text(comment or ""),
    )


def _unquoted(name: str) -> str:
    return name.replace("``", "\0").replace("`", "").replace("\0", "`")


def as_text(value: Any) -> str:
    """A value of the catalog, which the driver gives as bytes where its collation is binary; empty for NULL."""
    return value.decode() if isinstance(value, bytes) else str("" if value is None else value)
