"""Beside each Connect worker: keeps the leader files. No Dagster here."""
