"""Which server of a shard is read for the proof, as whom, and which columns count."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from cdc_platform.clients.secrets import resolve_credentials
from cdc_platform.clients.sources.mariadb import MariaDbSource
from cdc_platform.clients.sources.postgres import PostgresSource
from cdc_platform.clients.sources.source import Captured, Source
from cdc_platform.clients.sources.source_rules import ANY, SourceRules
from cdc_platform.connectors.patterns import CURE, refused_pattern
from cdc_platform.connectors.tables import container
from cdc_platform.errors import OverrideRefused
from cdc_platform.model.topology import Address, Dataset, Engine, Shard, Table

INCLUDE, EXCLUDE = "column.include.list", "column.exclude.list"


def address_of(dataset: Dataset, shard: Shard, *, replicas: bool) -> Address:
    """The server that is read: the leader, or on request the first replica.

    Never a standby of Postgres: its snapshots do not list running transactions.
    """
    if replicas and shard.replicas and dataset.engine is not Engine.POSTGRES:
        return shard.replicas[0]
    return shard.leader


def captured_columns(dataset: Dataset, shard: Shard, table: Table, ignored: Collection[str] = ()) -> Captured:
    """Which columns events carry, by Debezium's column lists, less those that the policy ignores.

    The lists are regular expressions for `<database or schema>.<table>.<column>`,
    matched whole, case ignored (io.debezium.util.Strings.setOfRegex).
    Raises OverrideRefused.
    """
    overrides = {**dataset.connector, **shard.connector}
    for name in (INCLUDE, EXCLUDE):
        if (why := refused_pattern(overrides.get(name, ""))) is not None:
            raise OverrideRefused(f"{why}.", where=f"shard {shard.name}", field=f"connector.{name}", cure=CURE)
    place = f"{container(dataset, shard, table)}.{table.name}"
    lists = {
        name: [re.compile(part.strip(), re.IGNORECASE) for part in overrides[name].split(",") if part.strip()]
        for name in (INCLUDE, EXCLUDE)
        if overrides.get(name)
    }

    def captured(column: str) -> bool:
        name = f"{place}.{column}"
        if column in ignored:
            return False
        if INCLUDE in lists:
            return any(pattern.fullmatch(name) for pattern in lists[INCLUDE])
        return not any(pattern.fullmatch(name) for pattern in lists.get(EXCLUDE, ()))

    return captured


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
