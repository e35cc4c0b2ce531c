"""Duplicates: found, counted, blamed."""
