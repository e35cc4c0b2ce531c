"""The proof's datasets on the real stack."""

from tests.verification.conftest import make_harness

__all__ = ["make_harness"]
