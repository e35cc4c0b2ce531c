"""The lock of one pass, watched: a pass that lost it stops within a second, whatever it waits for."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from cdc_platform.clients.protocols import ControlLock

T = TypeVar("T")

# How often the lock is checked while something runs. `check` makes no call.
_CHECK_SECONDS = 0.2

# Called with how far something is, a sentence at a time.
Progress = Callable[[str], None]


class LockWatch:
    """Runs the work of a pass under its lock.

    A call that was sent cannot be called back, and may hang for its whole
    deadline; but nothing waits for it, and no other is sent: `run` raises at once,
    and every later `check`, in whatever thread, raises too.
    """

    def __init__(self, lock: ControlLock) -> None:
        self._lock = lock

    @property
    def generation(self) -> int:
        """That of the lock."""
        return self._lock.generation

    def check(self) -> None:
        """Raises LockLost as soon as the lock may be another's. To be called before each change."""
        self._lock.check()

    def sleep(self, seconds: float) -> None:
        """Wait, unless the lock is lost meanwhile. Raises LockLost."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.check()
            time.sleep(min(left, _CHECK_SECONDS))

    def run(self, work: Callable[[Progress], T], progress: Progress = lambda text: None) -> T:
        """`work` in a thread of its own; what it reports is passed to `progress` in this one.

        Raises:
            LockLost: at most a second after the loss. The thread ends at its next `check`.
        """
        reported: queue.SimpleQueue[str] = queue.SimpleQueue()
        outcome: Future[T] = Future()

        def body() -> None:
            try:
                outcome.set_result(work(reported.put))
            except BaseException as error:  # noqa: BLE001 - raised in the calling thread
                outcome.set_exception(error)

        threading.Thread(target=body, name="pass", daemon=True).start()
        while True:
            done, _ = wait([outcome], timeout=_CHECK_SECONDS)
            _drain(reported, progress)
            if done:
                return outcome.result()
            self.check()

    def each(self, calls: Sequence[Callable[[], T]], at_once: int) -> list[T]:
        """The results of all calls, in order; at most `at_once` run at a time.

        Raises what the first failed call raises; LockLost without waiting for those that run.
        """
        if not calls:
            return []
        pool = ThreadPoolExecutor(max_workers=min(at_once, len(calls)), thread_name_prefix="apply")
        try:
            futures = [pool.submit(call) for call in calls]
            self._wait(futures)
            return [future.result() for future in futures]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _wait(self, futures: Iterable[Future[T]]) -> None:
        left = set(futures)
        while left:
            done, left = wait(left, timeout=_CHECK_SECONDS, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
            self.check()


def _drain(reported: queue.SimpleQueue[str], progress: Progress) -> None:
    while not reported.empty():
        progress(reported.get())
