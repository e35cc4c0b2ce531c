"""Values between the wire's tokens and Python's plain ones: texts, numbers, moments, bits, bytes, geometries."""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np

from cdc_platform.canonical import wire_values as wire
from cdc_platform.canonical.columns import Normaliser

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# Moments between which Python's datetime counts, in microseconds since 1970.
_FIRST = (datetime(1, 1, 1, tzinfo=UTC) - EPOCH) // _MICROSECOND
_LAST = (datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC) - EPOCH) // _MICROSECOND

text_of = wire.text_of


def text_token(text: str) -> bytes:
    """A text as a JSON string."""
    return msgspec.json.encode(text)


def plain_token(value: Any) -> bytes:
    """A number or flag as JSON."""
    return str(value).lower().encode()


def float_of(token: bytes) -> float:
    """A number; NaN and infinities are strings on the wire."""
    return float(token.strip(b'"'))


def float_token(value: float) -> bytes:
    """The shortest text that reads back the same; NaN and infinities are strings, as on the wire."""
    return repr(value).encode() if math.isfinite(value) else f'"{value}"'.encode()


def decimal_of(token: bytes) -> Decimal:
    """A decimal, which the wire has as a string."""
    return Decimal(token[1:-1].decode())


def decimal_token(value: Decimal) -> bytes:
    """Its digits, without an exponent."""
    return b'"' + format(value, "f").encode() + b'"'


def hex_of(token: bytes) -> bytes:
    """Bytes, which the wire has in hex."""
    return bytes.fromhex(token[1:-1].decode())


def hex_token(value: bytes) -> bytes:
    """Bytes in hex."""
    return b'"' + value.hex().encode() + b'"'


def text_in_hex(token: bytes) -> str:
    """A text of which the wire has the bytes in hex: Debezium sends types so that it does not know."""
    return hex_of(token).decode()


def text_in_hex_token(text: str) -> bytes:
    """The inverse."""
    return hex_token(text.encode())


def moment_of(token: bytes) -> int:
    """ZonedTimestamp in microseconds since 1970."""
    text = token[1:-1].decode()
    try:
        return (datetime.fromisoformat(text) - EPOCH) // _MICROSECOND
    except ValueError:  # years that have no four digits
        return int(np.datetime64(text.removesuffix("Z").lstrip("+"), "us").astype(np.int64))


def moment_token(micros: int) -> bytes:
    """A moment as ISO 8601 in UTC; no zeros at the end of its fraction."""
    if _FIRST <= micros <= _LAST:
        text = (EPOCH + micros * _MICROSECOND).replace(tzinfo=None).isoformat()
    else:
        text = str(np.datetime64(micros, "us"))
        text = text if text.startswith("-") or text.index("-") == 4 else f"+{text}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return f'"{text}Z"'.encode()


def time_in_utc(token: bytes) -> int:
    """ZonedTime, which is in UTC on the wire, in microseconds."""
    text = token[1:-1].decode().removesuffix("Z")
    hours, minutes, seconds = text.split(":")
    return (int(hours) * 3600 + int(minutes) * 60) * 1_000_000 + int(Decimal(seconds) * 1_000_000)


def time_in_utc_token(micros: int) -> bytes:
    """The inverse."""
    seconds, fraction = divmod(micros, 1_000_000)
    text = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    if fraction:
        text += f".{fraction:06d}".rstrip("0")
    return f'"{text}Z"'.encode()


def bits_of(token: bytes) -> int:
    """io.debezium.data.Bits as a number."""
    return int.from_bytes(base64.b64decode(token[1:-1]), "little")


def bits_token(number: int) -> bytes:
    """The inverse."""
    return b'"' + base64.b64encode(number.to_bytes(max(1, (number.bit_length() + 7) // 8), "little")) + b'"'


def bit_text_of(length: int | None) -> Callable[[bytes], str]:
    """Bits as 0 and 1; of `bit(n)` all, of `varbit` without the leading zeros, which the wire lacks."""

    def bits(token: bytes) -> str:
        number = bits_of(token)
        return (f"{number:b}" if number else "").zfill(length or 0)

    return bits


def bit_text_token(text: str) -> bytes:
    """The inverse."""
    return bits_token(int(text or "0", 2))


def geometry_of(token: bytes) -> dict[str, Any]:
    """A geometry of MariaDB or MySQL: WKB and SRID."""
    fields = msgspec.json.decode(token)
    return {"wkb": base64.b64decode(fields["wkb"]), "srid": fields.get("srid") or 0}


def geometry_token(value: dict[str, Any]) -> bytes:
    """The inverse."""
    return msgspec.json.encode({"wkb": base64.b64encode(value["wkb"]).decode(), "srid": value["srid"]})


def sent_by(normaliser: Normaliser) -> Callable[[bytes], bytes]:
    """A geometric type of Postgres as its send function writes it."""
    return lambda token: hex_of(normaliser(token))


def point_of(token: bytes) -> dict[str, float]:
    """`point` of Postgres."""
    x, y = struct.unpack(">2d", hex_of(wire.pg_point(token)))
    return {"x": x, "y": y}


def point_token(value: dict[str, float]) -> bytes:
    """Its canonical form."""
    return hex_token(struct.pack(">2d", value["x"], value["y"]))


def pairs_of(token: bytes) -> list[tuple[str, str | None]]:
    """hstore, its keys in the order of their bytes."""
    pairs = json.loads(text_of(token))
    return [(key, pairs[key]) for key in sorted(pairs, key=lambda key: key.encode())]


def pairs_token(value: list[tuple[str, str | None]]) -> bytes:
    """The inverse."""
    return text_token(json.dumps(dict(value), ensure_ascii=False))


def members_of(token: bytes) -> list[str]:
    """A SET's members: no label can hold a comma."""
    text = text_of(token)
    return text.split(",") if text else []


def members_token(value: list[str]) -> bytes:
    """The inverse."""
    return text_token(",".join(value))
