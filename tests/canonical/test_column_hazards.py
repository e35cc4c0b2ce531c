"""Columns that the capture may get wrong are warned of before they do."""

from __future__ import annotations

from cdc_platform.canonical.column_hazards import hazards
from cdc_platform.canonical.columns import Column
from cdc_platform.model.topology import Engine


def test_types_that_stop_mariadbs_connector_or_are_captured_wrongly() -> None:
    columns = [Column(name=kind, type=kind) for kind in ("int", "inet4", "inet6", "year", "uuid", "date")]
    assert hazards(Engine.MARIADB, columns) == (
        "column inet4: a table with INET4 stops the connector",
        "column inet6: a table with INET6 stops the connector",
        "column year: the YEAR 0000 stops a snapshot, and the stream says 1900 for it",
        "column uuid: a UUID that ends in zero bytes is captured wrongly",
    )


def test_nulls_in_arrays_of_enums_and_toast_values_of_postgres() -> None:
    columns = [
        Column(name="id", type="int8"),
        Column(name="moods", type="_mood", kind="array", element="mood:enum"),
        Column(name="body", type="text"),
    ]
    assert hazards(Engine.POSTGRES, columns) == ("column moods: a NULL in an array of an enum stops the connector",)
    [_, toast] = hazards(Engine.POSTGRES, columns, complete_rows=False)
    assert toast.startswith("REPLICA IDENTITY is not FULL") and "(moods, body)" in toast
    assert hazards(Engine.POSTGRES, columns[:1], complete_rows=False) == ()
