"""What a binlog of MariaDB holds, as SHOW BINLOG EVENTS tells it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# Events that change nothing.
_SILENT = {"Gtid_list", "Binlog_checkpoint", "Format_desc", "Start_encryption"}


def rowless_groups(events: Sequence[Sequence[Any]], *, cut: bool) -> list[tuple[int, int, int]]:
    """Of the rows of SHOW BINLOG EVENTS: the groups that are one statement without rows, up to the first other one.

    Such a group is a `Gtid` event whose text does not begin with BEGIN, and a
    `Query`: a DDL statement (https://mariadb.com/kb/en/gtid/). `cut`: more
    events may follow, so the last group may have more to it.
    """
    found: list[tuple[int, int, int]] = []
    held: tuple[int, int, int] | None = None
    said = False
    for _, _, kind, _, _, info in events:
        if kind == "Gtid":
            if held is not None and said:
                found.append(held)
            words = str(info).split()
            if len(words) != 2 or words[0] != "GTID":
                return found
            domain, server, sequence = (int(part) for part in words[1].split("-"))
            held, said = (domain, server, sequence), False
        elif kind == "Query" and held is not None:
            said = True
        elif kind not in _SILENT:
            return found
    if held is not None and said and not cut:
        found.append(held)
    return found
