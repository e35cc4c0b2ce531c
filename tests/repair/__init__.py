"""Repair: found, re-emitted, proven."""
