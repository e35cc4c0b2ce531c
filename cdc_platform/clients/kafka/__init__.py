"""Kafka: admin calls, the platform's own topics, records in bulk."""
