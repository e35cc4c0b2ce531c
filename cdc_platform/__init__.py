"""Change data capture for sharded databases, as a Dagster integration."""
