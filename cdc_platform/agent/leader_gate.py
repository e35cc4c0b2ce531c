"""May a task start on its new leader? Asked of the leader itself and of the position that Connect has saved.

What the task would skip or die of is found here, while its old task run may still go on. The new leader's
file and the restart are put off, never left out, and never made possible by changing a server or an offset.
`LeaderCheck` asks once. `LeaderGate` asks again until the leader may be followed, and only then its file is written:
so every start of a task, also one by a rebalance or by the worker's own restart, finds a leader that was checked.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from cdc_platform.agent.periodic import Periodic
from cdc_platform.clients.protocols import Plugin
from cdc_platform.clients.sources.leader_servers import LeaderServers
from cdc_platform.connectors.leader_files import LeaderFile
from cdc_platform.errors import CdcError, ConnectUnavailable, LoginRefused, NotFound, SourceUnavailable
from cdc_platform.failover.promotion import Obstacle, ObstacleKind, judge, mariadb_version, saved_position
from cdc_platform.failover.repointing import RETRY
from cdc_platform.model.observed import ObservedConnector
from cdc_platform.model.topology import Dataset, Engine, Shard, Topology

log = logging.getLogger(__name__)

# A leader that does not answer for so long is left to the worker's own judgement: it may have another way there.
UNREACHABLE_SECONDS = 15.0
# Leaders are asked by so many threads at once: one that hangs costs one of them.
_ASKING = 32
# A leader that is not fit yet is asked again after this long, more seldom as it takes longer.
_FIRST_SECONDS, _LAST_SECONDS = 0.5, 5.0
_PLUGINS_SECONDS = 300.0


class Connect(Protocol):
    """What the check asks of the worker. Raises CdcError."""

    def offsets(self, name: str) -> Sequence[Mapping[str, Any]]:
        """The committed source offsets."""

    def connector(self, name: str) -> ObservedConnector:
        """One connector with its config."""

    def plugins(self) -> Sequence[Plugin]:
        """The connector classes with their versions."""


class LeaderCheck:
    """The check of one worker. Safe to call from many threads.

    Args:
        connect: the worker's REST API.
        servers: the source servers; one that keeps answers for a moment serves many shards with one question.
    """

    def __init__(self, connect: Connect, servers: LeaderServers) -> None:
        self._connect = connect
        self._servers = servers
        self._shards: Mapping[str, tuple[Dataset, Shard]] = {}
        self._version: tuple[float, str | None] | None = None
        self._reported: set[str] = set()
        self._diverged: dict[str, tuple[LeaderFile, Obstacle]] = {}
        self._lock = threading.Lock()

    def learn(self, topology: Topology) -> None:
        """The datasets and shards as they are now."""
        self._shards = {shard.name: (dataset, shard) for dataset, shard in topology.all_shards()}

    def obstacle(self, name: str, leader: LeaderFile, waited: float) -> Obstacle | None:
        """What stands in the way of a start with this leader; None when nothing does, or nothing can be known.

        Args:
            waited: seconds since it was asked of first.

        Raises:
            ConnectUnavailable, ConnectRejected, NotFound: of the worker.
        """
        known = self._shards.get(name)
        if known is None:
            return None
        dataset, shard = known
        offsets = self._connect.offsets(name)
        saved = saved_position(dataset.engine, offsets)
        slot = None
        if dataset.engine is Engine.POSTGRES:
            slot = self._connect.connector(name).config.get("slot.name")
        try:
            view = self._servers.view(dataset, shard, leader.leader, saved=saved)
        except SourceUnavailable as error:
            if waited > UNREACHABLE_SECONDS:
                return None
            return Obstacle(
                kind=ObstacleKind.UNREACHABLE, text=f"it does not answer: {error.message}", cure="Start it."
            )
        except LoginRefused as error:
            # A task would be refused too; or it is another server, to which no login may go.
            cure = f"{error.cure} Or start the agent with --no-check-leaders."
            return Obstacle(kind=ObstacleKind.LOGIN_REFUSED, text=error.message, cure=cure)
        except CdcError as error:
            # A right is missing, or the secret on this host: the check is a help, not a condition.
            self._warn_once(name, f"its new leader {leader.leader} is not checked: {error}")
            return None
        connector = self._mariadb_version() if dataset.engine is Engine.MARIADB else None
        found = judge(view, saved, connector=connector, slot=slot)
        with self._lock:
            known_diverged = self._diverged.get(name)
            if known_diverged is not None and known_diverged[0] == leader:
                # Its own writes pass the saved position in time, and make nothing good.
                return known_diverged[1]
            self._diverged.pop(name, None)
            if found is not None and found.kind is ObstacleKind.DIVERGED:
                self._diverged[name] = (leader, found)
        return found

    def _mariadb_version(self) -> str | None:
        with self._lock:
            if self._version is None or time.monotonic() - self._version[0] > _PLUGINS_SECONDS:
                self._version = (time.monotonic(), mariadb_version(self._connect.plugins()))
            return self._version[1]

    def _warn_once(self, name: str, text: str) -> None:
        with self._lock:
            new = name not in self._reported
            self._reported.add(name)
        if new:
            log.warning("%s: %s", name, text)


@dataclass(frozen=True, slots=True, kw_only=True)
class _CheckedLeader:
    """A leader that is asked about. Times are seconds on the monotonic clock; `tries` counts questions that failed."""

    leader: LeaderFile
    since: float
    not_before: float = 0.0
    tries: int = 0
    passed: bool = False
    obstacle: Obstacle | None = None


class LeaderGate(Periodic):
    """Leaders in, permissions out; threads of its own, so that a leader that hangs delays no other.

    Args:
        obstacle: what stands against a shard's leader, given the seconds since it was asked of first.
            Raises CdcError: of the worker.
        opened: called with each leader that may be followed, from any thread.
        quiet: called when answers brought something new and no question is under way any more, from any thread.
    """

    def __init__(
        self,
        obstacle: Callable[[str, LeaderFile, float], Obstacle | None],
        *,
        opened: Callable[[str, LeaderFile], None],
        quiet: Callable[[], None],
    ) -> None:
        super().__init__("leader-gate", parallel=_ASKING)
        self._obstacle = obstacle
        self._opened = opened
        self._quiet = quiet
        self._leaders: dict[str, _CheckedLeader] = {}
        self._asking: set[str] = set()
        self._changed = False

    def ask(self, leaders: Mapping[str, LeaderFile]) -> frozenset[str]:
        """The shards among these whose leader may be followed. The others are asked about from now on, and only these.

        Args:
            leaders: all that moved and are not followed yet, by shard name.
        """
        now = time.monotonic()
        with self.lock:
            known, self._leaders = self._leaders, {}
            for name, leader in leaders.items():
                asked = known.get(name)
                self._leaders[name] = (
                    asked if asked and asked.leader == leader else _CheckedLeader(leader=leader, since=now)
                )
            passed = frozenset(name for name, asked in self._leaders.items() if asked.passed)
        self.wake()
        return passed

    def waiting(self) -> dict[str, LeaderFile]:
        """Leaders that may not be followed yet, by shard name."""
        with self.lock:
            return {name: asked.leader for name, asked in self._leaders.items() if not asked.passed}

    def blocked(self) -> dict[str, Obstacle]:
        """Those of them that an obstacle is known of."""
        with self.lock:
            return {name: asked.obstacle for name, asked in self._leaders.items() if asked.obstacle is not None}

    def step(self) -> float | None:
        """Ask of the leaders whose time has come."""
        now = time.monotonic()
        with self.lock:
            waiting = {n: one for n, one in self._leaders.items() if not one.passed and n not in self._asking}
            due = [name for name, one in waiting.items() if one.not_before <= now]
            self._asking.update(due)
        for name in due:
            self.pool.submit(self._check, name, waiting[name])
        return min((one.not_before - now for one in waiting.values() if one.not_before > now), default=None)

    def _check(self, name: str, asked: _CheckedLeader) -> None:
        try:
            try:
                answer = self._answer(name, asked)
            except Exception:
                log.exception("%s: its new leader %s cannot be judged", name, asked.leader.leader)
                answer = self._later(asked)
            with self.lock:
                current = self._leaders.get(name) is asked
                if current:
                    self._leaders[name] = answer
                    self._changed |= (answer.passed, answer.obstacle) != (asked.passed, asked.obstacle)
            if current and answer.passed:
                self._opened(name, asked.leader)
        finally:
            with self.lock:
                self._asking.discard(name)
                quiet = self._changed and not self._asking
                self._changed &= not quiet
            self.wake()
            if quiet:
                self._quiet()

    def _answer(self, name: str, asked: _CheckedLeader) -> _CheckedLeader:
        waited = time.monotonic() - asked.since
        try:
            found = self._obstacle(name, asked.leader, waited)
        except NotFound:
            found = None  # no connector: nothing goes on from anywhere
        except CdcError as error:
            if isinstance(error, ConnectUnavailable) and waited > UNREACHABLE_SECONDS:
                log.warning("%s: its new leader %s is not checked: %s", name, asked.leader.leader, error)
                return replace(asked, passed=True, obstacle=None)
            log.warning("%s: its new leader %s is asked again: %s", name, asked.leader.leader, error)
            return self._later(asked)
        before = asked.obstacle
        if found is None:
            if before is not None:
                log.info("%s: nothing stands against leader %s any more", name, asked.leader.leader)
            return replace(asked, passed=True, obstacle=None)
        if before is None or before.kind != found.kind:
            log.error("%s does not follow leader %s: %s", name, asked.leader.leader, found)
        pause = min(_LAST_SECONDS, max(_FIRST_SECONDS, waited / 10))
        return replace(asked, obstacle=found, not_before=time.monotonic() + pause)

    def _later(self, asked: _CheckedLeader) -> _CheckedLeader:
        pause = RETRY.wait(asked.tries + 1, random.random())
        return replace(asked, tries=asked.tries + 1, not_before=time.monotonic() + pause)
