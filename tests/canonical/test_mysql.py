"""MySQL's tokens: JSON by value, strings as JSON_QUOTE() has them, and SQL that never takes a long value for NULL."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_platform.canonical import mysql_json
from cdc_platform.canonical import wire_values as wire
from cdc_platform.canonical.columns import BINLOG_FORM, Column, Shape
from cdc_platform.canonical.hash_sql import digest_sql, row_sql, token_sql
from cdc_platform.model.topology import Engine


def _wire(document: str) -> bytes:
    """A document as Jackson writes it into an event."""
    return json.dumps(document, ensure_ascii=False).encode()


# As MySQL 9.7 shows a document, and as Debezium 3.6.1 streams it.
PAIRS = [
    ('{"a": 1.0, "bb": 1e20}', '{"a":1.0,"bb":100000000000000000000}'),
    ('{"e": 12345678.0}', '{"e":12345678}'),
    ("[1.0, 2.5, true, null]", "[1.0,2.5,true,null]"),
    ("0.0000001", "0.00000009999999999999999547481118258862586856139387236908078193664550781250"[:-1]),
    ("0.1", "0.1"),
    ("12345678.25", "12345678.25"),
    ("-9223372036854775808", "-9223372036854775808"),
    ("18446744073709551615", "18446744073709551615"),
    ('{"": [], "x": {}}', '{"":[],"x":{}}'),
    ('"a, b: .0,c.0]"', '"a, b: .0,c.0]"'),
    ('["\\u0001\\n\\"\\\\", "é😀"]', '["\\u0001\\n\\"\\\\","é😀"]'),
    ('{"\\u001b\\\\u001B": "\\u000e\\b"}', '{"\\u001B\\\\u001B":"\\u000E\\b"}'),
    # DECIMALs, with which SQL made the document.
    ("[1.10, 12345678901234567890.1234567890]", "[1.10,12345678901234567890.1234567890]"),
]


@pytest.mark.parametrize(("server", "stream"), PAIRS)
def test_json_is_the_same_however_it_is_spelled(server: str, stream: str) -> None:
    assert mysql_json.canonical(_wire(stream)) == mysql_json.canonical(_wire(server))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", "2"),
        ("[1.5]", "[1.50]"),
        ('{"a": 1}', '{"b": 1}'),
        ('"1"', "1"),
        ('"a b"', '"ab"'),
        ('"a,b"', '"a, b"'),
        ("[1, 2]", "[12]"),
        ("0.1", "0.10000000000000002"),
        ("12345678.5", "12345678"),
        ("1.01", "1.0"),
        ("null", '"null"'),
        ("-1", "1"),
    ],
)
def test_json_of_another_value_is_another_token(one: str, other: str) -> None:
    assert mysql_json.canonical(_wire(one)) != mysql_json.canonical(_wire(other))


def _by_sql(server: str) -> bytes:
    """What the column's SQL gives on the server."""
    text = server + ","
    for ending in ",}]":
        text = text.replace(f".0{ending}", ending)
    return _quoted(text, small=True)


def _quoted(text: str, *, small: bool) -> bytes:
    short = {8: "\\b", 9: "\\t", 10: "\\n", 12: "\\f", 13: "\\r", 0x22: '\\"', 0x5C: "\\\\"}
    control = "\\u{:04x}" if small else "\\u{:04X}"
    return ('"' + "".join(short.get(ord(c), control.format(ord(c)) if c < " " else c) for c in text) + '"').encode()


@pytest.mark.parametrize(("server", "stream"), PAIRS)
def test_json_becomes_what_sql_makes_of_it(server: str, stream: str) -> None:
    assert mysql_json.canonical(_wire(stream)) == _by_sql(server)


@given(st.text(st.characters(exclude_categories=["Cs"])), st.booleans(), st.booleans())
def test_strings_are_as_json_quote_has_them(text: str, small: bool, ascii_only: bool) -> None:
    token = json.dumps(text, ensure_ascii=ascii_only).encode()
    assert wire.json_unescape(token, small_hex=small) == wire.json_quote(text, small_hex=small)
    assert wire.json_quote(text, small_hex=small) == _quoted(text, small=small)


def test_doubles_are_as_mysql_shows_them_in_json() -> None:
    found = [wire.mysql_json_double(token) for token in (b"1.0", b"-0.0", b"1.0E20", b"1.17E-7", b"123456.5")]
    assert found == [b"1.0", b"-0.0", b"1e20", b"0.000000117", b"123456.5"]


@pytest.mark.parametrize("engine", [Engine.MARIADB, Engine.MYSQL])
@pytest.mark.parametrize("kind", ["longtext", "varchar", "longblob", "json", "set", "geometry"])
def test_a_value_that_is_too_long_for_the_server_is_not_taken_for_null(engine: Engine, kind: str) -> None:
    sql = token_sql(engine, Column(name="x", type=kind, charset="utf8mb4"))
    assert sql.startswith("IF(`x` IS NULL,'null',") and "coalesce" not in sql
    assert "coalesce" not in token_sql(engine, Column(name="x", type=kind, nullable=False))


def test_each_engine_has_a_digest_that_it_computes() -> None:
    assert digest_sql(Engine.MYSQL, "x") == "LEFT(SHA2(x,256),16)"
    assert digest_sql(Engine.MARIADB, "x") == "LEFT(SHA1(x),16)"


@pytest.mark.parametrize("engine", [Engine.MARIADB, Engine.MYSQL])
def test_no_text_is_escaped_by_replace(engine: Engine) -> None:
    """Its time grows with the square of the length on MariaDB."""
    columns = tuple(
        Column(name=kind, type=kind, charset="utf8mb4") for kind in ("varchar", "longtext", "enum", "set", "json")
    )
    sql = row_sql(Shape(engine=engine, columns=columns, key=()))
    assert sql.count("JSON_QUOTE") == len(columns)
    assert ("REPLACE" in sql) == (engine is Engine.MYSQL), "`.0` at the end of a number in JSON, where it is linear"


def test_hashes_of_before_are_not_taken_for_those_of_now() -> None:
    columns = (Column(name="id", type="bigint"),)
    found = {engine: Shape(engine=engine, columns=columns, key=("id",)) for engine in Engine}
    assert BINLOG_FORM == 2
    assert len({shape.fingerprint for shape in found.values()}) == 3


def test_a_geometry_is_read_in_the_order_in_which_it_is_stored() -> None:
    """An SRID like 4326 says latitude first, and so would the server."""
    column = Column(name="p", type="point", nullable=False)
    assert "ST_AsWKB(`p`,'axis-order=long-lat')" in token_sql(Engine.MYSQL, column)
    assert "ST_AsWKB(`p`)" in token_sql(Engine.MARIADB, column)
