"""Source positions as text and numbers: GTIDs of MariaDB, LSNs of Postgres. Without numpy, for the agent's sake."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from cdc_platform.errors import BadInput

_GTID = re.compile(r"(\d+)-(\d+)-(\d+)")
_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")


def bad_position(text: object, what: str) -> BadInput:
    """The error that `text` is none of `what`."""
    return BadInput(f"{text!r} is no {what}.", field="position")


def parse_gtids(text: str) -> list[tuple[int, int, int]]:
    """`0-1-50,1-1-7` as (domain, server, sequence), in its order; empty is the beginning. Raises BadInput."""
    found = []
    for part in text.split(",") if text else ():
        match = _GTID.fullmatch(part.strip())
        if not match:
            raise bad_position(text, "MariaDB GTID position")
        domain, server, sequence = map(int, match.groups())
        found.append((domain, server, sequence))
    return found


def parse_lsn(text: str) -> int:
    """`16/B374D848` as a number. Raises BadInput."""
    found = _LSN.fullmatch(text)
    if not found:
        raise bad_position(text, "LSN")
    return (int(found[1], 16) << 32) | int(found[2], 16)


def format_lsn(lsn: int) -> str:
    """A number as Postgres writes an LSN."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def saved_offset(offsets: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The first offset among the `offsets` of `GET /connectors/NAME/offsets`; None where nothing is committed."""
    return next((entry["offset"] for entry in offsets if entry.get("offset")), None)
