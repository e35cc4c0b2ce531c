"""Waiting for what takes a real system a moment: never by a sleep alone, always to a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Generous: a deadline costs only where a test fails.
DEADLINE = 240.0


def assert_eventually(
    holds: Callable[[], T | None],
    what: str,
    seconds: float = DEADLINE,
    *,
    pause: float = 0.05,
    meanwhile: Callable[[], object] = lambda: None,
) -> T:
    """The first true value of `holds()`; an AssertionError that says `what` did not come once the seconds are over.

    Args:
        pause: seconds between two questions.
        meanwhile: called before each further question; raises where there is nothing to wait for any more.
    """
    end = time.monotonic() + seconds
    while not (found := holds()):
        meanwhile()
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
        time.sleep(pause)
    return found


def seconds_until(holds: Callable[[], object], what: str, seconds: float = DEADLINE, *, pause: float = 0.05) -> float:
    """How long it took until it held; see `assert_eventually`."""
    began = time.monotonic()
    assert_eventually(holds, what, seconds, pause=pause)
    return time.monotonic() - began
