"""A bound on the time that one step of a tick or of a load may take."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from cdc_platform.errors import Unavailable

T = TypeVar("T")


def within(seconds: float, call: Callable[[], T], *, what: str) -> T:
    """The call's result, or Unavailable after `seconds`.

    Dagster kills a code server's answer after 60 s without saying why; this says it. A
    call that came too late goes on in its thread until its own deadlines end it, and
    what it finds is thrown away: so only for calls that change nothing.
    """
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="within")
    try:
        return pool.submit(call).result(timeout=seconds)
    except TimeoutError:
        raise Unavailable(
            f"{what} took longer than {seconds:.0f} s.",
            cure="`cdc-platform status` shows which outside system is slow.",
        ) from None
    finally:
        pool.shutdown(wait=False)
