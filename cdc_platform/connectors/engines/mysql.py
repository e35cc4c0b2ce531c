"""Debezium's connector for MySQL (3.6.1.Final): covered by golden files, untried against a server."""

CONNECTOR_CLASS = "io.debezium.connector.mysql.MySqlConnector"
