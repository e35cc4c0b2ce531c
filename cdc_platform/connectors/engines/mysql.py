"""Debezium's connector for MySQL."""

from __future__ import annotations

from cdc_platform.connectors.engines import binlog, ddl_filter
from cdc_platform.connectors.engines.engine_facts import EngineFacts
from cdc_platform.connectors.wire_format import Fixed
from cdc_platform.model.topology import Dataset, Engine


def _dataset_options(dataset: Dataset) -> dict[str, str]:
    return {
        **binlog.dataset_options(dataset),
        ddl_filter.OPTION: ddl_filter.MYSQL,
        # An initial snapshot lists the tables before it reads its position. From MySQL 8.0 on the list is a table of
        # InnoDB, and opens the view in which REPEATABLE READ reads all rows: what is written between view and
        # position would never come (docs/decisions/0044).
        "driver.sessionVariables": "transaction_isolation='READ-COMMITTED'",
    }


FACTS = EngineFacts(
    engine=Engine.MYSQL,
    connector_class="io.debezium.connector.mysql.MySqlConnector",
    plugin="io.debezium:debezium-connector-mysql",
    version="3.6.1.Final",
    wire_format=(
        *binlog.WIRE_FORMAT,
        Fixed(
            "driver.customCharsetMapping",
            "utf8mb4:UTF-8",
            "On a Java runtime without the module jdk.charsets the driver otherwise takes eucjpms for UTF-8, and "
            "damages the text of snapshots.",
        ),
        Fixed("driver.detectCustomCollations", "true", "driver.customCharsetMapping has no effect without it."),
    ),
    dataset_options=_dataset_options,
    shard_options=binlog.shard_options,
    leftovers=binlog.leftovers,
    idle_gap=binlog.idle_gap,
    # Positions are GTID sets: without them a new leader cannot be compared with the old one. With PARTIAL_JSON the
    # binlog holds what was changed in a document, and not the document.
    server_variables={**binlog.SERVER_VARIABLES, "gtid_mode": "ON", "binlog_row_value_options": ""},
)
