"""Columns whose values the capture can get wrong, or that can stop it. Warnings: the proof finds what did happen.

Found on real servers with Debezium 3.5.0 (MariaDB) and 3.7.0 (Postgres); docs/verification.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from cdc_platform.canonical.columns import Column
from cdc_platform.model.topology import Engine

# Types of Postgres whose values may be long enough to be stored apart (TOAST).
_LONG = {"text", "varchar", "bpchar", "bytea", "json", "jsonb", "xml", "citext", "hstore", "tsvector", "numeric"}


def hazards(engine: Engine, columns: Sequence[Column], *, complete_rows: bool = True) -> tuple[str, ...]:
    """What to know of these columns, a sentence each. `complete_rows` as in `Shape`."""
    if engine.reads_binlog:
        return tuple(_binlog(columns))
    return tuple(_postgres(columns, complete_rows))


def _binlog(columns: Sequence[Column]) -> list[str]:
    found = []
    for column in columns:
        if column.type in ("inet4", "inet6"):
            found.append(f"column {column.name}: a table with {column.type.upper()} stops the connector")
        elif column.type == "year":
            found.append(f"column {column.name}: the YEAR 0000 stops a snapshot, and the stream says 1900 for it")
        elif column.type == "uuid":
            found.append(f"column {column.name}: a UUID that ends in zero bytes is captured wrongly")
    return found


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
