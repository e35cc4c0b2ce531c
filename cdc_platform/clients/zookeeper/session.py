"""One ZooKeeper session: connects when first used, reconnects by itself, gives our errors.

`epoch` counts the losses of the connection. Watches do not survive one (the
client library forgets them), so what was learned in an older epoch must be
read again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

from kazoo.client import KazooClient, KazooState
from kazoo.exceptions import (
    AuthFailedError,
    InvalidACLError,
    KazooException,
    NoAuthError,
    NodeExistsError,
    NoNodeError,
)
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.protocol.states import Callback
from kazoo.security import ACL, Id, Permissions, make_digest_acl

from cdc_platform.clients.secrets import Login, current
from cdc_platform.clients.zookeeper.polling import PollingHandler
from cdc_platform.errors import ZooKeeperUnavailable

log = logging.getLogger(__name__)

# Requests on their way at one time. More gained nothing when 10,000 znodes were read.
WINDOW = 1000


class ZooKeeperSession:
    """A session with its connection.

    Args:
        hosts: `HOST:PORT,HOST:PORT`, with an optional chroot path at the end.
        timeout: of the session, seconds; also the deadline of one call.
        auth: user and password for digest authentication. What is made then belongs to that user:
            no other user reads or writes it, but for
        readers: ids of digest authentication (`USER:HASH`) that may read it.
        ca: PEM file with the authority of the servers' certificates: the connection is TLS, certificate and
            host name are verified.

    All calls raise ZooKeeperUnavailable.
    """

    def __init__(
        self, hosts: str, *, timeout: float, auth: Login = None, readers: Sequence[str] = (), ca: str = ""
    ) -> None:
        self.hosts = hosts
        self.timeout = timeout
        self._auth = auth
        self._readers = tuple(readers)
        self._ca = ca
        self._known: tuple[str, str] | None = None
        self.epoch = 0
        self._client: Any = None
        self._connected = threading.Event()
        self._starting = threading.Lock()
        self._reconnected: list[Callable[[], None]] = []

    def client(self) -> Any:
        """The kazoo client, connected at this moment."""
        with self._starting:
            if self._client is None:
                self._client = self._start()
        if not self._connected.wait(self.timeout):
            raise self._unavailable("the connection is lost")
        return self._client

    def renew_login(self) -> None:
        """Log in with the password as it is now, where it changed since the session began; the old one stays valid.

        Raises SecretUnresolved.
        """
        found = current(self._auth)
        if self._client is None or found is None or found == self._known:
            return
        client = self.client()
        with self.errors(""):
            self.wait(client.add_auth_async("digest", ":".join(found)))
        client.default_acl = self.acl(found)
        self._known = found
        log.info("logged in to ZooKeeper with a password that was rotated")

    def acl(self, login: tuple[str, str], *, readers_create: bool = False) -> list[Any]:
        """All rights for the login's user; readers read, and with `readers_create` make children."""
        permissions = Permissions.READ | (Permissions.CREATE if readers_create else 0)
        return [make_digest_acl(*login, all=True), *(ACL(permissions, Id("digest", one)) for one in self._readers)]

    def let_readers_register(self, path: str) -> None:
        """Make the znode, or its ACL, such that each reader may have a child of its own there; nothing without any."""
        login = current(self._auth)
        if not self._readers or login is None:
            return
        wanted = self.acl(login, readers_create=True)
        client = self.client()
        with self.errors(path):
            try:
                self.wait(client.create_async(path, b"", acl=wanted, makepath=True))
            except NodeExistsError:
                found, _ = self.wait(client.get_acls_async(path))
                if set(found) != set(wanted):
                    self.wait(client.set_acls_async(path, wanted))

    @property
    def connected(self) -> bool:
        """False as soon as the connection is lost, and before it is first used."""
        return self._connected.is_set()

    @property
    def session_id(self) -> int | None:
        """The id that owns this session's ephemeral znodes."""
        client_id = self._client.client_id if self._client is not None else None
        return client_id[0] if client_id else None

    def on_reconnect(self, call: Callable[[], None]) -> None:
        """`call` (from another thread) after each new connection but the first."""
        self._reconnected.append(call)

    def close(self) -> None:
        """End the session; its ephemeral znodes go. It can be used again."""
        with self._starting:
            client, self._client = self._client, None
            self._connected.clear()
            self.epoch += 1
        if client is not None:
            _discard(client)

    @contextmanager
    def errors(self, where: str) -> Iterator[None]:
        """Translates kazoo's exceptions, all but NoNodeError, BadVersionError and their like that `where` expects.

        Callers catch those inside.
        """
        try:
            yield
        except (NoAuthError, AuthFailedError, InvalidACLError) as error:
            raise ZooKeeperUnavailable(
                f"access refused ({type(error).__name__}).",
                where=f"{self.hosts}{where}",
                cure="Let this client read and write there (ZooKeeper ACLs).",
            ) from None
        except (KazooException, KazooTimeoutError) as error:
            raise self._unavailable(_reason(error), where) from None

    def wait(self, result: Any, deadline: float | None = None) -> Any:
        """The value of an asynchronous call; `deadline` is on the monotonic clock. Raises kazoo's exceptions."""
        left = self.timeout if deadline is None else max(0.0, deadline - time.monotonic())
        return result.get(timeout=left)

    def pipelined(self, calls: Iterable[Callable[[], Any]], *, deadline: float | None = None) -> Iterator[Any]:
        """Start each call, at most WINDOW at a time, and yield their results in order.

        A result is the value, or NoNodeError or NoAuthError as a value: these
        concern one znode. Any other failure is raised, as kazoo's exception.
        """
        rest = iter(calls)
        pending: list[Any] = []
        while started := [call() for call in islice(rest, WINDOW // 2)]:
            yield from self._outcomes(pending, deadline)
            pending = started
        yield from self._outcomes(pending, deadline)

    def settle(self, path: str, deadline: float) -> None:
        """Waits until all changes made so far are known here: what was written, and the watches of it.

        `sync` brings the server up to date; events that came before its answer
        sit in the callback queue, so a callback of our own at its end closes the gap.
        """
        client = self.client()
        self.wait(client.sync_async(path), deadline)
        done = threading.Event()
        client.handler.dispatch_callback(Callback("settle", done.set, ()))
        if not done.wait(max(0.0, deadline - time.monotonic())):
            raise KazooTimeoutError("watch callbacks are stuck")

    def _outcomes(self, results: list[Any], deadline: float | None) -> Iterator[Any]:
        if results:
            # Answers come in order: one sleep until the last is there, not one for each.
            results[-1].wait(self.timeout if deadline is None else max(0.0, deadline - time.monotonic()))
        for result in results:
            try:
                yield self.wait(result, deadline)
            except (NoNodeError, NoAuthError) as error:
                yield error

    def _start(self) -> Any:
        security: dict[str, Any] = {}
        self._known = current(self._auth)
        if self._known is not None:
            security = {
                "auth_data": [("digest", ":".join(self._known))],
                "default_acl": self.acl(self._known),
            }
        if self._ca:
            security |= {"use_ssl": True, "ca": self._ca, "verify_certs": True, "check_hostname": True}
        client = KazooClient(
            hosts=self.hosts,
            timeout=self.timeout,
            handler=PollingHandler(),
            **security,
            connection_retry={"max_tries": -1, "delay": 0.1, "max_delay": 2.0},
            logger=logging.getLogger(f"{__name__}.kazoo"),
        )
        first = True

        def listen(state: str) -> None:
            nonlocal first
            if state != KazooState.CONNECTED:
                self._connected.clear()
                self.epoch += 1
                return
            self._connected.set()
            if not first:
                for call in self._reconnected:
                    client.handler.dispatch_callback(Callback("reconnected", call, ()))
            first = False

        client.add_listener(listen)
        try:
            client.start(timeout=self.timeout)
        except (KazooException, KazooTimeoutError) as error:
            client.remove_listener(listen)
            raise self._unavailable(_reason(error)) from None
        return client

    def _unavailable(self, reason: str, where: str = "") -> ZooKeeperUnavailable:
        return ZooKeeperUnavailable(
            f"ZooKeeper does not answer: {reason}.",
            where=f"{self.hosts}{where}",
            cure="See that it runs and that the address in the settings (zookeeper) is right.",
        )


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _discard(client: Any) -> None:
    try:
        client.stop()
        client.close()
    except (KazooException, KazooTimeoutError) as error:
        # The server ends the session by itself after its timeout.
        log.warning("ZooKeeper session not closed cleanly: %s", _reason(error))
