"""Debezium's connector for MySQL (3.6.1.Final)."""

CONNECTOR_CLASS = "io.debezium.connector.mysql.MySqlConnector"
