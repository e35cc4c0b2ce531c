"""Fixtures of the field cases that stand in no other room."""

from tests.verification.conftest import make_harness

__all__ = ["make_harness"]
