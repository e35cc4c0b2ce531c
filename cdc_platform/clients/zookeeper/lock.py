"""The lock of the control plane: one pass at a time, and a pass that lost it knows at once.

Each holder has a session of its own. Whatever happens to the process, the
contender's znode ends with that session: at the latest when the server has
not heard from it for the session timeout.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

from kazoo.exceptions import ConnectionLoss, KazooException, NoNodeError
from kazoo.handlers.threading import KazooTimeoutError

from cdc_platform.clients.zookeeper.session import ZooKeeperSession
from cdc_platform.errors import LockHeld, LockLost, ZooKeeperUnavailable

log = logging.getLogger(__name__)

_PREFIX = "pass-"
# How often the holder makes sure of its znode, seconds. A pass has to stop within a second.
_INTERVAL = 0.5
# Part of the session timeout after which silence means loss: clocks may run at different rates,
# and what was checked is acted on a little later.
_SAFE = 2 / 3


def _now() -> float:
    """Seconds that go on while the machine is suspended, unlike the monotonic clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class HeldLock:
    """The lock while it is held. Once lost it stays lost."""

    def __init__(self, session: ZooKeeperSession, path: str, *, generation: int, confirmed: float, epoch: int) -> None:
        self._session = session
        self._path = path
        self._generation = generation
        self._confirmed = confirmed
        self._epoch = epoch
        self._lost: str | None = None
        self._done = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="zookeeper-lock", daemon=True)

    @property
    def generation(self) -> int:
        """The zxid that made this holder's znode: each later holder has a greater one."""
        return self._generation

    def check(self) -> None:
        """Raises LockLost as soon as the lock may be another's. Sends nothing: cheap enough for each batch."""
        silent = _now() - self._confirmed
        if self._lost is None and (self._session.epoch != self._epoch or not self._session.connected):
            self._lost = "the connection to ZooKeeper was lost"
        if self._lost is None and silent > self._session.timeout * _SAFE:
            self._lost = f"ZooKeeper has not confirmed it for {silent:.1f} s"
        if self._lost is not None:
            raise LockLost(
                f"{self._lost}.", where=self._path, cure="Nothing more is written; the next pass goes on from here."
            )

    def start(self) -> None:
        """Begin to make sure of the znode, in the background."""
        self._keeper.start()

    def end(self) -> None:
        """Stop that. The lock counts as lost from now on."""
        self._lost = self._lost or "it was given back"
        self._done.set()
        self._keeper.join(self._session.timeout)

    def _keep(self) -> None:
        while not self._done.is_set() and self._lost is None:
            if self._session.epoch != self._epoch:
                return  # `check` sees it too
            asked = _now()
            try:
                client = self._session.client()
                stat = self._session.wait(client.exists_async(self._path, watch=self._gone))
            except (KazooException, KazooTimeoutError, ZooKeeperUnavailable) as error:
                log.warning("lock not confirmed: %s", str(error) or type(error).__name__)
            else:
                if stat is None or stat.ephemeralOwner != self._session.session_id:
                    self._lost = self._lost or "its znode is gone"
                else:
                    self._confirmed = asked
            self._done.wait(_INTERVAL)

    def _gone(self, event: Any) -> None:
        if event.type == "DELETED":
            self._lost = self._lost or "its znode was deleted"


@contextmanager
def hold(session: ZooKeeperSession, path: str, *, owner: str, timeout: float) -> Iterator[HeldLock]:
    """Take the lock and give it back at the end, by closing `session` (nothing else may use it).

    Args:
        session: a fresh one.
        path: the parent of the contenders' znodes.
        owner: shown to others.
        timeout: how long to wait while another holds it, seconds.

    Raises:
        LockHeld: names the holder.
        ZooKeeperUnavailable: also when the connection breaks while taking it.
    """
    try:
        with session.errors(path):
            lock = _take(session, path, owner, timeout)
        lock.start()
        try:
            yield lock
        finally:
            lock.end()
    finally:
        session.close()


def holder(session: ZooKeeperSession, path: str) -> str | None:
    """What the present holder says of itself; None when the lock is free."""
    with session.errors(path):
        for _, name in _contenders(session, path):
            try:
                data, _stat = session.wait(session.client().get_async(f"{path}/{name}"))
            except NoNodeError:
                continue  # just given back: the next one has it
            return _owner(data)
    return None


def _take(session: ZooKeeperSession, path: str, owner: str, timeout: float) -> HeldLock:
    deadline = time.monotonic() + timeout
    client = session.client()
    if timeout <= 0 and _contenders(session, path):
        raise _held(session, path)  # no need to write
    data = json.dumps(
        {
            "owner": owner,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
    ).encode()
    epoch = session.epoch
    asked = _now()
    mine, stat = session.wait(
        client.create_async(f"{path}/{_PREFIX}", data, ephemeral=True, sequence=True, makepath=True, include_data=True)
    )
    name = mine.rpartition("/")[2]
    while True:
        contenders = _contenders(session, path)
        if session.epoch != epoch or name not in [other for _, other in contenders]:
            raise ConnectionLoss("it broke while the lock was taken")
        before = [other for number, other in contenders if number < _number(name)]
        if not before:
            return HeldLock(session, mine, generation=stat.czxid, confirmed=asked, epoch=epoch)
        left = deadline - time.monotonic()
        if left <= 0:
            raise _held(session, path)
        freed = threading.Event()
        if session.wait(client.exists_async(f"{path}/{before[-1]}", watch=partial(_set, freed))) is not None:
            # Not for ever: that the connection is lost shows at the next request only.
            freed.wait(min(left, 1.0))
        asked = _now()


def _set(event: threading.Event, _: Any) -> None:
    event.set()


def _contenders(session: ZooKeeperSession, path: str) -> list[tuple[int, str]]:
    try:
        names = session.wait(session.client().get_children_async(path))
    except NoNodeError:
        return []
    return sorted((_number(name), name) for name in names if name.startswith(_PREFIX))


def _number(name: str) -> int:
    digits = name.removeprefix(_PREFIX)
    return int(digits) if digits.isdigit() else -1


def _held(session: ZooKeeperSession, path: str) -> LockHeld:
    owner = holder(session, path) or "a holder that is giving it back"
    return LockHeld(
        f"{owner} holds the lock.",
        where=path,
        cure=f"Wait for its end; after a crash the lock is free within {session.timeout + 5:.0f} s.",
    )


def _owner(data: bytes) -> str:
    try:
        return str(json.loads(data)["owner"])
    except (ValueError, KeyError, TypeError):
        return data.decode(errors="replace") or "unknown"
