"""Memory and the collector of a process that makes millions of objects at once.

What is here changes the whole process, so only entry points call it: commands, ops and sensors.
"""

from __future__ import annotations

import ctypes
import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

# Records of a verification that are read between two collections.
VERIFYING = 100_000

# glibc's malloc.h.
_M_MMAP_THRESHOLD = -3

_lock = threading.Lock()
_callers = 0
_threshold = gc.get_threshold()


@contextmanager
def large_state() -> Iterator[None]:
    """While the observed state of a platform is built: no cyclic collection, and large freed blocks are given back."""
    _give_back_large_blocks()
    with rarer_collections():
        yield


@contextmanager
def rarer_collections(allocations: int = 0) -> Iterator[None]:
    """Run the cyclic collector only after so many new objects (0: not at all), in the whole process.

    The observed state of 10,000 shards is some million objects and no cycle; the collector
    walks all of them again and again while they are made, which was half of the
    CPU time of a pass (benchmarks/reconcile.py). So it is with the records of a verification:
    the collector finds nothing, at a tenth of the cost (benchmarks/verify.py). Reference counts free the rest.
    """
    global _callers, _threshold
    with _lock:
        if _callers == 0:
            _threshold = gc.get_threshold()
        _callers += 1
        gc.set_threshold(allocations, *_threshold[1:])
    try:
        yield
    finally:
        with _lock:
            _callers -= 1
            if _callers == 0:
                gc.set_threshold(*_threshold)


@cache
def _give_back_large_blocks() -> None:
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
