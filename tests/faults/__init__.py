"""Faults on the real stack, each ending in a verdict."""
