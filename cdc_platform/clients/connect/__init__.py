"""Kafka Connect's REST API, and the metrics of its workers."""
