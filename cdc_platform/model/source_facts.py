"""What a shard's source says of its log and of the captured tables. Values, the same for all engines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cdc_platform.model.topology import EMPTY


@dataclass(frozen=True, slots=True)
class LogFile:
    """A binlog that is kept: its name, and the position of the server where it begins (empty: it has no GTIDs)."""

    name: str
    position: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RetainedLog:
    """The part of a source's log that is kept.

    Postgres: by the shard's slot; `left` is how many bytes more it may keep (None: no bound is set), `state` its
    `wal_status`, `unread` how many of the bytes its connector has not confirmed. MariaDB and MySQL: all binlogs; `left`
    is what they may hold together, `seconds` the age at which they are purged (None: no bound), `begins` where the
    oldest of them begin, in order. `written` grows by each byte of log that the server writes.
    """

    bytes: int
    written: int
    left: int | None = None
    seconds: float | None = None
    state: str = ""
    unread: int | None = None
    begins: tuple[LogFile, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfit:
    """Why a table cannot be captured, and what would make it fit."""

    why: str
    cure: str

    def __str__(self) -> str:
        return f"{self.why}. {self.cure}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceTable:
    """A captured table as the catalog has it.

    `number` changes when another table takes the name (Postgres: its oid; the others do not tell). `published`: its
    changes are sent to the connector; `withheld` is what of them is not (Postgres: rows or columns by a filter, or some
    kinds of statements). `columns` are names and types in order (MariaDB, MySQL). `cascades` are foreign keys whose
    actions change this table below the log, `unreadable` is what in its definition stops the connector. `unfit`: its
    changes could be read, but its rows would go under wrong keys, or its application's statements would fail.
    """

    number: int = 0
    published: bool = True
    withheld: str = ""
    columns: tuple[tuple[str, str], ...] = ()
    cascades: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    unfit: Unfit | None = None

    @property
    def refusal(self) -> Unfit | None:
        """Why its capture must not begin."""
        if self.unreadable:
            return Unfit(why="; ".join(self.unreadable), cure="Change its definition")
        return self.unfit


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFacts:
    """What one shard's leader said.

    `tables` are those of the dataset that are there, by name. `publication`: there is one (Postgres); `slotless`: the
    leader has no slot of the connector's name (Postgres). `settings` are
    the server's variables that decide what is logged, those that are not as they must be: name to value. `twins` are
    tables that differ from a captured one in case only. `unpublishable` says why a pass cannot add a table that the
    publication lacks. `agreed` are tables whose definition is the one that the connector knows, with a fingerprint and
    the offset in its schema history; `unlogged` are those that differ from it, and how (MariaDB, MySQL). `place` names
    server and database by what the server says of itself, the same by whichever address it is reached.
    """

    tables: Mapping[str, SourceTable]
    publication: bool = True
    slotless: bool = False
    unpublishable: str = ""
    settings: Mapping[str, str] = EMPTY
    twins: tuple[str, ...] = ()
    log: RetainedLog | None = None
    agreed: Mapping[str, tuple[int, int]] = EMPTY
    unlogged: Mapping[str, str] = EMPTY
    place: str = ""
