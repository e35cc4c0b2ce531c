"""Everything of Dagster, thin."""
