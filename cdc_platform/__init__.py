"""Change data capture for sharded databases, as a Dagster integration."""

# The newest heading of CHANGELOG.md; pyproject.toml reads it from here.
__version__ = "0.1.0"
