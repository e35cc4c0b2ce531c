"""Reads the captured tables of shards in their servers' catalogs: for the doctor, for lineage, for who reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from cdc_platform.canonical.catalog import CatalogTable
from cdc_platform.clients.sources.catalog_binlog import binlog_tables
from cdc_platform.clients.sources.catalog_postgres import postgres_tables
from cdc_platform.clients.sources.shard_sessions import ShardSessions
from cdc_platform.clients.sources.source_rules import ANY, SourceRules
from cdc_platform.connectors.tables import container
from cdc_platform.model.topology import Dataset, Engine, Shard

# The dataset's tables that are there, by the name that the topology has.
Tables = Mapping[str, CatalogTable]


class Catalog(Protocol):
    """What a shard's leader says of the dataset's tables."""

    def read(self, dataset: Dataset, shard: Shard) -> Tables:
        """Those that are there. Raises SourceUnavailable, SourceRejected, LoginRefused, SecretUnresolved."""


class RealCatalog:
    """Asks the real servers as the dataset's own user: a connection a shard, a handful of short statements.

    Safe to call from many threads.
    """

    def __init__(self, *, timeout: float = 5.0, secrets_dirs: Sequence[str] = (), rules: SourceRules = ANY) -> None:
        self._sessions = ShardSessions(purpose="catalog", timeout=timeout, secrets_dirs=secrets_dirs, rules=rules)

    def read(self, dataset: Dataset, shard: Shard) -> Tables:
        """See `Catalog`."""
        if dataset.engine is not Engine.POSTGRES:
            with self._sessions.binlog(dataset, shard) as cursor:
                return binlog_tables(cursor, shard.database, [table.name for table in dataset.tables])
        with self._sessions.postgres(dataset, shard) as cursor:
            places = {table.name: (container(dataset, shard, table), table.name) for table in dataset.tables}
            found = postgres_tables(cursor, list(places.values()))
            return {name: found[place] for name, place in places.items() if place in found}
