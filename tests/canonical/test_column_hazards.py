"""Columns that the capture may get wrong are warned of before they do."""

from __future__ import annotations

from cdc_platform.canonical.column_hazards import hazards, refused
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


def test_columns_that_mysqls_connector_cannot_capture_are_refused_by_name() -> None:
    columns = [
        Column(name="a", type="varchar", charset="koi8u"),
        Column(name="b", type="decimal", zerofill=True),
        Column(name="c", type="varchar", charset="utf8mb4"),
        Column(name="d", type="int", zerofill=True),
    ]
    assert [refused(Engine.MYSQL, column) for column in columns] == [
        "column a: the connector reads changes in the character set koi8u wrongly",
        "column b: a snapshot of DECIMAL ZEROFILL stops the connector",
        None,
        None,
    ]
    assert {refused(Engine.MARIADB, column) for column in columns} == {None}


def test_columns_that_mysqls_connector_may_get_wrong_are_warned_of() -> None:
    columns = [
        Column(name="a", type="varchar", charset="greek"),
        Column(name="b", type="enum", charset="utf8mb4", members="enum('a?','b')"),
        Column(name="c", type="enum", charset="utf8mb4", members="enum('a','b')"),
        Column(name="d", type="varchar", charset="cp1256"),
    ]
    assert hazards(Engine.MYSQL, columns) == (
        "column a: the connector reads 2 characters of greek wrongly in changes",
        "column b: the server shows a label with `?`, as it does for characters beyond U+FFFF; "
        "those become `?` in changes",
        "column d: cp1256 stops the connector on a Java runtime without the module jdk.charsets",
    )
