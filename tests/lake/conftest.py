"""The proof's datasets on the real stack, for tests of what readers see."""

from tests.verification.conftest import make_harness

__all__ = ["make_harness"]
