"""Connectors that others made: watched, and what a proof of them lacks."""
