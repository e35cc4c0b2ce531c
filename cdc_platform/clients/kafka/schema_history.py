"""What a binlog connector knows of its tables, from its schema history topic."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from cdc_platform.clients.kafka.topic_records import Records

# A topic's name to its records.
Histories = Callable[[str], Records]


@dataclass(frozen=True, slots=True)
class KnownTable:
    """The columns by name, in order, and the offset of the record that changed the table last."""

    columns: tuple[str, ...]
    offset: int


def known_tables(histories: Histories, topic: str, database: str, tables: Collection[str]) -> dict[str, KnownTable]:
    """Those of the tables that the history has. Raises KafkaUnavailable, KafkaRejected, NotFound."""
    found: dict[str, KnownTable] = {}
    with closing(histories(topic)) as records:
        ((begin, end),) = records.bounds().partitions.values()
        for batch in records.read(0, begin, end):
            for offset, value in zip(batch.offsets, batch.values, strict=True):
                for change in _changes(value):
                    name = _table(change.get("id"), database)
                    if name in tables:
                        columns = tuple(
                            str(column["name"]) for column in (change.get("table") or {}).get("columns", ())
                        )
                        found[name] = KnownTable(columns, int(offset))
    return {name: table for name, table in found.items() if table.columns}


def _changes(value: bytes | None) -> list[Mapping[str, Any]]:
    try:
        document = json.loads(value or b"null")
        changes = document.get("tableChanges") or []
    except (ValueError, AttributeError):
        return []  # a record of another's: the connector passes over it, too
    return [change for change in changes if isinstance(change, dict)]


def _table(id_: object, database: str) -> str:
    r"""The table of an id as in `"database"."table"`; empty for another database's."""
    parts = re.fullmatch(r'"(.*)"\."(.*)"', str(id_))
    return parts[2] if parts and parts[1] == database else ""
