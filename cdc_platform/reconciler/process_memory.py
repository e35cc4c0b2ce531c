"""Memory while a picture of thousands of connectors is built."""

from __future__ import annotations

import ctypes
import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

# glibc's malloc.h.
_M_MMAP_THRESHOLD = -3

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


@cache
def give_back_large_blocks() -> None:
    """Let the C library return freed blocks above 256 KB to the system at once, where it is glibc.

    Each answer of a Connect cluster is some 10 MB, in a thread of its own. glibc
    raises its threshold for such blocks with the first one that is freed, and from
    then on leaves them as holes in the heap of each thread: five passes over 10,000
    shards grew from 350 to 700 MB, with a fixed threshold from 310 to 380 (mallopt(3)).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return  # another C library
    mallopt(_M_MMAP_THRESHOLD, 256 * 1024)
