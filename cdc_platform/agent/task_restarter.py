"""Restarts this worker's tasks whose leader moved: throttled, and again until it worked."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol

from cdc_platform.agent.periodic import Periodic
from cdc_platform.connectors.leader_files import LeaderFile
from cdc_platform.errors import CdcError, NotFound
from cdc_platform.failover.repointing import RETRY, LeaderMove, next_steps
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


class Restarter(Periodic):
    """Moves in, restarts out; a thread of its own, so that new moves are taken in all the while.

    Args:
        worker: its REST API.
        worker_id: its id in Connect (host:port); other workers' tasks are left to their agents.
        parallel: restarts at one time. Connect does them one after another.
        settled: called with the moves that are done, from the restarter's thread.
        restarted: called with each shard whose tasks were restarted, from any thread.
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
        super().__init__("restarter", parallel=parallel)
        self._worker = worker
        self._worker_id = worker_id
        self._settled = settled
        self._restarted = restarted
        self._moves: dict[str, LeaderMove] = {}
        self._failures = 0
        self.problem: str | None = None

    def add(self, moves: Mapping[str, LeaderFile]) -> None:
        """Leaders that moved and whose files are written. A newer move of a shard replaces the older."""
        now = time.monotonic()
        with self.lock:
            for name, leader in moves.items():
                known = self._moves.get(name)
                if known is None or known.leader != leader:
                    self._moves[name] = LeaderMove(leader=leader, written_at=now)
        self.wake()

    def waiting(self) -> dict[str, LeaderFile]:
        """Moves that are not settled yet, by shard name."""
        with self.lock:
            return {name: move.leader for name, move in self._moves.items()}

    def step(self) -> float | None:
        """Restart the tasks that may still run with an old leader."""
        with self.lock:
            moves = dict(self._moves)
        if not moves:
            return None
        try:
            tasks = self._worker.tasks()
            self._failures, self.problem = 0, None
        except CdcError as error:
            self._failures += 1
            self.problem = str(error)
            log.warning("%d moved leaders wait: %s", len(moves), error)
            return RETRY.wait(self._failures, random.random())
        steps = next_steps(moves, tasks, self._worker_id, time.monotonic())
        by_name: dict[str, list[int]] = {}
        for name, task in steps.restart:
            by_name.setdefault(name, []).append(task)
        if by_name:
            log.info("%d tasks restart with their new leader", len(steps.restart))
        done = self.pool.map(lambda name: self._restart(name, by_name[name], moves[name]), by_name)
        self._settle([*steps.settled, *filter(None, done)], moves)
        return self._pause()

    def _restart(self, name: str, tasks: list[int], move: LeaderMove) -> str | None:
        """The name when all its tasks were restarted."""
        try:
            for task in tasks:
                if self.stopping:
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
            pause = RETRY.wait(tries, random.random())
            log.warning("%s was not restarted, again in %.1f s: %s", name, pause, error)
            with self.lock:
                if self._moves.get(name) == move:
                    self._moves[name] = replace(move, tries=tries, not_before=time.monotonic() + pause)
            return None
        if self._restarted is not None:
            self._restarted(name)
        return name

    def _settle(self, names: list[str], moves: Mapping[str, LeaderMove]) -> None:
        settled = {name: moves[name].leader for name in names}
        if settled:
            # Reported before they are dropped: a move that is added in between is then a known one.
            self._settled(settled)
        with self.lock:
            for name, leader in settled.items():
                # A newer move may have come in meanwhile: that one is not done.
                if name in self._moves and self._moves[name].leader == leader:
                    del self._moves[name]

    def _pause(self) -> float:
        now = time.monotonic()
        with self.lock:
            waits = [max(0.05, move.not_before - now) for move in self._moves.values() if move.not_before > now]
        return min([_POLL_SECONDS, *waits])
