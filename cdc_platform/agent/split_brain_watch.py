"""Watches the leaders that tasks were moved away from: one that goes on taking writes is a split brain.

Read-only looks, one connection a server and look. What is seen: that the old server takes
writes, and that its log grows. What is not: a server that does not answer from here.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from cdc_platform.agent.journal import OldLeader
from cdc_platform.clients.sources.leader_servers import LeaderServers
from cdc_platform.errors import CdcError
from cdc_platform.failover.promotion import Split, split_brain
from cdc_platform.model.servers import ServerView
from cdc_platform.model.topology import Address, Dataset, Shard, Topology

log = logging.getLogger(__name__)

# How long after a move the old leader is looked at; as long as it takes writes, it goes on.
WATCH = timedelta(minutes=10)
_EVERY_SECONDS = 5.0
_AT_ONCE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Watched:
    """An old leader, and how it was seen first."""

    old: OldLeader
    first: ServerView | None = None


class OldLeaders:
    """The old leaders of one worker's shards; a thread of its own, so that a dead server delays nobody."""

    def __init__(self, servers: LeaderServers) -> None:
        self._servers = servers
        self._shards: Mapping[str, tuple[Dataset, Shard]] = {}
        self._watched: dict[str, _Watched] = {}
        self._split: dict[str, Split] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="old-leaders", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stop.set()
        self._wake.set()
        self._thread.join(10)

    def learn(self, topology: Topology) -> None:
        """The datasets and shards as they are now."""
        self._shards = {shard.name: (dataset, shard) for dataset, shard in topology.all_shards()}

    def add(self, moves: Mapping[str, Address]) -> None:
        """Shard name to the leader that it had."""
        now = datetime.now(UTC)
        self.resume({name: OldLeader(leader=leader, since=now) for name, leader in moves.items()})

    def resume(self, old: Mapping[str, OldLeader]) -> None:
        """Watch these, by shard name; each is looked at once, however long ago it led."""
        with self._lock:
            for name, one in old.items():
                known = self._watched.get(name)
                if known is None or known.old.leader != one.leader:
                    self._watched[name] = _Watched(old=one)
                    self._split.pop(name, None)
        self._wake.set()

    def watching(self) -> dict[str, OldLeader]:
        """What `resume` needs after a restart, by shard name."""
        with self._lock:
            return {name: watched.old for name, watched in self._watched.items()}

    def split(self) -> dict[str, Split]:
        """By shard name, the old leaders that took writes at the last look."""
        with self._lock:
            return dict(self._split)

    def _run(self) -> None:
        with ThreadPoolExecutor(max_workers=_AT_ONCE, thread_name_prefix="old-leader") as pool:
            while not self._stop.is_set():
                self._wake.clear()
                with self._lock:
                    watched = dict(self._watched)
                if not watched:
                    self._wake.wait()
                    continue
                servers: dict[Address, list[tuple[str, _Watched]]] = {}
                for name, item in watched.items():
                    servers.setdefault(item.old.leader, []).append((name, item))
                for _ in pool.map(self._look_at_server, servers.values()):
                    if self._stop.is_set():
                        return
                self._stop.wait(_EVERY_SECONDS)

    def _look_at_server(self, shards: Sequence[tuple[str, _Watched]]) -> None:
        # A server in one thread: a dead one costs one deadline, not one for each shard.
        for name, watched in shards:
            self._look(name, watched)

    def _look(self, name: str, watched: _Watched) -> None:
        known = self._shards.get(name)
        old = watched.old.leader
        over = datetime.now(UTC) - watched.old.since > WATCH
        if known is None or known[1].leader == old:
            # Gone, or it leads again.
            self._forget(name, watched)
            return
        dataset, shard = known
        found, now = None, watched.first
        try:
            now = self._servers.view(dataset, shard, old)
            try:
                leader = self._servers.view(dataset, shard, shard.leader)
            except CdcError as error:
                log.debug("%s: the new leader was not seen: %s", name, error)
                leader = None
            if leader is not None and leader.identity == now.identity:
                self._forget(name, watched)
                return
            found = split_brain(watched.first or now, now, leader)
        except CdcError as error:
            log.debug("%s: the old leader %s was not seen: %s", name, old, error)
        with self._lock:
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

    def _forget(self, name: str, watched: _Watched) -> None:
        with self._lock:
            if self._watched.get(name) is watched:
                del self._watched[name]
                self._split.pop(name, None)
