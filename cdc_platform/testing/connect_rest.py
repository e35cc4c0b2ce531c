"""A `ConnectModel` behind HTTP, speaking Kafka Connect's REST API, with faults on order.

For tests of what goes wrong on the way, and for benchmarks with thousands of
connectors. One server is one worker; several may share a model.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from cdc_platform.testing.connect_model import PAUSED, RUNNING, STOPPED, ConnectModel
from cdc_platform.testing.connect_validation import RestRefusal


class FaultKind(Enum):
    """What goes wrong with a request."""

    ANSWER = "answer with `status` and `message` instead of doing it"
    DELAY = "wait `seconds`, then do it"
    CUT = "do it, then break the connection half-way through the answer"
    HALVE = "do it, then answer with half of the JSON as if it were all"
    SILENCE = "do it, then never answer"
    DROP = "break the connection without doing it"
    GARBAGE = "answer 200 with something that is no JSON"


@dataclass(kw_only=True)
class Fault:
    """A fault for the next `times` requests whose method and path match (regular expressions)."""

    kind: FaultKind
    method: str = ".*"
    path: str = ".*"
    times: int = 1
    status: int = 500
    message: str = "injected"
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    body: bytes


@dataclass
class FakeConnectServer:
    """One worker of a fake Connect group on a free loopback port; a context manager.

    `requests` lists what came in: (method, path with query).
    """

    model: ConnectModel
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    port: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._cache: tuple[int, dict[str, bytes]] = (-1, {})
        self._stopped = threading.Event()
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> FakeConnectServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The worker's REST URL."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen; on the same port again after a `stop`."""
        worker = self

        class Handler(_Handler):
            owner = worker

        self._stopped.clear()
        self._server = _Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening: connections are refused from now on, open ones are broken."""
        self._stopped.set()
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server.break_connections()
            self._server = self._thread = None

    def add(self, kind: FaultKind, **more: Any) -> Fault:
        """Order a fault."""
        fault = Fault(kind=kind, **more)
        self.faults.append(fault)
        return fault

    def handle(self, method: str, target: str, body: bytes) -> tuple[_Reply | None, Fault | None]:
        """The answer to one request and the fault that hits it; None: break the connection."""
        with self._lock:
            self.requests.append((method, target))
            fault = self._fault(method, target)
        if fault is not None:
            if fault.kind is FaultKind.ANSWER:
                return _error(fault.status, fault.message), fault
            if fault.kind is FaultKind.DROP:
                return None, fault
            if fault.kind is FaultKind.GARBAGE:
                return _Reply(200, b"<html>Welcome</html>"), fault
            if fault.kind is FaultKind.DELAY:
                self._stopped.wait(fault.seconds)
        try:
            reply = self._route(method, target, body)
        except RestRefusal as refusal:
            reply = _error(refusal.status, refusal.message)
        if fault is not None and fault.kind is FaultKind.SILENCE:
            self._stopped.wait(60.0)
            return None, fault
        return reply, fault

    def _fault(self, method: str, target: str) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and re.fullmatch(fault.method, method) and re.search(fault.path, target):
                fault.times -= 1
                return fault
        return None

    def _route(self, method: str, target: str, body: bytes) -> _Reply:
        parts = urlsplit(target)
        path = [unquote(piece) for piece in parts.path.strip("/").split("/") if piece]
        match method, path:
            case "GET", []:
                return _ok(self.model.server())
            case "GET", ["health"]:
                return _ok({"status": "healthy", "message": "Worker has completed startup."})
            case "GET", ["connector-plugins"]:
                return _ok(self.model.plugins())
            case "GET", ["connectors"]:
                return self._list(parse_qs(parts.query).get("expand", []))
            case "POST", ["connectors"]:
                asked = _read(body)
                made = self.model.create(asked["name"], asked["config"], asked.get("initial_state"))
                return _ok(made, 201)
            case _, ["connectors", name, *rest]:
                return self._one(method, name, rest, body)
        raise RestRefusal(404, "HTTP 404 Not Found")

    def _one(self, method: str, name: str, rest: list[str], body: bytes) -> _Reply:
        model = self.model
        match method, rest:
            case "GET", []:
                return _ok(model.info(name))
            case "DELETE", []:
                model.delete(name)
                return _Reply(204, b"")
            case "GET", ["status"]:
                return _ok(model.status(name))
            case "GET", ["config"]:
                return _ok(model.info(name)["config"])
            case "PUT", ["config"]:
                created, info = model.put_config(name, _read(body))
                return _ok(info, 201 if created else 200)
            case "PUT", ["pause" | "resume" | "stop" as verb]:
                model.set_target(name, {"pause": PAUSED, "resume": RUNNING, "stop": STOPPED}[verb])
                return _Reply(204 if verb == "stop" else 202, b"")
            case "POST", ["restart"]:
                return _ok(model.restart_failed(name), 202)
            case "POST", ["tasks", task, "restart"]:
                model.restart_task(name, int(task))
                return _Reply(204, b"")
            case "GET", ["offsets"]:
                return _ok(model.offsets(name))
            case "PATCH", ["offsets"]:
                return _ok(model.alter_offsets(name, _read(body).get("offsets") or []))
            case "DELETE", ["offsets"]:
                return _ok(model.reset_offsets(name))
        raise RestRefusal(404, "HTTP 404 Not Found")

    def _list(self, expand: list[str]) -> _Reply:
        """Encoded once a change: a benchmark measures its client, not this."""
        key = ",".join(sorted(expand))
        self.model.names()
        version = self.model.version
        with self._lock:
            at, cached = self._cache
            if at != version:
                cached = {}
                self._cache = (version, cached)
            found = cached.get(key)
        if found is None:
            found = msgspec.json.encode(self.model.expanded(expand) if expand else self.model.names())
            cached[key] = found
        return _Reply(200, found)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._open: set[Any] = set()
        self._open_lock = threading.Lock()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._open_lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def break_connections(self) -> None:
        with self._open_lock:
            still_open = list(self._open)
        for request in still_open:
            self.shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what many tests are about."""


class _Handler(BaseHTTPRequestHandler):
    owner: FakeConnectServer
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        reply, fault = self.owner.handle(self.command, self.path, body)
        if reply is None:
            self.close_connection = True
            return
        kind = fault.kind if fault is not None else None
        sent = reply.body
        if kind in (FaultKind.CUT, FaultKind.HALVE):
            sent = sent[: len(sent) // 2]
        self.send_response(reply.status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(reply.body if kind is FaultKind.CUT else sent)))
        self.end_headers()
        self.wfile.write(sent)
        self.wfile.flush()
        if kind is FaultKind.CUT:
            self.close_connection = True

    do_GET: Callable[[_Handler], None] = _serve
    do_PUT = do_POST = do_PATCH = do_DELETE = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Not to stderr."""


def _ok(document: Any, status: int = 200) -> _Reply:
    return _Reply(status, msgspec.json.encode(document))


def _error(status: int, message: str) -> _Reply:
    return _ok({"error_code": status, "message": message}, status)


def _read(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        raise RestRefusal(500, f"Unexpected character: {error}") from None
