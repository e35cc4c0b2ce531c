"""Watches the leaders that tasks were moved away from: one that goes on taking writes is a split brain.

Read-only, one connection a server each time. What is found: that the old server takes writes, and that its log
grows. What is not: a server that does not answer from here.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from cdc_platform.agent.journal import OldLeader
from cdc_platform.agent.periodic import Periodic
from cdc_platform.clients.sources.leader_servers import LeaderServers
from cdc_platform.errors import CdcError
from cdc_platform.failover.promotion import Split, split_brain
from cdc_platform.model.servers import ServerView
from cdc_platform.model.topology import Address, Dataset, Shard, Topology

log = logging.getLogger(__name__)

# How long after a move the old leader is asked; for longer while it takes writes.
WATCH = timedelta(minutes=10)
_EVERY_SECONDS = 5.0
_AT_ONCE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Watched:
    """An old leader, and its first view."""

    old: OldLeader
    first: ServerView | None = None


class OldLeaders(Periodic):
    """The old leaders of one worker's shards; a thread of its own, so that a dead server delays nothing else."""

    def __init__(self, servers: LeaderServers) -> None:
        super().__init__("old-leaders", parallel=_AT_ONCE)
        self._servers = servers
        self._shards: Mapping[str, tuple[Dataset, Shard]] = {}
        self._watched: dict[str, _Watched] = {}
        self._split: dict[str, Split] = {}

    def learn(self, topology: Topology) -> None:
        """The datasets and shards as they are now."""
        self._shards = {shard.name: (dataset, shard) for dataset, shard in topology.all_shards()}

    def add(self, moves: Mapping[str, Address]) -> None:
        """Shard name to the leader that it had."""
        now = datetime.now(UTC)
        self.resume({name: OldLeader(leader=leader, since=now) for name, leader in moves.items()})

    def resume(self, old: Mapping[str, OldLeader]) -> None:
        """Watch these, by shard name; each is asked once at least, however long ago it led."""
        with self.lock:
            idle = not self._watched
            for name, one in old.items():
                known = self._watched.get(name)
                if known is None or known.old.leader != one.leader:
                    self._watched[name] = _Watched(old=one)
                    self._split.pop(name, None)
        if idle:
            self.wake()

    def watching(self) -> dict[str, OldLeader]:
        """What `resume` needs after a restart, by shard name."""
        with self.lock:
            return {name: watched.old for name, watched in self._watched.items()}

    def split(self) -> dict[str, Split]:
        """By shard name, the old leaders that took writes when they were asked last."""
        with self.lock:
            return dict(self._split)

    def step(self) -> float | None:
        """Ask each old leader once."""
        with self.lock:
            watched = dict(self._watched)
        servers: dict[Address, list[tuple[str, _Watched]]] = {}
        for name, item in watched.items():
            servers.setdefault(item.old.leader, []).append((name, item))
        # A server in one thread: a dead one costs one deadline, not one for each shard.
        list(self.pool.map(self._check_server, servers.values()))
        return _EVERY_SECONDS if watched else None

    def _check_server(self, shards: Sequence[tuple[str, _Watched]]) -> None:
        for name, watched in shards:
            if not self.stopping:
                self._check(name, watched)

    def _check(self, name: str, watched: _Watched) -> None:
        known = self._shards.get(name)
        old = watched.old.leader
        over = datetime.now(UTC) - watched.old.since > WATCH
        if known is None or known[1].leader == old:
            # Gone, or it leads again.
            self._drop(name, watched)
            return
        dataset, shard = known
        found, now = None, watched.first
        try:
            now = self._servers.view(dataset, shard, old)
            try:
                leader = self._servers.view(dataset, shard, shard.leader)
            except CdcError as error:
                log.debug("%s: the new leader did not answer: %s", name, error)
                leader = None
            if leader is not None and leader.identity == now.identity:
                self._drop(name, watched)
                return
            found = split_brain(watched.first or now, now, leader)
        except CdcError as error:
            log.debug("%s: the old leader %s did not answer: %s", name, old, error)
        with self.lock:
            if self._watched.get(name) is not watched:
                return
            before = self._split.pop(name, None)
            if found is not None:
                self._split[name] = found
            if found is None and over:
                del self._watched[name]
            else:
                self._watched[name] = replace(watched, first=watched.first or now)
        if found is not None and (before is None or before.wrote != found.wrote):
            log.error("%s: %s", name, found.text)
        elif found is None and before is not None:
            log.info("%s: the old leader %s takes no writes any more, or does not answer", name, old)

    def _drop(self, name: str, watched: _Watched) -> None:
        with self.lock:
            if self._watched.get(name) is watched:
                del self._watched[name]
                self._split.pop(name, None)
