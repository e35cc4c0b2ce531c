"""Columns as Arrow types: what a value of each type of the sources is to a reader, and the way back to the wire.

The source's catalog says what a column is; the wire's schema cannot (docs/decisions/0220). A value that the Arrow type
cannot hold (an infinite date, a NaN in a numeric) is NULL there, and stands as text beside it (`Unheld`). The types and
that rule are listed in docs/reading.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from types import MappingProxyType
from typing import Any

import msgspec
import pyarrow as pa

from cdc_platform.canonical import hash_sql as engines
from cdc_platform.canonical import wire_parts as parts
from cdc_platform.canonical import wire_values as wire
from cdc_platform.canonical.columns import Column
from cdc_platform.canonical.postgres import UNKNOWN_TYPES, geometric
from cdc_platform.model.topology import Engine

MOST_DIGITS = 76  # of a decimal in Arrow

_LABEL = re.compile(r"'((?:[^']|'')*)'")
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])

_INFINITIES: Mapping[bytes, str] = {b'"POSITIVE_INFINITY"': "Infinity", b'"NEGATIVE_INFINITY"': "-Infinity"}
_NUMERICS: Mapping[bytes, str] = {b'"NAN"': "NaN", **_INFINITIES}
_DAYS: Mapping[bytes, str] = {b"2146033979": "infinity", b"-2147472691": "-infinity"}
_MOMENTS: Mapping[bytes, str] = {b"9223372036854775807": "infinity", b"-9223372036854775808": "-infinity"}
_ZONED: Mapping[bytes, str] = {b'"infinity"': "infinity", b'"-infinity"': "-infinity"}


class Unheld(Exception):
    """A value that the column's Arrow type cannot hold; `text` is what it is at the source."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrowColumn:
    """How one column is read.

    `type` is the Arrow type; `of` makes a plain value (an integer for dates and times) of a token of the wire that is
    not null, and `token` is its inverse; `canonical` when that is the canonical token already, else the wire's.
    `unheld` are tokens that the type cannot hold, with their texts. `labels` are those of an ENUM, in its order.
    """

    type: pa.DataType
    of: Callable[[bytes], Any]
    token: Callable[[Any], bytes]
    canonical: bool = False
    unheld: Mapping[bytes, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()

    def value(self, token: bytes) -> Any:
        """The plain value; None for null. Raises Unheld."""
        if token == b"null":
            return None
        if self.unheld and token in self.unheld:
            raise Unheld(self.unheld[token])
        try:
            return self.of(token)
        except (ValueError, ArithmeticError, OverflowError):
            raise Unheld(token.decode(errors="replace")) from None

    def unheld_token(self, text: str) -> bytes:
        """The token of a value that is not held, by its text."""
        return next((token for token, known in self.unheld.items() if known == text), text.encode())


def arrow_column(engine: Engine, column: Column) -> ArrowColumn:
    """How a column is read; one without a type of its own here is the text of the wire."""
    found = _binlog(column) if engine.reads_binlog else _postgres(column)
    return found or _TEXT


def arrow_fields(engine: Engine, columns: tuple[Column, ...]) -> list[tuple[pa.Field, ArrowColumn]]:
    """Field and reading of each column; the field's metadata has the type's name at the source."""
    found = []
    for column in columns:
        made = arrow_column(engine, column)
        meta = {"cdc.source_type": column.type, "cdc.engine": str(engine)}
        found.append((pa.field(column.name, made.type, nullable=True, metadata=meta), made))
    return found


_TEXT = ArrowColumn(type=pa.string(), of=parts.text_of, token=parts.text_token)
_BOOLEAN = ArrowColumn(type=pa.bool_(), of=b"true".__eq__, token=parts.plain_token)
_BYTES = ArrowColumn(type=pa.binary(), of=parts.hex_of, token=parts.hex_token)
_ZONED_TIMESTAMP = ArrowColumn(
    type=pa.timestamp("us", "UTC"), of=parts.moment_of, token=parts.moment_token, unheld=_ZONED
)


def _integer(kind: pa.DataType, unheld: Mapping[bytes, str] = MappingProxyType({})) -> ArrowColumn:
    return ArrowColumn(type=kind, of=int, token=parts.plain_token, unheld=unheld)


def _number(kind: pa.DataType) -> ArrowColumn:
    return ArrowColumn(type=kind, of=parts.float_of, token=parts.float_token)


def _decimal(digits: int | None, scale: int | None) -> ArrowColumn:
    """A decimal; text where the type has no scale of its own, or more digits than Arrow's."""
    scale = scale or 0
    of: Callable[[bytes], Decimal] = partial(_decimal_of, scale)
    if scale < 0 and digits is not None:
        # The wire shows a fraction of zeros, as long as the scale is negative modulo 2048.
        digits, of = digits - scale, _whole_decimal_of
    if digits is None or max(digits, scale) > MOST_DIGITS:
        return ArrowColumn(type=pa.string(), of=_numeric_text, token=_numeric_token)
    digits, scale = max(digits, scale), max(scale, 0)
    kind = pa.decimal128(digits, scale) if digits <= 38 else pa.decimal256(digits, scale)
    return ArrowColumn(type=kind, of=of, token=parts.decimal_token, unheld=_NUMERICS)


def _decimal_of(scale: int, token: bytes) -> Decimal:
    value = parts.decimal_of(token)
    if value.as_tuple().exponent != -scale:
        raise ValueError("of another scale than the column's")
    return value


def _whole_decimal_of(token: bytes) -> Decimal:
    return _decimal_of(0, wire.trailing_zeros(token))


def _numeric_text(token: bytes) -> str:
    return _NUMERICS.get(token) or parts.text_of(token)


def _numeric_token(text: str) -> bytes:
    return next((token for token, known in _NUMERICS.items() if known == text), parts.text_token(text))


def _labelled(of: Callable[[bytes], str], labels: tuple[str, ...]) -> ArrowColumn:
    return ArrowColumn(
        type=pa.dictionary(pa.int32(), pa.string(), ordered=bool(labels)),
        of=of,
        token=parts.text_token,
        labels=labels,
    )


def _binlog(column: Column) -> ArrowColumn | None:
    kind = column.type
    sizes = {"tinyint": 8, "smallint": 16, "mediumint": 32, "int": 32, "integer": 32, "bigint": 64}
    if kind in sizes:
        return _integer(getattr(pa, f"{'u' if column.unsigned else ''}int{sizes[kind]}")())
    if kind in ("decimal", "numeric"):
        return _decimal(column.length, column.scale)
    if kind == "enum":
        labels = tuple(label.replace("''", "'") for label in _LABEL.findall(column.members or ""))
        return _labelled(lambda token: parts.text_of(wire.enum_commas(token)), labels)
    if kind in ("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"):
        return _BYTES
    if kind in (
        "geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon",
        "geometrycollection", "geomcollection",
    ):  # fmt: skip
        return ArrowColumn(
            type=pa.struct([("wkb", pa.binary()), ("srid", pa.int32())]),
            of=parts.geometry_of,
            token=parts.geometry_token,
        )
    if kind == "bit" and column.length != 1:
        return ArrowColumn(type=pa.uint64(), of=parts.bits_of, token=parts.bits_token)
    return {
        "bit": _BOOLEAN,
        "float": _number(pa.float32()),
        "double": _number(pa.float64()),
        "set": ArrowColumn(type=pa.list_(pa.string()), of=parts.members_of, token=parts.members_token),
        "date": _integer(pa.date32()),
        "time": _integer(pa.duration("us")),
        "datetime": _integer(pa.timestamp("us")),
        "timestamp": _ZONED_TIMESTAMP,
        "year": _integer(pa.int16()),
    }.get(kind)


def _postgres(column: Column) -> ArrowColumn | None:
    if column.kind == "array":
        return _array(column)
    if column.kind == "enum":
        return _labelled(parts.text_of, ())
    kind = column.type
    if column.kind == "composite" or kind in UNKNOWN_TYPES:
        return ArrowColumn(type=pa.string(), of=parts.text_in_hex, token=parts.text_in_hex_token)
    if kind == "numeric":
        return _decimal(column.length, column.scale)
    if kind in ("bit", "varbit") and (kind, column.length) != ("bit", 1):
        length = column.length if kind == "bit" else None
        return ArrowColumn(type=pa.string(), of=parts.bit_text_of(length), token=parts.bit_text_token)
    if kind == "point":
        return ArrowColumn(
            type=pa.struct([("x", pa.float64()), ("y", pa.float64())]),
            of=parts.point_of,
            token=parts.point_token,
            canonical=True,
        )
    if (normaliser := geometric(kind)) is not None:
        return ArrowColumn(type=pa.binary(), of=parts.sent_by(normaliser), token=parts.hex_token, canonical=True)
    return _POSTGRES.get(kind)


_POSTGRES: Mapping[str, ArrowColumn] = {
    "int2": _integer(pa.int16()),
    "int4": _integer(pa.int32()),
    "int8": _integer(pa.int64()),
    "oid": _integer(pa.uint32()),
    "bool": _BOOLEAN,
    "bit": _BOOLEAN,
    "float4": _number(pa.float32()),
    "float8": _number(pa.float64()),
    "money": _decimal(19, 2),
    "bytea": _BYTES,
    "hstore": ArrowColumn(type=pa.map_(pa.string(), pa.string()), of=parts.pairs_of, token=parts.pairs_token),
    "date": _integer(pa.date32(), _DAYS),
    "time": _integer(pa.time64("us"), {b"86400000000": "24:00:00"}),
    "timetz": ArrowColumn(type=pa.time64("us"), of=parts.time_in_utc, token=parts.time_in_utc_token),
    "timestamp": _integer(pa.timestamp("us"), _MOMENTS),
    "timestamptz": _ZONED_TIMESTAMP,
}


def _array(column: Column) -> ArrowColumn:
    kind, _, rest = (column.element or "").partition(":")
    inner = arrow_column(
        Engine.POSTGRES,
        Column(name="e", type=kind, kind=rest or "base", length=column.length, scale=column.scale),
    )

    def of(token: bytes) -> list[Any]:
        # A value that is not held makes its array so: the text is that of the whole array.
        try:
            return [inner.value(bytes(item)) for item in _ARRAY.decode(token)]
        except Unheld as error:
            raise ValueError(str(error)) from None

    def token(values: list[Any]) -> bytes:
        return b"[" + b",".join(b"null" if value is None else inner.token(value) for value in values) + b"]"

    element = pa.string() if pa.types.is_dictionary(inner.type) else inner.type
    return ArrowColumn(type=pa.list_(element), of=of, token=token, canonical=inner.canonical)


def canonical_token(engine: Engine, column: Column, made: ArrowColumn) -> Callable[[bytes], bytes]:
    """From what `ArrowColumn.token` and `unheld_token` give to the canonical token, escapes aside."""
    form = engines.form(engine, column)
    if made.canonical or form is None or form.wire is None:
        return lambda token: token
    return form.wire
