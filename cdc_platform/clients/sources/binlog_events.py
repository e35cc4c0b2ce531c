"""What a binlog of MariaDB or MySQL holds, as SHOW BINLOG EVENTS tells it. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# A group's first event. MariaDB has more words where it is no plain statement: `BEGIN GTID 0-1-9 cid=3`, `XA ...`.
_GROUP = {"Gtid", "Gtid_tagged_log_event"}
_GTID = re.compile(r"(.*?)(?:GTID (\d+-\d+-\d+)|SET @@SESSION\.GTID_NEXT= '([0-9a-f-]+:\S+)')(.*)")

# MySQL's first statement of a group with rows. What ends a prepared transaction stands far from its rows.
_ROWS_FOLLOW = re.compile(r"BEGIN$|XA ")

# Before the first group of a file: what all files before it hold.
_BEFORE = {"Gtid_list": re.compile(r"\[(.*)\]"), "Previous_gtids": re.compile(r"(.*)", re.DOTALL)}

# Events that change nothing.
_SILENT = {"Binlog_checkpoint", "Format_desc", "Start_encryption", *_BEFORE}

# The end of a file: what began before it is whole.
_LAST = {"Rotate", "Stop"}


@dataclass(frozen=True, slots=True)
class Group:
    """One transaction or statement of a binlog, by its GTID; `end` is where the next one begins.

    `rowless`: one statement without rows, which is DDL: a GTID's event that announces no rows, and a `Query` that does
    not either (https://mariadb.com/kb/en/gtid/; MySQL's as 9.7 shows them).
    """

    gtid: str
    rowless: bool
    end: int


class GroupReader:
    """Makes groups of the rows of SHOW BINLOG EVENTS, page by page, from one file's group begin on.

    `lost`: it cannot tell what it read, because that does not begin a group or bears no GTID. `over`: that was the
    file, and `next_file` follows, where it says so. `at` is where the next page begins, `open` the group in its middle.
    """

    def __init__(self, at: int) -> None:
        self.at = at
        self.lost = False
        self.over = False
        self.next_file = ""
        self.open: str | None = None
        self._said = self._rows = False

    def read(self, events: Sequence[Sequence[Any]], *, cut: bool) -> list[Group]:
        """The groups that end in this page. `cut`: more events may follow, so the last may have more to it."""
        found: list[Group] = []
        for _, at, kind, _, end, info in events:
            if self.lost or self.over:
                return found
            if kind in _GROUP or kind in _LAST:
                found += self._ended(at)
            if kind in _GROUP:
                self._begin(_GTID.fullmatch(str(info)))
            elif kind in _LAST:
                self.over, self.next_file = True, str(info).partition(";")[0]
            elif kind not in _SILENT:
                self._take(kind, str(info))
            self.at = max(self.at, int(end))
        return found if cut else [*found, *self._ended(self.at)]

    def _begin(self, named: re.Match[str] | None) -> None:
        if named is None:
            self.lost = True
        else:
            self.open, self._said, self._rows = named[2] or named[3], False, bool(named[1] or named[4])

    def _take(self, kind: str, info: str) -> None:
        if self.open is None:
            self.lost = True
        elif kind == "Query" and not _ROWS_FOLLOW.match(info):
            self._said = True
        else:
            self._rows = True

    def _ended(self, at: int) -> list[Group]:
        gtid, self.open = self.open, None
        return [] if gtid is None else [Group(gtid, self._said and not self._rows, at)]


def gtids_before(events: Sequence[Sequence[Any]]) -> str | None:
    """Of a file's first events: the GTIDs that stand in the files before it. None where the file does not say."""
    for _, _, kind, _, _, info in events:
        if kind in _BEFORE and (found := _BEFORE[kind].fullmatch(str(info))):
            return "".join(found[1].split())
    return None
