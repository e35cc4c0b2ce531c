"""Tokens of the wire made canonical: one small function per odd type.

All take a JSON token that is not `null`, as Connect's JsonConverter writes it
(Jackson), and give the token that SQL builds for the same value.
"""

from __future__ import annotations

import base64
import json
import math
import re
import struct
from collections.abc import Callable
from decimal import Decimal

import msgspec

_ESCAPE = re.compile(rb"\\(?:([\"\\])|([bfnrt/])|u([0-9A-Fa-f]{4})(?:\\u([Dd][C-Fc-f][0-9A-Fa-f]{2}))?)")
_CONTROL = re.compile(rb"[\x00-\x1f]")
_CONTROLS = {code: b"\\u%04X" % code for code in range(0x20)} | {
    8: b"\\b",
    9: b"\\t",
    10: b"\\n",
    12: b"\\f",
    13: b"\\r",
}
_MICRO = Decimal("0.000001")
_SHORT = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"/": b"/"}


def _unescaped(found: re.Match[bytes]) -> bytes:
    kept, short, unit, low = found.groups()
    if kept:
        return found.group()
    if short:
        return _SHORT[short]
    code = int(unit, 16)
    if low is not None:
        if 0xD800 <= code < 0xDC00:
            code = 0x10000 + ((code - 0xD800) << 10) + (int(low, 16) - 0xDC00)
        else:
            # Two separate characters; the second is a lone surrogate, which no database gives.
            return _escaped_char(code) + b"\\u" + low
    return _escaped_char(code)


def _escaped_char(code: int) -> bytes:
    if code in (0x22, 0x5C):
        return b"\\" + bytes([code])
    return chr(code).encode("utf-8", "surrogatepass")


def unescape(text: bytes) -> bytes:
    r"""JSON text with all escapes resolved but `\"` and `\\`: what SQL can build with two REPLACEs."""
    # A run of backslashes begins an escape, so taking out pairs first leaves the others whole.
    if b"\\" not in text.replace(b"\\\\", b"").replace(b'\\"', b""):
        return text
    return _ESCAPE.sub(_unescaped, text)


def json_unescape(text: bytes, *, small_hex: bool) -> bytes:
    r"""JSON text with escapes as JSON_QUOTE() has them: `\"`, `\\`, `\b`, `\t`, `\n`, `\f`, `\r`, and `\u00XX`.

    Jackson writes the same, with capitals in the hex digits as MariaDB does; MySQL writes small ones.
    """
    if b"\\u" not in text and b"\\/" not in text:
        return text
    if small_hex:
        return _ESCAPE.sub(_requoted_small, text)
    return _ESCAPE.sub(_requoted, text)


def _requoted(found: re.Match[bytes]) -> bytes:
    short = found.group(2)
    if short and short != b"/":
        return found.group()
    return _CONTROL.sub(_control, _unescaped(found))


def _requoted_small(found: re.Match[bytes]) -> bytes:
    quoted = _requoted(found)
    return quoted.lower() if found.group(3) and quoted.startswith(b"\\u") else quoted


def _control(found: re.Match[bytes]) -> bytes:
    return _CONTROLS[found.group()[0]]


def json_quote(text: str, *, small_hex: bool) -> bytes:
    """A text as JSON_QUOTE() writes it; see `json_unescape`."""
    token = b'"' + text.encode("utf-8", "surrogatepass").replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
    if _CONTROL.search(token) is None:
        return token
    return _CONTROL.sub(lambda found: _control(found).lower() if small_hex else _control(found), token)


def escape(text: bytes) -> bytes:
    """UTF-8 text as a canonical string token."""
    return b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def text_of(token: bytes) -> str:
    """The text of a string token."""
    return msgspec.json.decode(token, type=str)


def float64_hex(token: bytes) -> bytes:
    """A double as its eight bytes in hex. Jackson writes NaN and the infinities as strings."""
    return b'"' + struct.pack(">d", float(token.strip(b'"'))).hex().encode() + b'"'


def float32_hex(token: bytes) -> bytes:
    """A float as its four bytes in hex."""
    return b'"' + struct.pack(">f", float(token.strip(b'"'))).hex().encode() + b'"'


def mysql_number(value: float, digits: int) -> bytes:
    """A number as MariaDB and MySQL write a DOUBLE (17 digits) or FLOAT (6) without fixed decimals.

    The shortest text of at most that many digits that reads back the same; an
    exponent below 1e-15, and from 1e15 on where no fraction follows (found by
    comparing 80,000 numbers with the server; my_gcvt in strings/dtoa.c).
    """
    if value == 0:
        return b"-0" if math.copysign(1, value) < 0 else b"0"
    text = repr(value) if digits == 17 else f"{value:.{digits - 1}e}"
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = text.lstrip("-").partition("e")
    whole, _, fraction = mantissa.partition(".")
    point = len(whole) + int(exponent or 0)
    figures = (whole + fraction).lstrip("0")
    point -= len(whole + fraction) - len(figures)
    figures = figures.rstrip("0")
    if point < -14 or (point > 15 and point >= len(figures)):
        body = figures[0] + ("." + figures[1:] if len(figures) > 1 else "")
        return f"{sign}{body}e{point - 1}".encode()
    if point <= 0:
        return f"{sign}0.{'0' * -point}{figures}".encode()
    if point >= len(figures):
        return f"{sign}{figures}{'0' * (point - len(figures))}".encode()
    return f"{sign}{figures[:point]}.{figures[point:]}".encode()


def mysql_double(token: bytes) -> bytes:
    """DOUBLE: all its digits."""
    return mysql_number(float(token), 17)


def mysql_float(token: bytes) -> bytes:
    """FLOAT: six significant digits, which is what the server prints and JDBC reads in a snapshot."""
    return mysql_number(_as_float32(float(token)), 6)


def mysql_json_double(token: bytes) -> bytes:
    """DOUBLE as MySQL writes it in JSON."""
    return _pointed(mysql_double(token))


def mysql_json_float(token: bytes) -> bytes:
    """FLOAT, its six digits as MySQL writes them in JSON."""
    return _pointed(mysql_float(token))


def _pointed(number: bytes) -> bytes:
    return number if b"." in number or b"e" in number else number + b".0"


def _as_float32(value: float) -> float:
    return float(struct.unpack(">f", struct.pack(">f", value))[0])


def mysql_fixed(digits: int, single: bool) -> Callable[[bytes], bytes]:
    """FLOAT(m,d) and DOUBLE(m,d): d digits after the point."""

    def fixed(token: bytes) -> bytes:
        value = float(token)
        return f"{_as_float32(value) if single else value:.{digits}f}".encode()

    return fixed


def bits_as_number(token: bytes) -> bytes:
    """io.debezium.data.Bits, base64 of little-endian bytes, as a number."""
    return str(int.from_bytes(base64.b64decode(token[1:-1]), "little")).encode()


def bits_as_text(token: bytes) -> bytes:
    """Bits as a string of 0 and 1 without leading zeros: the wire does not hold them."""
    number = int.from_bytes(base64.b64decode(token[1:-1]), "little")
    return b'"' + (f"{number:b}".encode() if number else b"") + b'"'


def zoned_trimmed(token: bytes) -> bytes:
    """ZonedTimestamp without trailing zeros: a snapshot drops them, the stream keeps them."""
    if b"." not in token:
        return token
    return token[:-2].rstrip(b"0").rstrip(b".") + b'Z"'


def enum_commas(token: bytes) -> bytes:
    """The binlog reader escapes commas in ENUM values, a snapshot does not."""
    return token.replace(b"\\\\,", b",")


def interval(token: bytes) -> bytes:
    """An ISO 8601 interval, its seconds rounded to microseconds: Debezium computes nanoseconds from a double."""
    head, _, seconds = token[:-2].rpartition(b"M")
    if b"." not in seconds:
        return token
    rounded = f"{Decimal(seconds.decode()).quantize(_MICRO):f}".rstrip("0").rstrip(".")
    return head + b"M" + (b"0" if rounded in ("-0", "") else rounded.encode()) + b'S"'


def trailing_zeros(token: bytes) -> bytes:
    """A decimal in quotes without zeros at the end of its fraction."""
    return token if b"." not in token else token[:-1].rstrip(b"0").rstrip(b".") + b'"'


def geometry(token: bytes) -> bytes:
    """A geometry as WKB in hex and its SRID; x and y of a point repeat what the WKB says."""
    fields = msgspec.json.decode(token)
    wkb = base64.b64decode(fields["wkb"])
    return f'"{wkb.hex()},{fields.get("srid") or 0}"'.encode()


def _little_to_big(data: bytes) -> bytes:
    count = len(data) // 8
    return struct.pack(f">{count}d", *struct.unpack(f"<{count}d", data))


def _hex(data: bytes) -> bytes:
    return b'"' + data.hex().encode() + b'"'


# WKB: byte order (1 byte), type (4), then for lines a count (4), for polygons
# the number of rings (4) and a count (4), then the coordinates.
_POINT, _LINE, _POLYGON = 5, 9, 13


def pg_point(token: bytes) -> bytes:
    """`point` as point_send() writes it, in hex."""
    return _hex(_little_to_big(base64.b64decode(msgspec.json.decode(token)["wkb"])[_POINT:]))


def pg_line(token: bytes) -> bytes:
    """`line` as line_send() writes it, in hex."""
    fields = msgspec.json.decode(token)
    return _hex(struct.pack(">3d", *(float(fields[name]) for name in "abc")))


def pg_lseg(token: bytes) -> bytes:
    """`lseg` as lseg_send() writes it, in hex."""
    return _hex(_little_to_big(base64.b64decode(msgspec.json.decode(token)["wkb"])[_LINE:]))


def pg_path(token: bytes) -> bytes:
    """`path` as path_send() writes it, in hex."""
    fields = msgspec.json.decode(token)
    data = base64.b64decode(fields["wkb"])
    closed = fields["extensions"]["closed"] == "true"
    return _hex(bytes([closed]) + struct.pack(">i", (len(data) - _LINE) // 16) + _little_to_big(data[_LINE:]))


def pg_box(token: bytes) -> bytes:
    """`box` as box_send() writes it: two opposite corners, in hex."""
    data = base64.b64decode(msgspec.json.decode(token)["wkb"])[_POLYGON:]
    return _hex(_little_to_big(data[:16] + data[32:48]))


def pg_polygon(token: bytes) -> bytes:
    """The corners of a `polygon` in hex, without a last one that repeats the first.

    Debezium closes the ring where it is open, so the two cannot be told apart.
    """
    data = base64.b64decode(msgspec.json.decode(token)["wkb"])[_POLYGON:]
    if len(data) > 16 and struct.unpack("<2d", data[:16]) == struct.unpack("<2d", data[-16:]):
        data = data[:-16]
    return _hex(_little_to_big(data))


def pg_circle(token: bytes) -> bytes:
    """`circle` as circle_send() writes it, in hex."""
    fields = msgspec.json.decode(token)
    center = fields["center"]
    return _hex(struct.pack(">3d", float(center["x"]), float(center["y"]), float(fields["radius"])))


def hstore(token: bytes) -> bytes:
    """hstore in JSON, its keys in the order of their UTF-8 bytes."""
    pairs = json.loads(text_of(token))
    parts = [
        escape(key.encode()) + b":" + (b"null" if pairs[key] is None else escape(pairs[key].encode()))
        for key in sorted(pairs, key=lambda key: key.encode())
    ]
    return escape(b"{" + b",".join(parts) + b"}")


def array_of(element: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """An array, its elements made canonical one by one."""

    def array(token: bytes) -> bytes:
        items = [bytes(item) for item in _ARRAY.decode(token)]
        return b"[" + b",".join(item if item == b"null" else element(item) for item in items) + b"]"

    return array


_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
