"""Debezium's connector for MariaDB: tried against MariaDB 11.4."""

from __future__ import annotations

from cdc_platform.connectors.engines import binlog, ddl_filter
from cdc_platform.connectors.engines.engine_facts import EngineFacts
from cdc_platform.model.topology import Dataset, Engine


def _dataset_options(dataset: Dataset) -> dict[str, str]:
    return {**binlog.dataset_options(dataset), ddl_filter.OPTION: ddl_filter.MARIADB}


FACTS = EngineFacts(
    engine=Engine.MARIADB,
    connector_class="io.debezium.connector.mariadb.MariaDbConnector",
    plugin="io.debezium:debezium-connector-mariadb",
    version="3.5.0.Final",
    wire_format=binlog.WIRE_FORMAT,
    dataset_options=_dataset_options,
    shard_options=binlog.shard_options,
    leftovers=binlog.leftovers,
    idle_gap=binlog.idle_gap,
    # The connector drops compressed events without a word. MariaDB has the variable since 10.2.3, as it has JSON_QUOTE,
    # without which nothing is proven.
    server_variables={**binlog.SERVER_VARIABLES, "log_bin_compress": "0"},
)
