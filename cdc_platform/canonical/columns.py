"""Columns, and how a value of each becomes canonical."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from cdc_platform.model.fingerprints import fingerprint
from cdc_platform.model.topology import Engine

# Goes up when canonical bytes or a digest of MariaDB or MySQL change: caches of before are begun from scratch.
BINLOG_FORM = 2

# A JSON token as read from the wire, never `null`, to the canonical token.
Normaliser = Callable[[bytes], bytes]


class Fidelity(StrEnum):
    """How much of a value the comparison sees."""

    EXACT = "exact"
    NORMALISED = "normalised"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column as the source describes it.

    `type` is the engine's own name without parameters (`bigint`, `numeric`,
    `_int4` for an array in Postgres). `element` is the type of an array's
    elements, and of a domain its base. `members` are the labels of an ENUM or
    SET as the server lists them. `length` and `scale` are those of the
    type: fraction digits for times, digits after the point for numbers.
    """

    name: str
    type: str
    nullable: bool = True
    unsigned: bool = False
    zerofill: bool = False
    length: int | None = None
    scale: int | None = None
    element: str | None = None
    kind: str = "base"  # base | enum | array | composite | other
    generated: bool = False
    charset: str | None = None
    members: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How one column becomes canonical.

    `sql` maps an SQL expression to one that gives the token as text (NULL for
    NULL). `wire` makes the token from the wire's; None: the wire has it already.
    `triggers` are byte patterns without which the wire's token is canonical
    as it is; empty with a `wire`: it must always be applied. `scalar` is False
    where the wire has an object or an array. `long` is True where the SQL
    may give NULL for a value that is none, because it is longer than what the
    server lets a function return (`max_allowed_packet`).
    """

    sql: Callable[[str], str]
    wire: Normaliser | None = None
    triggers: tuple[bytes, ...] = ()
    scalar: bool = True
    long: bool = False
    fidelity: Fidelity = Fidelity.EXACT
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A table: its columns in order, and those of its key in the key's order.

    `complete_rows` is False where events may lack unchanged values (Postgres,
    TOAST, replica identity other than FULL).
    """

    engine: Engine
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    complete_rows: bool = True

    def column(self, name: str) -> Column:
        """The column of that name. Raises KeyError."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    @property
    def fingerprint(self) -> str:
        """Equal for shapes whose canonical rows are the same."""
        form = f"{BINLOG_FORM} " if self.engine.reads_binlog else ""
        return fingerprint(f"{form}{self!r}")
