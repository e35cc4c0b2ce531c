"""A table as its server's catalog has it: the one description that doctor, lineage and the proof go by."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from cdc_platform.canonical.columns import Column


class TableKind(StrEnum):
    """What a name in the catalog stands for."""

    TABLE = "table"
    PARTITIONED = "partitioned table"
    VERSIONED = "system-versioned table"
    VIEW = "view"
    MATERIALIZED = "materialized view"
    FOREIGN = "foreign table"
    SEQUENCE = "sequence"
    OTHER = "other"


class Generated(StrEnum):
    """How a column's value comes about."""

    NO = ""
    STORED = "stored"
    VIRTUAL = "virtual"


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogColumn:
    """A column: `column` is what its values are read and compared by.

    `declared` is the type as the server prints it (`varchar(20)`, `numeric(14,2)`), `default` the SQL of its default.
    `hidden`: `SELECT *` leaves it out. `collation` is empty where there is none.
    """

    column: Column
    declared: str
    collation: str = ""
    default: str | None = None
    generated: Generated = Generated.NO
    hidden: bool = False
    comment: str = ""

    @property
    def name(self) -> str:
        """Its name."""
        return self.column.name


@dataclass(frozen=True, slots=True, kw_only=True)
class UniqueIndex:
    """A valid unique index: `immediate` when not deferrable, `total` without WHERE, expressions and prefixes.

    `identity`: the table's REPLICA IDENTITY names it. `hashed`: MariaDB keeps it by a hidden column.
    """

    name: str
    columns: tuple[str, ...]
    primary: bool = False
    identity: bool = False
    immediate: bool = True
    total: bool = True
    not_null: bool = True
    hashed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignKey:
    """A foreign key of the table. `acts` are its rules that change this table's rows, as `ON DELETE CASCADE`."""

    name: str
    references: str
    acts: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogTable:
    """A table. `place` is its database (MariaDB, MySQL) or schema (Postgres).

    `rows` is the server's estimate. `storage` is its engine (MariaDB, MySQL). `logged`: its changes reach the log.
    `identity` is the letter of its REPLICA IDENTITY (Postgres), `row_security`: rows are hidden by policies from users
    who neither own the table nor may bypass them. `triggers` are those that the user may see. `periods` are those of
    application time (MariaDB).
    """

    place: str
    name: str
    kind: TableKind = TableKind.TABLE
    columns: tuple[CatalogColumn, ...] = ()
    indexes: tuple[UniqueIndex, ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()
    checks: tuple[str, ...] = ()
    triggers: tuple[str, ...] = ()
    periods: tuple[str, ...] = ()
    comment: str = ""
    rows: int = 0
    storage: str = ""
    logged: bool = True
    identity: str = ""
    row_security: bool = False

    @property
    def primary_key(self) -> tuple[str, ...]:
        """The columns of the primary key; none where there is none."""
        return next((index.columns for index in self.indexes if index.primary), ())

    def key(self, named: tuple[str, ...] = ()) -> tuple[str, ...]:
        """The key of its rows: `named` where a unique index of NOT NULL columns has just those, else the primary key.

        None where there is no such index.
        """
        if not named:
            return self.primary_key
        fit = (index for index in self.indexes if index.total and index.not_null)
        return named if any(set(index.columns) == set(named) for index in fit) else ()

    def column(self, name: str) -> CatalogColumn | None:
        """The column of that name."""
        return next((column for column in self.columns if column.name == name), None)
