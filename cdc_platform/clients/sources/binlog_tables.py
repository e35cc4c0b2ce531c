"""The captured tables of a MariaDB or MySQL shard as its catalog has them, by one statement for each shard."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

import pymysql

from cdc_platform.clients.sources.catalog_binlog import as_text, foreign_keys
from cdc_platform.clients.sources.mariadb_keys import quoted
from cdc_platform.connectors.tables import twins
from cdc_platform.model.source_facts import SourceTable, Unfit
from cdc_platform.model.topology import Dataset, Shard

# A key of this type is one string in a snapshot and another in the stream.
_FRACTION = re.compile(r"timestamp\([1-6]\)", re.IGNORECASE)


def binlog_tables(
    cursor: pymysql.cursors.Cursor, dataset: Dataset, shard: Shard, *, cascades: bool
) -> tuple[dict[str, SourceTable], tuple[str, ...]]:
    """The shard's captured tables by name, and those that differ from one in case only."""
    captured = [table.name for table in dataset.tables]
    parts, params = (
        ["SELECT 'name', TABLE_NAME, '', '', '' FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s"],
        [shard.database],
    )
    for name in captured:
        # With both names given as constants these read one table's definition, and not the schema's.
        parts += _OF_TABLE
        params += [shard.database, name] * len(_OF_TABLE)
    cursor.execute(" UNION ALL ".join(parts), params)
    rows: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for what, *row in cursor.fetchall():
        rows[what].append(tuple(map(as_text, row)))
    there = {row[0] for row in rows["name"]}
    definitions = {}
    for name in sorted({row[0] for row in rows["foreign"]}) if cascades else ():
        cursor.execute(f"SHOW CREATE TABLE {quoted(shard.database)}.{quoted(name)}")
        ((_, definitions[name]),) = cursor.fetchall()
    keys = {table.name: table.key for table in dataset.tables}
    tables = {
        name: _binlog_table(name, keys[name], rows, definitions.get(name, "")) for name in captured if name in there
    }
    place = f"{shard.database}."
    alike = twins([place + name for name in there], [place + name for name in captured])
    return tables, tuple(name.removeprefix(place) for name in alike)


_OF_TABLE = (
    "SELECT 'type', TABLE_NAME, TABLE_TYPE, '', '' FROM information_schema.TABLES"
    " WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s",
    # In the order of the statement's rows, which is that of the columns.
    "SELECT 'column', TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, LPAD(ORDINAL_POSITION, 5, '0')"
    " FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s",
    # The rules stand in REFERENTIAL_CONSTRAINTS, which shows nothing to a user with SELECT alone.
    "SELECT DISTINCT 'foreign', TABLE_NAME, CONSTRAINT_NAME, '', '' FROM information_schema.KEY_COLUMN_USAGE"
    " WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s AND REFERENCED_TABLE_NAME IS NOT NULL",
    "SELECT 'primary', TABLE_NAME, COLUMN_NAME, '', '' FROM information_schema.STATISTICS"
    " WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s AND INDEX_NAME = 'PRIMARY'",
    "SELECT DISTINCT 'hash', TABLE_NAME, INDEX_NAME, INDEX_TYPE, '' FROM information_schema.STATISTICS"
    " WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s AND NON_UNIQUE = 0 AND INDEX_TYPE = 'HASH'",
)


def _binlog_table(
    name: str, key: Collection[str], rows: Mapping[str, Sequence[tuple[str, ...]]], definition: str
) -> SourceTable:
    own = {what: [row[1:] for row in found if row[0] == name] for what, found in rows.items()}
    columns = tuple((column, kind) for column, kind, _ in sorted(own.get("column", ()), key=lambda row: row[2]))
    unreadable = [f"it is a {kind}" for kind, *_ in own.get("type", ()) if kind == "SYSTEM VERSIONED"]
    unreadable += [
        f"the unique key {key} over a long column is a hidden column in the log" for key, *_ in own.get("hash", ())
    ]
    unreadable += [f"column {column} is COMPRESSED" for column, kind in columns if "COMPRESSED" in kind.upper()]
    return SourceTable(
        # It says that the table was there, and not whether another one took its name.
        number=1,
        columns=columns,
        unfit=_unfit(key or [column for column, *_ in own.get("primary", ())], columns),
        cascades=tuple(f"{key.name} ({key.acts})" for key in foreign_keys(definition) if key.acts),
        unreadable=tuple(unreadable),
    )


def _unfit(key: Collection[str], columns: Sequence[tuple[str, str]]) -> Unfit | None:
    """A key that snapshot and stream spell differently: rows would have two keys in the topic, and outlive deletes."""
    for column, kind in columns:
        if column in key and _FRACTION.match(kind):
            return Unfit(
                why=f"its key column {column} is a {kind}: a snapshot spells its fraction otherwise than the stream,"
                " so that one row has two keys in the topic, and outlives its delete under one of them",
                cure="Name a unique key without it as `key` of the table, or make it a TIMESTAMP(0) or DATETIME",
            )
    return None
