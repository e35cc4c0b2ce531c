"""What stands in a server's binlog behind what a connector committed: bounded reads, a page at a time."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from cdc_platform.clients.sources.binlog_events import GroupReader, gtids_before
from cdc_platform.errors import CdcError
from cdc_platform.model.positions import Committed, MariaDbPosition, MySqlPosition, Position
from cdc_platform.model.topology import Engine

# Rows of SHOW BINLOG EVENTS, from a place in a file on, at most so many. Raises CdcError.
Ask = Callable[[str, int, int], Sequence[Sequence[Any]]]


class LogPosition(Position, Protocol):
    """A position that goes on with the transactions of these GTIDs."""

    def followed_by(self, groups: Sequence[str]) -> LogPosition:
        """As `MariaDbPosition` and `MySqlPosition` have it."""


# Events of a page: MariaDB holds up those who commit while it reads one.
PAGE = 200
# Pages that are read when asked once. A longer way goes on when asked again.
PAGES = 20
# Files before the one that a connector has got to: a server that rotates by the clock has many that are empty.
FILES = 10

_FIRST = 4
_HEADER = 3
_NAME = re.compile(r"(.*\.)(\d+)")


class BinlogTail:
    """The binlog of one server, and how far it was looked through."""

    def __init__(self, engine: Engine, ask: Ask) -> None:
        self._ask = ask
        self._parse: Callable[[str], LogPosition] = (
            MySqlPosition.parse if engine is Engine.MYSQL else MariaDbPosition.parse
        )
        self._file, self._reader, self._found = "", GroupReader(_FIRST), list[str]()

    def beyond(self, committed: Committed, now: Callable[[], Position]) -> str | None:
        """The committed position, and with it the statements without rows that follow; `now` is the server's.

        Should it be another server's file of that name, what is found holds as well. On MySQL a transaction without
        rows has none anywhere; on MariaDB what does not follow the position is left out. Where nothing can be read
        (the file is gone, or the user may not), nothing more is known.
        """
        if committed.position is None or not committed.file:
            return committed.position
        before = self._parse(committed.position)
        try:
            if not self._file:
                # Mostly there is little behind the place that was committed.
                self._file, self._reader = committed.file, GroupReader(committed.place)
                behind = self._walk(before, 1)
                reached = before.followed_by(self._found)
                if behind or reached.covers(now()):
                    self._file, self._found = "", []
                    return str(reached)
                # It tells only where the task began to read, or stands in a group's middle.
                self._file, self._reader, self._found = self._begin(before, committed.file), GroupReader(_FIRST), []
            self._walk(before, PAGES)
        except CdcError:
            self._file, self._found = "", []
            return committed.position
        return str(before.followed_by(self._found))

    def _walk(self, before: LogPosition, pages: int) -> bool:
        """Go on through so many pages, or up to the end; True at rows that are not committed."""
        whole = self._reader.at
        for _ in range(pages):
            events = self._ask(self._file, self._reader.at, PAGE)
            cut = len(events) == PAGE
            for group in self._reader.read(events, cut=cut):
                if not before.covers(self._parse(group.gtid)):
                    if not group.rowless:
                        self._reader = GroupReader(whole)
                        return True
                    self._found.append(group.gtid)
                whole = group.end
            if self._reader.over:
                self._file, self._reader = self._reader.next_file or _neighbour(self._file, 1), GroupReader(_FIRST)
                whole = _FIRST
            elif self._reader.lost or not cut:
                self._reader = GroupReader(whole)
                break
        return False

    def _begin(self, before: LogPosition, file: str) -> str:
        """The file to begin with: what stands in those before it is committed."""
        for _ in range(FILES):
            before_it = gtids_before(self._ask(file, _FIRST, _HEADER))
            if before_it is None or before.covers(self._parse(before_it)):
                break
            file = _neighbour(file, -1)
        return file


def _neighbour(file: str, step: int) -> str:
    """The name of the next file, or the one before: numbers grow by one."""
    named = _NAME.fullmatch(file)
    return f"{named[1]}{int(named[2]) + step:0{len(named[2])}d}" if named else ""
