"""The proof's datasets on the real stack, for tests of what the proof reads."""

from tests.verification.conftest import make_harness

__all__ = ["make_harness"]
