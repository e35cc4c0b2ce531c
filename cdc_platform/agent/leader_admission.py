"""Asks of each moved leader whether it may be followed, and again until it may: only then its file is written.

So every start of a task, also one by a rebalance or by the worker's own restart, finds a leader that passed the gate.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from cdc_platform.agent.leader_gate import UNREACHABLE_SECONDS
from cdc_platform.connectors.leader_files import LeaderFile
from cdc_platform.errors import CdcError, ConnectUnavailable, NotFound
from cdc_platform.failover.promotion import Obstacle
from cdc_platform.failover.repointing import retry_after

log = logging.getLogger(__name__)

# Leaders are asked by so many threads at once: one that hangs holds up one of them.
_ASKING = 32
# A leader that is not fit yet is asked again after this long, more seldom as it takes longer.
_FIRST_LOOK, _LAST_LOOK = 0.5, 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """A leader that is asked about. Times are seconds on the monotonic clock; `tries` counts questions that failed."""

    leader: LeaderFile
    since: float
    not_before: float = 0.0
    tries: int = 0
    passed: bool = False
    obstacle: Obstacle | None = None


class Gatekeeper:
    """Questions out, permissions in; threads of its own, so that a leader that hangs delays no other.

    Args:
        obstacle: what stands against a shard's leader, given the seconds since it was asked of first.
            Raises CdcError: of the worker.
        opened: told of each leader that may be followed, from any thread.
        quiet: told when answers brought something new and no question is under way any more, from any thread.
    """

    def __init__(
        self,
        obstacle: Callable[[str, LeaderFile, float], Obstacle | None],
        *,
        opened: Callable[[str, LeaderFile], None],
        quiet: Callable[[], None],
    ) -> None:
        self._obstacle = obstacle
        self._opened = opened
        self._quiet = quiet
        self._cases: dict[str, _Case] = {}
        self._asking: set[str] = set()
        self._news = False
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(max_workers=_ASKING, thread_name_prefix="gate")
        self._thread = threading.Thread(target=self._run, name="gatekeeper", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stop.set()
        self._wake.set()
        self._thread.join(10)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def ask(self, leaders: Mapping[str, LeaderFile]) -> frozenset[str]:
        """The shards among these whose leader may be followed. The others are asked about from now on, and only these.

        Args:
            leaders: all that moved and are not followed yet, by shard name.
        """
        now = time.monotonic()
        with self._lock:
            known, self._cases = self._cases, {}
            for name, leader in leaders.items():
                case = known.get(name)
                self._cases[name] = case if case and case.leader == leader else _Case(leader=leader, since=now)
            passed = frozenset(name for name, case in self._cases.items() if case.passed)
        self._wake.set()
        return passed

    def waiting(self) -> dict[str, LeaderFile]:
        """Leaders that may not be followed yet, by shard name."""
        with self._lock:
            return {name: case.leader for name, case in self._cases.items() if not case.passed}

    def held(self) -> dict[str, Obstacle]:
        """Those of them that something is known to stand against."""
        with self._lock:
            return {name: case.obstacle for name, case in self._cases.items() if case.obstacle is not None}

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            now = time.monotonic()
            with self._lock:
                open_cases = {name: c for name, c in self._cases.items() if not c.passed and name not in self._asking}
                due = [name for name, case in open_cases.items() if case.not_before <= now]
                self._asking.update(due)
            for name in due:
                self._pool.submit(self._look, name, open_cases[name])
            self._wake.wait(min((c.not_before - now for c in open_cases.values() if c.not_before > now), default=None))

    def _look(self, name: str, case: _Case) -> None:
        try:
            try:
                answer = self._answer(name, case)
            except Exception:
                log.exception("%s: its new leader %s cannot be judged", name, case.leader.leader)
                answer = self._later(case)
            with self._lock:
                current = self._cases.get(name) is case
                if current:
                    self._cases[name] = answer
                    self._news |= (answer.passed, answer.obstacle) != (case.passed, case.obstacle)
            if current and answer.passed:
                self._opened(name, case.leader)
        finally:
            with self._lock:
                self._asking.discard(name)
                told = self._news and not self._asking
                self._news &= not told
            self._wake.set()
            if told:
                self._quiet()

    def _answer(self, name: str, case: _Case) -> _Case:
        waited = time.monotonic() - case.since
        try:
            found = self._obstacle(name, case.leader, waited)
        except NotFound:
            found = None  # no connector: nothing goes on from anywhere
        except CdcError as error:
            if isinstance(error, ConnectUnavailable) and waited > UNREACHABLE_SECONDS:
                log.warning("%s: its new leader %s is not checked: %s", name, case.leader.leader, error)
                return replace(case, passed=True, obstacle=None)
            log.warning("%s: its new leader %s is asked again: %s", name, case.leader.leader, error)
            return self._later(case)
        before = case.obstacle
        if found is None:
            if before is not None:
                log.info("%s: nothing stands against leader %s any more", name, case.leader.leader)
            return replace(case, passed=True, obstacle=None)
        if before is None or before.kind != found.kind:
            log.error("%s does not follow leader %s: %s", name, case.leader.leader, found)
        pause = min(_LAST_LOOK, max(_FIRST_LOOK, waited / 10))
        return replace(case, obstacle=found, not_before=time.monotonic() + pause)

    def _later(self, case: _Case) -> _Case:
        pause = retry_after(case.tries + 1, random.random())
        return replace(case, tries=case.tries + 1, not_before=time.monotonic() + pause)
