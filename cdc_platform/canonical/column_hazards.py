"""Columns whose values the capture can get wrong, or that can stop it. Warnings: the proof finds what did happen.

Found on real servers with Debezium 3.5.0 (MariaDB), 3.6.1 (MySQL) and 3.7.0 (Postgres); docs/verification.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cdc_platform.canonical.columns import Column
from cdc_platform.model.topology import Engine

# MySQL: charsets of which changes arrive with other characters, as a whole or for characters in daily use.
_REFUSED_CHARSETS = frozenset(
    {"armscii8", "big5", "dec8", "eucjpms", "euckr", "geostd8", "hp8", "keybcs2", "koi8u", "swe7", "ujis"}
)
# And those of which a few do.
_PARTLY_WRONG = {
    "latin1": "the bytes 81, 8D, 8F, 90 and 9D of latin1",
    "cp866": "2 characters of cp866",
    "gb18030": "36 characters of gb18030 (from U+9FB4)",
    "gbk": "1 character of gbk",
    "greek": "2 characters of greek",
    "hebrew": "1 character of hebrew",
    "sjis": "2 characters of sjis",
    "tis620": "control characters of tis620",
}
# And those that need what small Java runtimes leave out.
_NEEDS_CHARSETS = frozenset({"cp1256", "macce", "macroman"})

# Types of Postgres whose values may be long enough to be stored apart (TOAST).
_LONG = {"text", "varchar", "bpchar", "bytea", "json", "jsonb", "xml", "citext", "hstore", "tsvector", "numeric"}


def hazards(engine: Engine, columns: Sequence[Column], *, complete_rows: bool = True) -> tuple[str, ...]:
    """What to know of these columns, a sentence each. `complete_rows` as in `Shape`."""
    if engine is Engine.MYSQL:
        return tuple(hazard for column in columns for hazard in _mysql(column))
    if engine is Engine.MARIADB:
        return tuple(_mariadb(columns))
    return tuple(_postgres(columns, complete_rows))


def _mariadb(columns: Sequence[Column]) -> list[str]:
    found = []
    for column in columns:
        if (why := stops(Engine.MARIADB, column)) is not None:
            found.append(why)
        elif column.type == "year":
            found.append(f"column {column.name}: the YEAR 0000 stops a snapshot, and the stream says 1900 for it")
        elif column.type == "uuid":
            found.append(f"column {column.name}: a UUID that ends in zero bytes is captured wrongly")
    return found


def stops(engine: Engine, column: Column) -> str | None:
    """Why a table with this column stops the connector, whatever its values; None when it does not."""
    if engine is Engine.MARIADB and column.type in ("inet4", "inet6"):
        return f"column {column.name}: a table with {column.type.upper()} stops the connector"
    return None


def spelled_twice(engine: Engine, column: Column) -> bool:
    """True for a key column that a snapshot spells otherwise than the stream: one row gets two keys in the topic.

    Of a TIMESTAMP's fraction a snapshot leaves the last zeros out (`.5Z`), the stream does not (`.500Z`).
    """
    return engine.reads_binlog and column.type == "timestamp" and bool(column.length)


def refused(engine: Engine, column: Column) -> str | None:
    """Why a column cannot be captured rightly, in a sentence; None when it can."""
    if engine is not Engine.MYSQL:
        return None
    if column.charset in _REFUSED_CHARSETS:
        return f"column {column.name}: the connector reads changes in the character set {column.charset} wrongly"
    if column.zerofill and column.type in ("decimal", "numeric"):
        return f"column {column.name}: a snapshot of DECIMAL ZEROFILL stops the connector"
    return None


def _mysql(column: Column) -> Iterator[str]:
    if column.type == "year":
        yield f"column {column.name}: a snapshot says 2000 for the YEAR 0000, and the stream 1900"
    elif column.type == "json":
        yield (
            f"column {column.name}: in JSON the connector streams TIME, DATETIME and binary values of SQL otherwise "
            "than the server shows them, and whole numbers of 1e15 and more that are DOUBLE"
        )
    if column.charset in _PARTLY_WRONG:
        yield f"column {column.name}: the connector reads {_PARTLY_WRONG[column.charset]} wrongly in changes"
    if column.charset in _NEEDS_CHARSETS:
        yield (
            f"column {column.name}: {column.charset} stops the connector on a Java runtime without the module "
            "jdk.charsets"
        )
    if column.members and "?" in column.members:
        yield (
            f"column {column.name}: the server shows a label with `?`, as it does for characters beyond U+FFFF; "
            "those become `?` in changes"
        )


def _postgres(columns: Sequence[Column], complete_rows: bool) -> list[str]:
    found = [
        f"column {column.name}: a NULL in an array of an enum stops the connector"
        for column in columns
        if column.kind == "array" and (column.element or "").endswith(":enum")
    ]
    long = [column.name for column in columns if column.type in _LONG or column.kind in ("array", "composite")]
    if long and not complete_rows:
        found.append(
            "REPLICA IDENTITY is not FULL: a large value that an update leaves unchanged is not sent "
            f"({', '.join(long)}), and compaction may take the last event that holds it"
        )
    return found
