"""Java properties: read as `java.util.Properties.load(Reader)` does, and written for people to read."""

from __future__ import annotations

from collections.abc import Mapping

import javaproperties

from cdc_platform.model.topology import EMPTY

_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\f": "\\f"}


def parse(text: str) -> dict[str, str]:
    """Name to value. Raises ValueError for a bad \\u escape and for half a character."""
    found = javaproperties.loads(text)
    "".join((*found, *found.values())).encode()  # a lone surrogate is refused here, not by a driver later
    return found


def render(properties: Mapping[str, str], reasons: Mapping[str, str] = EMPTY) -> str:
    """One property a line, `reasons` as comments before them.

    By hand, for `javaproperties` (and Java) escape each colon and equals sign: `127.0.0.1\\:9092`.
    """
    lines: list[str] = []
    for name, value in properties.items():
        lines += [f"# {line}" for line in reasons.get(name, "").splitlines()]
        lines.append(f"{_escape(name, key=True)}={_escape(value, key=False)}")
    return "\n".join(lines) + "\n"


def _escape(text: str, *, key: bool) -> str:
    """Escape what loading would read otherwise."""
    out: list[str] = []
    for index, char in enumerate(text):
        if char in _ESCAPES:
            out.append(_ESCAPES[char])
        elif char in " =:#!" and (key or index == 0):
            out.append("\\" + char)
        elif " " <= char <= "~":
            out.append(char)
        else:
            units = char.encode("utf-16-be")
            out += [f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2)]
    return "".join(out)
