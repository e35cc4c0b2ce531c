"""Which server of a shard is read for the proof, and as whom."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from cdc_platform.clients.secrets import resolve_credentials
from cdc_platform.clients.sources.mariadb import MariaDbSource
from cdc_platform.clients.sources.postgres import PostgresSource
from cdc_platform.clients.sources.source import Source
from cdc_platform.clients.sources.source_rules import ANY, SourceRules
from cdc_platform.connectors.column_lists import captured_columns
from cdc_platform.connectors.tables import container
from cdc_platform.model.topology import Address, Dataset, Engine, Shard, Table


def address_of(dataset: Dataset, shard: Shard, *, replicas: bool) -> Address:
    """The server that is read: the leader, or on request the first replica.

    Never a standby of Postgres: its snapshots do not list running transactions.
    """
    if replicas and shard.replicas and dataset.engine is not Engine.POSTGRES:
        return shard.replicas[0]
    return shard.leader


def open_source(
    dataset: Dataset,
    shard: Shard,
    table: Table,
    *,
    timeout: float,
    replicas: bool = False,
    ignored: Collection[str] = (),
    secrets_dirs: Sequence[str] = (),
    rules: SourceRules = ANY,
) -> Source:
    """A reader of one table on one server. Nothing is connected yet. Raises SecretUnresolved, LoginRefused."""
    address = address_of(dataset, shard, replicas=replicas)
    rules.check(address)
    user, password = resolve_credentials(dataset, secrets_dirs)
    captured = captured_columns(dataset, shard, table, ignored)
    if dataset.engine is Engine.POSTGRES:
        return PostgresSource(
            address,
            user=user,
            password=password,
            database=shard.database,
            schema=container(dataset, shard, table),
            table=table.name,
            key=table.key,
            captured=captured,
            timeout=timeout,
            rules=rules,
        )
    return MariaDbSource(
        address,
        user=user,
        password=password,
        database=shard.database,
        table=table.name,
        key=table.key,
        captured=captured,
        engine=dataset.engine,
        timeout=timeout,
        rules=rules,
    )
