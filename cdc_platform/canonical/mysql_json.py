"""JSON of MySQL by value: the server and a snapshot spell a document as the server does, the stream does not.

The stream has no spaces, and writes a DOUBLE of 1e7 or more, or below 1e-3,
with all digits of its binary value, so that 12345678.0 becomes 12345678 and 1e20
becomes 100000000000000000000. Here it is spelled as the server does, but for `.0`
at the end of a number, which SQL and this module both leave out. Not distinguished
are thus 1.0 and 1. Values that the stream alters for good are listed in
docs/verification.md.
"""

from __future__ import annotations

import re
from decimal import Decimal

from cdc_platform.canonical import wire_values as wire

# Where a number may end with `.0`; inside of strings both sides leave it out as well.
_ENDINGS = (",", "}", "]")

_TOKENS = re.compile(r'("(?:[^"\\]|\\.)*")|(-?[0-9][0-9.eE+-]*)|([,:])|\s+', re.DOTALL)

# Integers beyond these can only be DOUBLEs.
_LOWEST, _HIGHEST = -(1 << 63), (1 << 64) - 1

# Up to here a decimal number is spelled as the DOUBLE next to it is.
_SHORT = 16


def sql(x: str) -> str:
    """SQL for the canonical token of a JSON column."""
    text = f"CONCAT({x},',')"
    for ending in _ENDINGS:
        text = f"REPLACE({text},'.0{ending}','{ending}')"
    return f"JSON_QUOTE({text})"


def canonical(token: bytes) -> bytes:
    """The canonical token from the wire's."""
    text = _TOKENS.sub(_spelled, wire.text_of(token)) + ","
    for ending in _ENDINGS:
        text = text.replace(f".0{ending}", ending)
    return wire.json_quote(text, small_hex=True)


def _spelled(found: re.Match[str]) -> str:
    string, number, sign = found.groups()
    if string is not None:
        # The stream writes hex digits in capitals, the server small.
        return wire.json_unescape(string.encode("utf-8", "surrogatepass"), small_hex=True).decode(
            "utf-8", "surrogatepass"
        )
    if number is not None:
        return _number(number)
    return f"{sign} " if sign else ""


def _number(text: str) -> str:
    if len(text) <= _SHORT or "e" in text:
        return text
    if "." not in text:
        return text if _LOWEST <= int(text) <= _HIGHEST else _double(text)
    # A DECIMAL may keep zeros at its end; all digits of a DOUBLE's binary value have none.
    binary = not text.endswith("0") and Decimal(text) == Decimal(float(text))
    return _double(text) if binary else text


def _double(text: str) -> str:
    return wire.mysql_json_double(text.encode()).decode()
