"""The columns of a table as one of its events shows them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg
import msgspec

from cdc_platform.model.bounded_json import UNREADABLE

_KINDS = {str: "text", bool: "boolean", int: "number", float: "number", dict: "object", list: "array"}


def column_schema(value: bytes) -> dg.TableSchema | None:
    """The columns of the row in a Debezium event, JSON with or without schemas; None when it has no row.

    With schemas the types are Connect's, without them JSON's; a column that is NULL in this
    row has no type then.
    """
    try:
        document = msgspec.json.decode(value)
    except UNREADABLE:
        return None
    if not isinstance(document, dict):
        return None
    payload = document.get("payload", document)
    if isinstance(document.get("schema"), dict) and isinstance(payload, dict):
        return _from_schema(document["schema"])
    if not isinstance(payload, dict):
        return None
    row = payload.get("after") or payload.get("before")
    if not isinstance(row, dict):
        return None
    return dg.TableSchema(columns=[_column(name, _KINDS.get(type(field), "")) for name, field in row.items()])


def _from_schema(schema: Mapping[str, Any]) -> dg.TableSchema | None:
    for part in schema.get("fields", ()):
        if part.get("field") == "after":
            return dg.TableSchema(
                columns=[
                    _column(
                        str(field["field"]),
                        str(field.get("type", "")),
                        nullable=bool(field.get("optional", True)),
                        description=field.get("name"),
                    )
                    for field in part.get("fields", ())
                ]
            )
    return None


def _column(name: str, kind: str, *, nullable: bool = True, description: str | None = None) -> dg.TableColumn:
    return dg.TableColumn(
        name=name,
        type=kind or "unknown",
        description=description,
        constraints=dg.TableColumnConstraints(nullable=nullable),
    )
