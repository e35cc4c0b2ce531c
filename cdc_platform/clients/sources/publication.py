"""A shard's publication: which of the dataset's tables it may hold, and that it holds just those."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from cdc_platform.clients.sources.replica_identity import FACTS, Refusal, TableFacts, facts, quoted, refusal
from cdc_platform.connectors.tables import DEFAULT_SCHEMA
from cdc_platform.errors import SourceRejected
from cdc_platform.model.topology import Dataset, Shard

Pair = tuple[str, str]

_PUBLICATION = "SELECT puballtables, pubviaroot, pubupdate OR pubdelete FROM pg_publication WHERE pubname = %s"
# Does it withhold a kind of statement, or rows or columns of one of its tables (Postgres 15)?
_NARROW = """
SELECT NOT (pubinsert AND pubupdate AND pubdelete),
       EXISTS (SELECT 1 FROM pg_publication_rel r WHERE r.prpubid = p.oid
                  AND (to_jsonb(r) ->> 'prqual' <> '' OR to_jsonb(r) ->> 'prattrs' <> ''))
  FROM pg_publication p WHERE pubname = %s
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a shard's publication is to be.

    `tables` are schema and name with the key that the topology names (none: the primary key). `ours`: the
    connector makes and alters it, else an operator does. `via_root`: what one that is not there yet would be.
    """

    publication: str
    shard: str
    tables: Mapping[Pair, tuple[str, ...]]
    ours: bool
    via_root: bool


def demand(dataset: Dataset, shard: Shard, publication: str) -> Demand:
    """The shard's, by its dataset's tables and connector options."""
    options = {**dataset.connector, **shard.connector}
    ours = options.get("publication.autocreate.mode", "filtered") == "filtered"
    return Demand(
        publication=publication,
        shard=shard.name,
        tables={(table.schema or DEFAULT_SCHEMA, table.name): table.key for table in shard.captured(dataset)},
        ours=ours,
        # Of one that an operator is still to make nothing is known.
        via_root=not ours or options.get("publish.via.partition.root", "false").strip().lower() == "true",
    )


def refusals(cursor: psycopg.Cursor[Any], demand: Demand) -> dict[Pair, Refusal]:
    """Each table that must not be published, with why, and its cure."""
    cursor.execute(_PUBLICATION, (demand.publication,))
    row = cursor.fetchone()
    via_root, changes = (demand.via_root, True) if row is None else (bool(row[1]), bool(row[2]))
    if not demand.ours and not changes:
        return {}  # inserts alone need no identity
    return {
        table.pair: no
        for table in _facts(cursor, demand)
        if (no := refusal(table, demand.tables[table.pair], via_root=via_root, beside=_beside(demand)))
    }


def check(cursor: psycopg.Cursor[Any], demand: Demand) -> None:
    """Raises SourceRejected with each table that must not be published, why, and its cure."""
    found = refusals(cursor, demand).values()
    if found:
        raise SourceRejected(
            "; ".join(f"{no.table} cannot be captured: {no.why}" for no in found) + ".",
            where=f"shard {demand.shard}",
            cure="; ".join(no.cure for no in found) + ". Or take it out of the dataset's tables.",
        )


def publish(cursor: psycopg.Cursor[Any], demand: Demand) -> None:
    """Make a publication that is there hold just the tables that are there, and all of them; see `SourceLogs.publish`.

    Raises SourceRejected as `check` does, or when one that an operator keeps lacks a table.
    """
    check(cursor, demand)
    cursor.execute(_PUBLICATION, (demand.publication,))
    row = cursor.fetchone()
    if row is None or row[0]:
        return
    wanted = {table.pair for table in _facts(cursor, demand)}
    cursor.execute("SELECT schemaname, tablename FROM pg_publication_tables WHERE pubname = %s", (demand.publication,))
    published = {(str(schema), str(table)) for schema, table in cursor.fetchall()}
    missing = wanted - published
    if not demand.ours and missing:
        listed = ", ".join(quoted(*pair) for pair in sorted(missing))
        raise SourceRejected(
            f"publication {demand.publication} lacks {'.'.join(min(missing))}: its changes would never come.",
            where=f"shard {demand.shard}",
            cure=f"ALTER PUBLICATION {quoted(demand.publication)} ADD TABLE {listed}",
        )
    if not demand.ours or not wanted:
        return
    cursor.execute(_NARROW, (demand.publication,))
    ((withholds, filters),) = cursor.fetchall()
    if withholds:
        everything = "ALTER PUBLICATION {} SET (publish = 'insert, update, delete, truncate')"
        cursor.execute(sql.SQL(everything).format(sql.Identifier(demand.publication)))
    if wanted == published and not filters:
        return
    names = sql.SQL(", ").join(sql.Identifier(*pair) for pair in sorted(wanted))
    cursor.execute(sql.SQL("ALTER PUBLICATION {} SET TABLE {}").format(sql.Identifier(demand.publication), names))


def _beside(demand: Demand) -> Collection[Pair] | None:
    return demand.tables.keys() if demand.ours else None


def _facts(cursor: psycopg.Cursor[Any], demand: Demand) -> list[TableFacts]:
    cursor.execute(FACTS, _names(demand))
    return [table for table in facts(cursor.fetchall()) if table.kind in "rp"]


def _names(demand: Demand) -> Sequence[list[str]]:
    return [schema for schema, _ in demand.tables], [name for _, name in demand.tables]
