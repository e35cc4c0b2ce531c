"""HTTP to the workers of one Connect cluster: the first that answers, within one deadline."""

from __future__ import annotations

import copy
import logging
import random
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import httpcore  # noqa: F401 - httpx would import it at first use, which in threads trips CPython's gh-106905
import httpx
import msgspec

from cdc_platform.clients.connect import wire
from cdc_platform.clients.connect.deadlines import Transport
from cdc_platform.clients.secrets import Login, current
from cdc_platform.connectors.source_servers import is_permitted_host
from cdc_platform.errors import BadInput, CdcError, ConnectRebalancing, ConnectUnavailable, SettingsError, WrongCluster

log = logging.getLogger(__name__)

# A worker that does not even accept a connection is not worth more of the deadline.
_CONNECT_SECONDS = 3.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0

# A connector with its config and a trace is some 20 KB: twelve thousand of them.
LARGEST_ANSWER = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Response:
    """A worker's whole answer. `where` is the method and URL, for messages."""

    status: int
    body: bytes
    where: str

    @property
    def message(self) -> str:
        """Connect's own words about an error."""
        found = wire.error_message(self.body)
        return f"HTTP {self.status} without an error document" if found is None else found

    @property
    def is_transient(self) -> bool:
        """A server error that says nothing about the request."""
        foreign = self.status >= 500 and wire.error_message(self.body) is None
        return self.status in (502, 503, 504) or foreign or (self.status == 500 and wire.is_transient(self.message))


class RequestNotSent(Exception):
    """The request never reached a worker: another may be asked."""


class OutcomeUnknown(Exception):
    """The request was sent, what became of it is not known."""


class Deadline:
    """The end of a call, however many requests it takes."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        # With less than this a request would only be sent to be given up.
        self.least = min(1.0, seconds / 4)

    @property
    def left(self) -> float:
        """Seconds, never less than 0."""
        return max(0.0, self._end - time.monotonic())


class Workers:
    """The workers of one cluster; the one that answered last is asked first. Thread-safe.

    Args as those of `ConnectClient`.
    """

    def __init__(
        self,
        name: str,
        urls: Sequence[str],
        auth: Login,
        kafka_cluster_id: str | None,
        verify: Any,
        max_connections: int,
        hosts: Sequence[str] = ("*",),
    ) -> None:
        self.name = name
        checked = dict(_checked(url) for url in urls)
        self.urls = tuple(checked)
        # User and password of a URL are taken out of it: httpx logs URLs.
        self._logins, self._auth = checked, auth
        if not self.urls:
            raise BadInput(f"Connect cluster {name} has no URL.", field="urls", cure="Name at least one.")
        self._kafka_cluster_id = kafka_cluster_id
        self._hosts = tuple(hosts)
        self._verified: set[str] = set()
        self._preferred = 0
        self._check: Callable[[], None] | None = None
        self._transport = Transport(verify, max_connections)
        # A proxy from the environment would see all connector configs.
        self._http = httpx.Client(transport=self._transport, trust_env=False, headers={"accept": "application/json"})

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def fenced(self, check: Callable[[], None]) -> Workers:
        """The same workers and connections; `check` is called before each request but GET, repeats too."""
        fenced = copy.copy(self)
        fenced._check = check
        return fenced

    def forget(self) -> None:
        """Ask each worker again who it is, before anything else."""
        self._verified.clear()

    def where(self, response: Response) -> str:
        """Where an answer came from, for errors."""
        return f"Connect cluster {self.name}: {response.where}"

    def send(
        self, method: str, path: str, deadline: Deadline, body: Any = None, *, repeatable: bool | None = None
    ) -> Response:
        """The first real answer of any worker within the deadline.

        Raises:
            ConnectUnavailable: none, and nothing was changed.
            WrongCluster: a worker of another cluster answered, and no right one.
            ConnectRebalancing: 409 until the deadline.
            OutcomeUnknown: sent once and not answered; only when not `repeatable`.
        """
        if repeatable is None:
            repeatable = method == "GET"
        for pause in _pauses():
            response = self._round(method, path, deadline, body, repeatable)
            if not wire.says_rebalance(response.status, response.message):
                return response
            if deadline.left <= pause + deadline.least:
                raise ConnectRebalancing(
                    f"{response.message}.".replace("..", "."),
                    where=self.where(response),
                    cure="Wait until the group has settled; the next pass tries again.",
                )
            time.sleep(pause)
        raise AssertionError("pauses never end")

    def _round(self, method: str, path: str, deadline: Deadline, body: Any, repeatable: bool) -> Response:
        content = None if body is None else msgspec.json.encode(body)
        problem: CdcError | None = None
        first = self._preferred
        for step in range(len(self.urls)):
            at = (first + step) % len(self.urls)
            url = self.urls[at]
            last = step == len(self.urls) - 1
            # Half of what is left, so that one worker that hangs leaves time for the next.
            seconds = deadline.left if last or not repeatable else deadline.left / 2
            if self._check is not None and method != "GET":
                self._check()
            try:
                self._verify(url, seconds)
                response = self.once(url, method, path, content, min(seconds, deadline.left))
            except WrongCluster as error:
                log.error("%s", error)
                problem = error
            except (RequestNotSent, ConnectUnavailable) as error:
                self._verified.discard(url)
                problem = problem or self._unavailable(str(error), url)
            except OutcomeUnknown as error:
                self._verified.discard(url)
                self._preferred = (at + 1) % len(self.urls)
                if not repeatable:
                    raise
                problem = problem or self._unavailable(str(error), url)
            else:
                if not response.is_transient:
                    self._preferred = at
                    return response
                self._preferred = (at + 1) % len(self.urls)
                if not repeatable:
                    raise OutcomeUnknown(response.message)
                problem = problem or self._unavailable(response.message, url)
        assert problem is not None
        raise problem

    def once(self, url: str, method: str, path: str, content: bytes | None, seconds: float) -> Response:
        """One request to one worker. Raises RequestNotSent (never sent) and OutcomeUnknown."""
        where = f"{method} {url}{path}"
        if seconds <= 0:
            raise RequestNotSent("no time left")
        end = time.monotonic() + seconds
        timeout = httpx.Timeout(seconds, connect=min(seconds, _CONNECT_SECONDS))
        headers = {} if content is None else {"content-type": "application/json"}
        body = bytearray()
        try:
            with (
                self._transport.within(seconds),
                self._http.stream(
                    method, url + path, content=content, headers=headers, timeout=timeout, auth=self._login(url)
                ) as stream,
            ):
                for chunk in stream.iter_bytes():
                    body += chunk
                    if len(body) > LARGEST_ANSWER:
                        raise OutcomeUnknown(f"the answer is larger than {LARGEST_ANSWER} bytes")
                    if time.monotonic() > end:
                        raise OutcomeUnknown(f"not answered in full within {seconds:.1f} s")
                response = Response(stream.status_code, bytes(body), where)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise RequestNotSent(str(error) or type(error).__name__) from None
        except httpx.TimeoutException:
            raise OutcomeUnknown(f"not answered within {seconds:.1f} s") from None
        except httpx.HTTPError as error:
            raise OutcomeUnknown(f"the answer broke off: {error}") from None
        log.debug("%s: %s -> %s, %d bytes", self.name, where, response.status, len(response.body))
        return response

    def _login(self, url: str) -> tuple[str, str] | None:
        return self._logins.get(url) or current(self._auth)

    def check_host(self, url: str) -> None:
        """Raises RequestNotSent where nothing, or no login, may go."""
        if not is_permitted_host(httpx.URL(url).host, self._hosts):
            raise RequestNotSent("this host is not among the permitted ones (connect_hosts)")
        if self._login(url) and _is_open(url):
            raise RequestNotSent("its login would go over plain http: serve it by https, or reach it by loopback")

    def _verify(self, url: str, seconds: float) -> None:
        """Ask a worker once who it is. Raises WrongCluster, ConnectUnavailable, RequestNotSent."""
        if url in self._verified:
            return
        self.check_host(url)
        try:
            response = self.once(url, "GET", "/", None, seconds)
        except OutcomeUnknown as error:
            raise RequestNotSent(str(error)) from None
        if response.status in (401, 403):
            wanted = "another user or password" if self._login(url) else "a user and password"
            raise RequestNotSent(f"HTTP {response.status} on GET /: it wants {wanted} (connect_user, connect_password)")
        if response.status != 200:
            raise RequestNotSent(f"HTTP {response.status} on GET /: {response.message}")
        found = wire.decode(wire.server, response.body, response.where).kafka_cluster_id
        if self._kafka_cluster_id is None:
            self._kafka_cluster_id = found
        if found != self._kafka_cluster_id:
            raise WrongCluster(
                f"this worker belongs to Kafka cluster {found}, not to {self._kafka_cluster_id}.",
                where=url,
                field=f"urls of Connect cluster {self.name}",
                cure="Name only workers of this cluster.",
            )
        self._verified.add(url)

    def _unavailable(self, problem: str, url: str) -> ConnectUnavailable:
        others = f" (and none of {len(self.urls) - 1} others)" if len(self.urls) > 1 else ""
        return ConnectUnavailable(
            f"{problem}{others}.",
            where=f"Connect cluster {self.name}: {url}",
            cure="Check that its workers are up and reachable from here.",
        )


def trusting(ca: str) -> Any:
    """What `verify` takes: who signs the workers' certificates, from a PEM file; empty: the public authorities.

    Raises SettingsError.
    """
    if not ca:
        return True
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"cannot be used: {error.strerror or error}.", where=ca, field="connect_ca", cure="Name a PEM file."
        ) from None


def _pauses() -> Iterator[float]:
    """Growing pauses with full jitter, without end, seconds."""
    longest = _FIRST_PAUSE
    while True:
        yield random.uniform(_FIRST_PAUSE / 2, longest)
        longest = min(longest * 2, _LONGEST_PAUSE)


def _is_open(url: str) -> bool:
    """True when others may read what goes to this URL."""
    parsed = httpx.URL(url)
    if parsed.scheme == "https" or parsed.host == "localhost":
        return False
    try:
        return not ip_address(parsed.host).is_loopback
    except ValueError:
        return True


def _checked(url: str) -> tuple[str, tuple[str, str] | None]:
    """The URL without user and password, and these."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        raise BadInput(f"must be a URL: {error}.", field="urls", cure="Write http://HOST:PORT.") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise BadInput("must be the URL of a worker.", field="urls", cure="Write http://HOST:PORT.")
    login = (parsed.username, parsed.password) if parsed.userinfo else None
    return str(parsed.copy_with(username=None, password=None)).rstrip("/"), login
