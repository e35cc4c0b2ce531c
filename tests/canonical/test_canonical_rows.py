"""The short ways to a canonical row give what the long way gives."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc_platform.canonical import wire_values as wire
from cdc_platform.canonical.columns import Column, Shape
from cdc_platform.canonical.topic_rows import RowReader
from cdc_platform.model.topology import Engine

_MARIADB = Shape(
    engine=Engine.MARIADB,
    columns=(
        Column(name="id", type="bigint"),
        Column(name="a", type="varchar", charset="utf8mb4"),
        Column(name="t", type="timestamp", length=6),
        Column(name="b", type="varchar", charset="utf8mb4"),
    ),
    key=("id",),
)
_POSTGRES = Shape(
    engine=Engine.POSTGRES,
    columns=(Column(name="id", type="int8"), Column(name="a", type="text"), Column(name="b", type="text")),
    key=("id",),
    complete_rows=False,
)
_ENUM = Shape(
    engine=Engine.MARIADB,
    columns=(Column(name="id", type="bigint"), Column(name="a", type="enum"), Column(name="b", type="varchar")),
    key=("id",),
)
_PIECES = st.sampled_from(
    [
        "\\",
        '"',
        "\n",
        "\x01",
        "/",
        "é",
        "😀",
        "0Z",
        '0Z"',
        ".10Z",
        ',"t":"2020-01-01T00:00:00.10Z"',
        "\\,",
        "_",
        "x",
        "Z",
        "__debezium_unavailable_value",
        "__debez",
        "\\u0041",
        "n",
    ]
)
_TEXTS = st.none() | st.lists(_PIECES, max_size=6).map("".join)
_ROWS = st.lists(
    st.tuples(_TEXTS, _TEXTS, st.sampled_from(["", ".1", ".10", ".123450", ".000000"]), st.booleans()),
    min_size=1,
    max_size=12,
)


def _after(shape: Shape, number: int, row: tuple[Any, ...]) -> bytes:
    first, second, fraction, ascii_only = row
    values = {"id": number, "a": first, "t": f"2020-01-01T10:00:10{fraction}Z", "b": second}
    known = {column.name for column in shape.columns}
    text = json.dumps(
        {name: value for name, value in values.items() if name in known},
        separators=(",", ":"),
        ensure_ascii=ascii_only,
    )
    return text.encode()


@settings(max_examples=400, deadline=None)
@given(st.sampled_from([_MARIADB, _POSTGRES, _ENUM]), _ROWS)
def test_an_event_that_is_no_suspect_is_canonical_and_a_suspect_becomes_so(
    shape: Shape, rows: list[tuple[Any, ...]]
) -> None:
    reader = RowReader(shape)
    afters = [_after(shape, number, row) for number, row in enumerate(rows)]
    suspects = set(reader.suspects(afters).tolist())
    assert suspects == set(reader.suspects([msgspec.Raw(after) for after in afters]).tolist())
    for at, after in enumerate(afters):
        found = reader.canonical(after) if at in suspects else after
        assert found == reader.row(after)


@settings(max_examples=400, deadline=None)
@given(st.lists(_PIECES, max_size=8).map("".join))
def test_escapes_are_resolved_alike_with_and_without_the_look_before(text: str) -> None:
    token = json.dumps(text).encode()
    assert json.loads(wire.unescape(token).decode("utf-8", "surrogatepass"), strict=False) == text
