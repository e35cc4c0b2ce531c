"""The ephemeral znode by which an agent shows that it lives, and what it has done."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from kazoo.exceptions import BadVersionError, NoAuthError, NodeExistsError, NoNodeError

from cdc_platform.clients.zookeeper.session import ZooKeeperSession
from cdc_platform.errors import LockHeld


class ZooKeeperAgentRegistration:
    """**`/cdc/agents/<worker>`** of this session. All calls raise ZooKeeperUnavailable."""

    def __init__(self, session: ZooKeeperSession, path: str) -> None:
        self._session = session
        self._path = path

    def take(self, info: Mapping[str, Any]) -> None:
        """Register, also where an earlier agent of this worker has not expired yet: the newest wins."""
        with self._session.errors(self._path), suppress(NoNodeError):
            client = self._session.client()
            stat = self._session.wait(client.exists_async(self._path))
            if stat is not None and stat.ephemeralOwner != self._session.session_id:
                try:
                    self._session.wait(client.delete_async(self._path))
                except NoAuthError:
                    # The ready ACL list lets an agent make a znode and delete none: that one ends with its session.
                    self._wait_until_gone(client)
        self.update(info)

    def _wait_until_gone(self, client: Any) -> None:
        gone = threading.Event()
        if self._session.wait(client.exists_async(self._path, watch=lambda event: gone.set())) is not None:
            gone.wait(2 * self._session.timeout)

    def update(self, info: Mapping[str, Any]) -> None:
        """Say something new; registers again after the session was lost.

        Raises LockHeld when another agent has registered for this worker.
        """
        data = json.dumps(info, separators=(",", ":")).encode()
        with self._session.errors(self._path):
            client = self._session.client()
            while True:
                stat = self._session.wait(client.exists_async(self._path))
                if stat is not None and stat.ephemeralOwner != self._session.session_id:
                    raise LockHeld(
                        "another agent has registered for this worker.",
                        where=self._path,
                        cure="Run one agent a worker, each with its own --worker.",
                    )
                try:
                    if stat is not None:
                        self._session.wait(client.set_async(self._path, data, version=stat.version))
                    else:
                        self._session.wait(client.create_async(self._path, data, ephemeral=True, makepath=True))
                    return
                except (NodeExistsError, NoNodeError, BadVersionError):
                    continue  # only another agent of this worker can be the cause: the next look finds it

    def close(self) -> None:
        """Take the znode away."""
        with self._session.errors(self._path), suppress(NoNodeError):
            client = self._session.client()
            stat = self._session.wait(client.exists_async(self._path))
            if stat is not None and stat.ephemeralOwner == self._session.session_id:
                self._session.wait(client.delete_async(self._path))
