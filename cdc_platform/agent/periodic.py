"""A background thread that does one step again and again, with a pool for what a step does side by side."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from concurrent.futures import CancelledError, ThreadPoolExecutor

_STOP_SECONDS = 10.0


class Periodic(ABC):
    """Base of the agent's background loops.

    Args:
        name: of the threads.
        parallel: threads of `pool`.
    """

    def __init__(self, name: str, *, parallel: int) -> None:
        self.lock = threading.Lock()
        self.pool = ThreadPoolExecutor(max_workers=parallel, thread_name_prefix=name)
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @abstractmethod
    def step(self) -> float | None:
        """Do what is due; returns seconds until the next step, None: when woken."""

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End: waits for the step under way, for some seconds at most."""
        self._stop.set()
        self._wake.set()
        self._thread.join(_STOP_SECONDS)
        self.pool.shutdown(wait=False, cancel_futures=True)

    @property
    def stopping(self) -> bool:
        """True once `stop` was called."""
        return self._stop.is_set()

    def wake(self) -> None:
        """Have the next step begin at once. From any thread."""
        self._wake.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            try:
                pause = self.step()
            except CancelledError:
                return  # `stop` gave up what still waited for the pool
            self._wake.wait(pause)
