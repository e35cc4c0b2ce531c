"""May a task start on its new leader? Asked of the leader itself and of the position that Connect has saved.

What the task would skip or die of is found here, while its old run may still go on. The new leader's
file and the restart are put off, never left out, and never made possible by changing a server or an offset.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from cdc_platform.clients.protocols import Plugin
from cdc_platform.clients.sources.leader_servers import LeaderServers
from cdc_platform.connectors.leader_files import LeaderFile
from cdc_platform.errors import CdcError, SourceRejected, SourceUnavailable
from cdc_platform.failover.promotion import Obstacle, ObstacleKind, judge, mariadb_version, saved_position
from cdc_platform.model.observed import ObservedConnector
from cdc_platform.model.topology import Dataset, Engine, Shard, Topology

log = logging.getLogger(__name__)

# A leader that does not answer for so long is left to the worker's own judgement: it may have another way there.
UNREACHABLE_SECONDS = 15.0
_PLUGINS_SECONDS = 300.0


class Connect(Protocol):
    """What the gate asks of the worker. Raises CdcError."""

    def offsets(self, name: str) -> Sequence[Mapping[str, Any]]:
        """The committed source offsets."""

    def connector(self, name: str) -> ObservedConnector:
        """One connector with its config."""

    def plugins(self) -> Sequence[Plugin]:
        """The connector classes with their versions."""


class Gate:
    """The gate of one worker. Safe to call from many threads.

    Args:
        connect: the worker's REST API.
        servers: the source servers; one that keeps answers for a moment serves many shards with one question.
    """

    def __init__(self, connect: Connect, servers: LeaderServers) -> None:
        self._connect = connect
        self._servers = servers
        self._shards: Mapping[str, tuple[Dataset, Shard]] = {}
        self._version: tuple[float, str | None] | None = None
        self._told: set[str] = set()
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
        except (SourceRejected, CdcError) as error:
            # No user of ours there, no secret on this host: the check is a help, not a condition.
            self._say_once(name, f"its new leader {leader.leader} is not checked: {error}")
            return None
        connector = self._mariadb_version() if dataset.engine is Engine.MARIADB else None
        found = judge(view, saved, connector=connector, slot=slot)
        with self._lock:
            known_diverged = self._diverged.get(name)
            if known_diverged is not None and known_diverged[0] == leader:
                # Its own writes pass the saved position in time, and cure nothing.
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

    def _say_once(self, name: str, text: str) -> None:
        with self._lock:
            new = name not in self._told
            self._told.add(name)
        if new:
            log.warning("%s: %s", name, text)
