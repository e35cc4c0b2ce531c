"""Waiting for what takes a real group a moment."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(holds: Callable[[], bool], *, what: str, seconds: float = 60.0) -> None:
    """Poll until it holds. Raises AssertionError at the deadline."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.05)
