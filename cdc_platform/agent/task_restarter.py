"""Restarts this worker's tasks whose leader moved: throttled, and again until it worked."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Protocol

from cdc_platform.connectors.leader_files import LeaderFile
from cdc_platform.errors import CdcError, NotFound
from cdc_platform.failover.repointing import LeaderMove, next_steps, retry_after
from cdc_platform.model.observed import ObservedTask

log = logging.getLogger(__name__)

# How often the status is read while a move waits for a task to turn up.
_POLL_SECONDS = 2.0


class Worker(Protocol):
    """What the agent asks of its own Connect worker. Raises CdcError."""

    def tasks(self) -> Mapping[str, tuple[ObservedTask, ...]]:
        """The tasks of each connector."""

    def restart_task(self, name: str, task: int) -> None:
        """Restart one task. Raises NotFound when it is gone."""


class Restarter:
    """Moves in, restarts out; a thread of its own, so that new moves are taken in all the while.

    Args:
        worker: its REST API.
        worker_id: its id in Connect (host:port); other workers' tasks are left to their agents.
        parallel: restarts at one time. Connect does them one after another.
        settled: told of each move that is done, from the restarter's thread.
        restarted: told of each shard whose tasks were restarted, from any thread.
    """

    def __init__(
        self,
        worker: Worker,
        worker_id: str,
        *,
        parallel: int,
        settled: Callable[[Mapping[str, LeaderFile]], None],
        restarted: Callable[[str], None] | None = None,
    ) -> None:
        self._worker = worker
        self._worker_id = worker_id
        self._settled = settled
        self._restarted = restarted
        self._moves: dict[str, LeaderMove] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(max_workers=parallel, thread_name_prefix="restart")
        self._thread = threading.Thread(target=self._run, name="restarter", daemon=True)
        self.problem: str | None = None

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; what is not settled stays in the journal as it was."""
        self._stop.set()
        self._wake.set()
        self._thread.join(10)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def add(self, moves: Mapping[str, LeaderFile]) -> None:
        """Leaders that moved and whose files are written. A newer move of a shard replaces the older."""
        now = time.monotonic()
        with self._lock:
            for name, leader in moves.items():
                known = self._moves.get(name)
                if known is None or known.leader != leader:
                    self._moves[name] = LeaderMove(leader=leader, written_at=now)
        self._wake.set()

    def waiting(self) -> dict[str, LeaderFile]:
        """Moves that are not settled yet, by shard name."""
        with self._lock:
            return {name: move.leader for name, move in self._moves.items()}

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            self._wake.clear()
            with self._lock:
                moves = dict(self._moves)
            if not moves:
                self._wake.wait()
                continue
            try:
                tasks = self._worker.tasks()
                failures, self.problem = 0, None
            except CdcError as error:
                failures += 1
                self.problem = str(error)
                log.warning("%d moved leaders wait: %s", len(moves), error)
                self._wake.wait(retry_after(failures, random.random()))
                continue
            steps = next_steps(moves, tasks, self._worker_id, time.monotonic())
            by_name: dict[str, list[int]] = {}
            for name, task in steps.restart:
                by_name.setdefault(name, []).append(task)
            if by_name:
                log.info("%d tasks restart with their new leader", len(steps.restart))
            orders = [(name, numbers, moves[name]) for name, numbers in by_name.items()]
            done = (
                [name for name in self._pool.map(self._restart, *zip(*orders, strict=True)) if name] if orders else []
            )
            self._settle([*steps.settled, *done], moves)
            self._wake.wait(self._pause())

    def _restart(self, name: str, tasks: list[int], move: LeaderMove) -> str | None:
        """The name when all its tasks were restarted."""
        try:
            for task in tasks:
                if self._stop.is_set():
                    return None
                begun = time.monotonic()
                self._worker.restart_task(name, task)
                log.info(
                    "%s-%d restarted with leader %s, generation %d, %.2f s after its file was written (call %.2f s)",
                    name, task, move.leader.leader, move.leader.generation,
                    time.monotonic() - move.written_at, time.monotonic() - begun,
                )  # fmt: skip
        except NotFound:
            return name  # deleted or reconfigured meanwhile: what starts from now on reads the new file
        except CdcError as error:
            tries = move.tries + 1
            pause = retry_after(tries, random.random())
            log.warning("%s was not restarted, again in %.1f s: %s", name, pause, error)
            with self._lock:
                if self._moves.get(name) == move:
                    self._moves[name] = replace(move, tries=tries, not_before=time.monotonic() + pause)
            return None
        if self._restarted is not None:
            self._restarted(name)
        return name

    def _settle(self, names: list[str], moves: Mapping[str, LeaderMove]) -> None:
        settled = {name: moves[name].leader for name in names}
        if settled:
            # First told, then forgotten: whoever adds a move in between adds a known one.
            self._settled(settled)
        with self._lock:
            for name, leader in settled.items():
                # A newer move may have come in meanwhile: that one is not done.
                if name in self._moves and self._moves[name].leader == leader:
                    del self._moves[name]

    def _pause(self) -> float:
        now = time.monotonic()
        with self._lock:
            waits = [max(0.05, move.not_before - now) for move in self._moves.values() if move.not_before > now]
        return min([_POLL_SECONDS, *waits])
