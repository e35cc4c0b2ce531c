"""Debezium's connector for MariaDB (3.5.0.Final), tried against MariaDB 11.4."""

CONNECTOR_CLASS = "io.debezium.connector.mariadb.MariaDbConnector"
