"""Bootstrap and backfill."""
