"""Between the control plane and a real Connect worker: answers that a test spoils, one by one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What becomes of one request.

    `forward`: the worker gets it and does it. `status`: what is answered, with `body`, in place of its
    answer; None: its own. `keep`: so many bytes of the body are sent, then the wire breaks. `silent`: nothing is.
    """

    forward: bool = False
    status: int | None = None
    body: bytes | None = None
    keep: int | None = None
    silent: bool = False


REBALANCE = Fault(
    status=409,
    body=b'{"error_code":409,"message":"Cannot complete request momentarily due to stale configuration '
    b'(typically caused by a concurrent config change)"}',
)
# What a proxy before a worker that is starting answers; not Connect's own words.
BROKEN = Fault(status=500, body=b"<html>Internal Server Error</html>")
DONE_AND_SILENT = Fault(forward=True, silent=True)
DONE_AND_CUT = Fault(forward=True, keep=10)


@dataclass
class FaultyRest:
    """`url` is to be named in the topology in place of the worker's; `spoil` says what happens to a request."""

    target: str
    spoil: Callable[[str, str], Fault | None] = lambda method, path: None
    url: str = ""
    changes: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def first(self, number: int, fault: Fault, *methods: str) -> None:
        """Spoil the first so many requests of these methods."""
        left = [number]
        lock = threading.Lock()

        def spoil(method: str, path: str) -> Fault | None:
            with lock:
                if method not in methods or left[0] == 0:
                    return None
                left[0] -= 1
                return fault

        self.spoil = spoil


@contextmanager
def faulty_rest(target: str, client: httpx.Client) -> Iterator[FaultyRest]:
    """In front of `target`; forwards by that client."""
    rest = FaultyRest(target)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            fault = rest.spoil(self.command, self.path)
            if self.command != "GET":
                rest.changes.append(f"{self.command} {self.path}")
            if fault is None or fault.forward or fault.status is None:
                headers = {"content-type": "application/json"} if body else {}
                answer = client.request(self.command, target + self.path, content=body, headers=headers)
                status, content = answer.status_code, answer.content
            if fault is not None and fault.silent:
                rest.over.wait(60)
                self.close_connection = True
                return
            if fault is not None and fault.status is not None:
                status, content = fault.status, fault.body or b""
            elif fault is not None and fault.body is not None:
                content = fault.body
            self.send_response(status)
            if content:
                self.send_header("Content-Type", "application/json")
            if status != 204:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if fault is not None and fault.keep is not None:
                self.wfile.write(content[: fault.keep])
                self.close_connection = True
                return
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

        def log_message(self, format: str, *args: object) -> None:
            """Not to stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    rest.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield rest
    finally:
        rest.over.set()
        server.shutdown()
        server.server_close()
