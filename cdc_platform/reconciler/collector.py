"""The garbage collector, at rest while a picture is built."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_resting = 0
_was_on = False


@contextmanager
def at_rest() -> Iterator[None]:
    """No cyclic collection meanwhile.

    A picture of 10,000 shards is some million objects and no cycle; the collector
    walks all of them again and again while they are made, which was half of the
    CPU time of a pass (benchmarks/reconcile.py). Reference counts free the rest.
    """
    global _resting, _was_on
    with _lock:
        if _resting == 0:
            _was_on = gc.isenabled()
            gc.disable()
        _resting += 1
    try:
        yield
    finally:
        with _lock:
            _resting -= 1
            if _resting == 0 and _was_on:
                gc.enable()
