"""Random values of every column type, seeded: what the torture tables are filled with.

What the capture itself changes is left out here and has tests of its own:
dates before 1583 (snapshots read them through Java's old calendar), MariaDB's
zero dates in NOT NULL columns, UUIDs that end in zero bytes, the year 0.
"""

from __future__ import annotations

import json
import random
import struct
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

Make = Callable[[random.Random], Any]

_ALPHABET = (
    'abcdefghijklmnopqrstuvwxyzABCXYZ0123456789      .,;:\'""\\\\/%$#@!?{}[]()<>&|~`^*+-=_\n\t\r'
    "äöüßéèñçøåæœ€£¥µ¿¡жщыюλφω中文字日本語한국어אבגعرب\u2028\u00a0\u200b"
)
_ASTRAL = "😀🎉𝔘𐍈🇩🇪"
_CONTROL = "".join(chr(code) for code in range(1, 32)) + "\x7f"
_LATIN = "abcxyzABC 0123456789'\"\\/äöüßéèñçøåæ€£¥"


def text(limit: int, alphabet: str = _ALPHABET, *, odd: bool = True) -> Make:
    def make(rng: random.Random) -> str:
        kind = rng.random()
        size = 0 if kind < 0.05 else rng.randint(1, min(limit, 12 if kind < 0.7 else 200))
        pool = alphabet
        if odd and rng.random() < 0.15:
            pool += _ASTRAL * 3
        if odd and rng.random() < 0.1:
            pool += _CONTROL * 2
        made = "".join(rng.choice(pool) for _ in range(size))
        return (
            rng.choice(("null", "NULL", "NaN", '"', "\\", '","id":7,"x":"', "__debezium", "0", " ", "\\u0041"))
            if (odd and limit >= 16 and rng.random() < 0.05)
            else made
        )

    return make


def filled(limit: int, alphabet: str = _ALPHABET) -> Make:
    """Text that does not end in blanks: CHAR columns cut them."""
    inner = text(limit, alphabet, odd=False)
    return lambda rng: inner(rng).rstrip()


def integer(bits: int, *, unsigned: bool = False) -> Make:
    low, high = (0, (1 << bits) - 1) if unsigned else (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)

    def make(rng: random.Random) -> int:
        return rng.choice(
            (
                low,
                high,
                0,
                1,
                max(low, -1),
                rng.randint(low, high),
                rng.randint(max(low, -999), 999 if bits > 10 else high),
            )
        )

    return make


def decimal(precision: int, scale: int, *, unsigned: bool = False) -> Make:
    def make(rng: random.Random) -> str:
        digits = rng.randint(0, precision - scale)
        whole = str(rng.randint(0, 10**digits - 1)) if digits else "0"
        fraction = "".join(rng.choice("0123456789") for _ in range(rng.randint(0, scale)))
        sign = "-" if not unsigned and rng.random() < 0.4 else ""
        return f"{sign}{whole}.{fraction}" if fraction else f"{sign}{whole}"

    return make


def double(*, special: tuple[Any, ...] = ()) -> Make:
    edges = (
        0.0,
        -0.0,
        1.0,
        100.0,
        1e7,
        9999999.0,
        1e-3,
        9.99e-4,
        1e15,
        1e16,
        1e17,
        1.7976931348623157e308,
        5e-324,
        0.1,
        1e21,
    )

    def make(rng: random.Random) -> Any:
        kind = rng.random()
        if special and kind < 0.1:
            return rng.choice(special)
        if kind < 0.25:
            return rng.choice(edges) * rng.choice((1, -1))
        if kind < 0.5:
            return round(rng.uniform(-1e6, 1e6), rng.randint(0, 8))
        while True:
            value = struct.unpack(">d", rng.randbytes(8))[0]
            if value == value and abs(value) != float("inf"):
                return value

    return make


def single(*, special: tuple[Any, ...] = ()) -> Make:
    def make(rng: random.Random) -> Any:
        kind = rng.random()
        if special and kind < 0.1:
            return rng.choice(special)
        if kind < 0.5:
            return struct.unpack(">f", struct.pack(">f", round(rng.uniform(-1e4, 1e4), rng.randint(0, 4))))[0]
        while True:
            value = struct.unpack(">f", rng.randbytes(4))[0]
            # MariaDB's parser takes denormals for out of range at their lower end.
            if value == value and 1e-36 < abs(value) < 3e38:
                return value

    return make


def binary(limit: int, *, exact: bool = False) -> Make:
    def make(rng: random.Random) -> bytes:
        size = limit if exact else rng.randint(0, min(limit, 60))
        return rng.choice((rng.randbytes(size), bytes(size), rng.randbytes(size // 2) + bytes(size - size // 2)))

    return make


def choice(*values: Any) -> Make:
    return lambda rng: rng.choice(values)


def day(first: date = date(1583, 1, 1), last: date = date(9999, 12, 31)) -> Make:
    def make(rng: random.Random) -> str:
        found = first + timedelta(days=rng.randint(0, (last - first).days))
        return rng.choice((found, date(1970, 1, 1), date(1969, 12, 31), date(2024, 2, 29))).isoformat()

    return make


def moment(
    digits: int, first: datetime = datetime(1583, 1, 1, tzinfo=UTC), last: datetime = datetime(9999, 12, 31, tzinfo=UTC)
) -> Make:
    span = int((last - first).total_seconds())

    def make(rng: random.Random) -> str:
        found = first + timedelta(seconds=rng.randint(0, span))
        whole = found.strftime("%Y-%m-%d %H:%M:%S").rjust(19, "0")
        if not digits:
            return whole
        fraction = rng.choice(("0", "5", "000001", "120000", "999999", f"{rng.randint(0, 999999):06d}"))
        return f"{whole}.{fraction.ljust(6, '0')[:digits]}"

    return make


def clock(digits: int, hours: int, *, signed: bool) -> Make:
    def make(rng: random.Random) -> str:
        sign = "-" if signed and rng.random() < 0.4 else ""
        found = f"{sign}{rng.randint(0, hours):02d}:{rng.randint(0, 59):02d}:{rng.randint(0, 59):02d}"
        return f"{found}.{rng.randint(0, 10**digits - 1):0{digits}d}" if digits else found

    return make


def json_text(rng: random.Random) -> str:
    words = text(20)

    def value(depth: int) -> Any:
        kind = rng.randint(0, 7 if depth else 5)
        simple: list[Any] = [None, True, rng.randint(-(10**9), 10**9), words(rng).replace("\x00", ""), rng.random(), ""]
        if kind < 6:
            return simple[kind]
        if kind == 6:
            return [value(depth - 1) for _ in range(rng.randint(0, 3))]
        return {words(rng): value(depth - 1) for _ in range(rng.randint(0, 3))}

    return json.dumps(value(2), ensure_ascii=rng.random() < 0.5, indent=rng.choice((None, 1)))


def uuid_text(rng: random.Random) -> str:
    raw = bytearray(rng.randbytes(16))
    raw[15] = raw[15] or 1
    return str(uuid.UUID(bytes=bytes(raw)))


def coordinate(rng: random.Random) -> float:
    return rng.choice((0.0, -0.0, 1.5, round(rng.uniform(-180, 180), 6), rng.uniform(-1e10, 1e10)))


def points(count: int, rng: random.Random) -> list[tuple[float, float]]:
    return [(coordinate(rng), coordinate(rng)) for _ in range(count)]


def row(columns: Mapping[str, Make], rng: random.Random, *, nulls: float = 0.15) -> dict[str, Any]:
    """A value for each column, some NULL."""
    return {name: None if rng.random() < nulls else make(rng) for name, make in columns.items()}
