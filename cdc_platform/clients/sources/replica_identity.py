"""May a Postgres table be published? Only when its UPDATE and DELETE go on working and keep their rows' keys.

Once a table is in a publication, Postgres refuses its application each UPDATE and DELETE that the
replica identity cannot describe. So tables are judged by the catalog, before a publication exists.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cdc_platform.canonical.catalog import UniqueIndex
from cdc_platform.canonical.hash_sql import quote_name
from cdc_platform.clients.sources.catalog_postgres import UNIQUE_INDEXES, unique_indexes
from cdc_platform.model.topology import Engine

# The tables of these names (schemas, names) and all that inherit from them or are their partitions, one row each.
FACTS = f"""
WITH RECURSIVE named AS (
    SELECT c.oid AS root, c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE (n.nspname, c.relname) IN (SELECT * FROM unnest(%s::text[], %s::text[]))
    UNION
    SELECT named.root, i.inhrelid FROM pg_inherits i JOIN named ON i.inhparent = named.oid)
SELECT named.root::bigint, named.oid::bigint, n.nspname::text, c.relname::text, c.relkind::text,
       c.relpersistence::text, c.relreplident::text,
       {UNIQUE_INDEXES}
  FROM named JOIN pg_class c ON c.oid = named.oid JOIN pg_namespace n ON n.oid = c.relnamespace
 ORDER BY n.nspname, c.relname
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFacts:
    """A table as the catalog has it; letters as in `pg_class`.

    `identity` is d (primary key), n (nothing), f (whole row) or i (an index); `descendants` are
    partitions or inheriting tables, of all levels.
    """

    schema: str
    name: str
    kind: str = "r"
    persistence: str = "p"
    identity: str = "d"
    indexes: tuple[UniqueIndex, ...] = ()
    descendants: tuple[TableFacts, ...] = ()

    @property
    def pair(self) -> tuple[str, str]:
        """Schema and name."""
        return self.schema, self.name

    @property
    def sql(self) -> str:
        """Its name as a statement spells it."""
        return quoted(self.schema, self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A table that must not be published: which, why, and the statements that cure it."""

    table: str
    why: str
    cure: str


def quoted(*names: str) -> str:
    """A qualified name, each part in quotes."""
    return ".".join(quote_name(Engine.POSTGRES, name) for name in names)


def facts(rows: Iterable[Sequence[Any]]) -> tuple[TableFacts, ...]:
    """The named tables of the rows of `FACTS`, each with its descendants."""
    listed = list(rows)
    below: dict[int, list[TableFacts]] = {}
    for root, oid, *row in listed:
        if root != oid:
            below.setdefault(root, []).append(_table(row))
    return tuple(_table(row, tuple(below.get(root, ()))) for root, oid, *row in listed if root == oid)


def refusal(
    table: TableFacts,
    key: Sequence[str] = (),
    *,
    via_root: bool = False,
    beside: Collection[tuple[str, str]] | None = None,
) -> Refusal | None:
    """Why the table must not be published; None when it may.

    Args:
        key: the columns that the topology names as its key; none for the primary key.
        via_root: whether the publication sends changes of partitions as their root's.
        beside: schema and name of all tables that are to be published, when listing a table publishes those
            that inherit from it, too; None when it does not.
    """
    if table.persistence != "p":
        return Refusal(
            table=".".join(table.pair),
            why="it is not logged: no publication may hold it",
            cure=f"ALTER TABLE {table.sql} SET LOGGED",
        )
    if table.kind == "p":
        return _of_partitioned(table, key, via_root=via_root)
    if beside is not None and (strange := [child for child in table.descendants if child.pair not in beside]):
        return Refusal(
            table=".".join(table.pair),
            why=f"{'.'.join(strange[0].pair)} inherits from it and would be published with it",
            cure="Make the publication by hand, FOR TABLE ONLY, and set publication.autocreate.mode: disabled",
        )
    return _of_identity(table, key, table.identity)


def _of_partitioned(table: TableFacts, key: Sequence[str], *, via_root: bool) -> Refusal | None:
    if not via_root:
        return Refusal(
            table=".".join(table.pair),
            why="it is partitioned: without publish.via.partition.root its partitions would be published, not itself",
            cure='Set publish.via.partition.root: "true" in the dataset\'s connector, in a publication that exists'
            " by ALTER PUBLICATION ... SET (publish_via_partition_root = true)",
        )
    # A new partition has the root's primary key, and never its REPLICA IDENTITY.
    own = _of_identity(table, key, "d")
    if own is not None:
        return Refusal(
            table=own.table,
            why=f"{own.why}; a new partition takes over nothing but the primary key",
            cure=f"Give {table.sql} a primary key that is not deferrable, and name no other key in the topology",
        )
    partitions = (child for child in table.descendants if child.kind == "r")
    return next((no for child in partitions if (no := _of_identity(child, key, child.identity))), None)


def _of_identity(table: TableFacts, key: Sequence[str], identity: str) -> Refusal | None:
    if identity == "f":
        return None
    primary = next((index for index in table.indexes if index.primary), None)
    chosen = next((index for index in table.indexes if index.identity), None)
    sent = tuple(key) or (primary.columns if primary else ())
    index = {"d": primary, "i": chosen}.get(identity)
    if index is None or not index.immediate:
        why = f"{_lacks(identity, primary)}: the application's UPDATE and DELETE would fail"
    elif sent and set(sent) != set(index.columns):
        why = (
            f"its key ({', '.join(sent)}) is not its replica identity ({', '.join(index.columns)}):"
            " a DELETE would be sent under another row's key"
        )
    else:
        return None
    alter = f"ALTER TABLE {table.sql} REPLICA IDENTITY"
    usable = [
        index
        for index in table.indexes
        if index.immediate and index.total and index.not_null and set(index.columns) == set(sent or index.columns)
    ]
    named = f", or {alter} USING INDEX {quoted(usable[0].name)}" if usable else ""
    return Refusal(table=".".join(table.pair), why=why, cure=f"{alter} FULL{named}")


def _lacks(identity: str, primary: UniqueIndex | None) -> str:
    if identity == "n":
        return "its REPLICA IDENTITY is NOTHING"
    if identity == "i":
        return "the index of its REPLICA IDENTITY is gone"
    return "its primary key is deferrable, and so no replica identity" if primary else "it has no primary key"


def _table(row: Sequence[Any], descendants: tuple[TableFacts, ...] = ()) -> TableFacts:
    schema, name, kind, persistence, identity, indexes = row
    return TableFacts(
        schema=schema,
        name=name,
        kind=kind,
        persistence=persistence,
        identity=identity,
        indexes=unique_indexes(indexes),
        descendants=descendants,
    )
