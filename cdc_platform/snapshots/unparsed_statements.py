"""Statements that Debezium cannot parse and that change no captured table: a shard passes over them and goes on. Pure.

Nothing is lost by it and no row is read again, unlike a bootstrap: the connector starts at its saved position, and
its filter of statements holds the one statement, exactly.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from cdc_platform.connectors.engines import ddl_filter
from cdc_platform.errors import BadInput
from cdc_platform.model.observed import ObservedState
from cdc_platform.model.topology import Dataset, Shard
from cdc_platform.planning.health.failures import masked, unparsed_statement
from cdc_platform.snapshots.lost_positions import failed_trace


@dataclass(frozen=True, slots=True)
class Skip:
    """A shard as it is to be stored, and the statement that it passes over."""

    shard: Shard
    statement: str


def skips(observed: ObservedState, dataset: Dataset, shards: Iterable[Shard], *, force: bool) -> list[Skip]:
    """One for each of the shards.

    Raises:
        BadInput: a shard has not failed at such a statement, passes over it already, or the statement names a
            captured table and `force` is not given.
    """
    return [_skip(observed, dataset, shard, force=force) for shard in shards]


def stopped_shards(observed: ObservedState, shards: Iterable[Shard]) -> list[Shard]:
    """Those of the shards that stand at a statement that Debezium cannot parse."""
    return [shard for shard in shards if unparsed_statement(failed_trace(observed, shard.name)) is not None]


def _skip(observed: ObservedState, dataset: Dataset, shard: Shard, *, force: bool) -> Skip:
    where = f"shard {shard.name}"
    statement = unparsed_statement(failed_trace(observed, shard.name))
    if statement is None:
        raise BadInput(
            "it has not failed at a statement that Debezium cannot parse.",
            where=where,
            cure="See `cdc-platform status`: if its task was restarted just now, wait until it fails again.",
        )
    named = [table.name for table in dataset.tables if _may_name(statement, shard.database, table.name)]
    if named and not force:
        raise BadInput(
            f"the statement may change the captured table {named[0]}: {masked(statement)}",
            where=where,
            cure=f"If it is of another database, say --force. Else `cdc-platform bootstrap {shard.dataset} {shard.id} "
            "--again` reads the table's definition and its rows again.",
        )
    pattern, before = ddl_filter.exactly(statement), shard.connector.get(ddl_filter.OPTION)
    if before is not None and pattern in before.split(","):
        raise BadInput(
            "it passes over that statement already.",
            where=where,
            cure="`cdc-platform apply` gives the connector its configuration, or the next pass does.",
        )
    connector = {**shard.connector, ddl_filter.OPTION: ddl_filter.with_more(pattern, before)}
    return Skip(replace(shard, connector=connector), statement)


def _may_name(statement: str, database: str, table: str) -> bool:
    """Names the table, without a database or with the shard's own."""
    quote = '[`"]?'
    name = rf"(?:(?P<database>[\w$-]+){quote}\s*\.\s*)?{quote}(?<![\w$]){re.escape(table)}(?![\w$])"
    return any(found["database"] in (None, database) for found in re.finditer(name, statement, re.IGNORECASE))
