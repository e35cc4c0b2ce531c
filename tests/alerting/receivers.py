"""Real receivers on loopback: HTTP and SMTP, that keep what they got."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast


class HttpReceiver(ThreadingHTTPServer):
    """Takes webhooks. `refuse` answers that many requests with 503 first; `hang` takes them and says nothing.

    `answer` is the body of what it answers, `paths` are those that were posted to.
    """

    daemon_threads = True

    def __init__(self) -> None:
        self.hang = threading.Event()
        self.go_on = threading.Event()
        self.got: list[dict[str, Any]] = []
        self.pings: list[str] = []
        self.paths: list[str] = []
        self.answer = b""
        self.refuse = 0
        super().__init__(("127.0.0.1", 0), _Http)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    @property
    def titles(self) -> list[str]:
        return [message["title"] for message in self.got]


class _Http(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = cast(HttpReceiver, self.server)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if server.hang.is_set():
            server.go_on.wait(60)
            return
        if server.refuse:
            server.refuse -= 1
            self._answer(503)
            return
        server.got.append(json.loads(body))
        server.paths.append(self.path)
        self._answer(200, server.answer)

    def do_GET(self) -> None:
        cast(HttpReceiver, self.server).pings.append(self.path)
        self._answer(200)

    def _answer(self, code: int, body: bytes = b"") -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


class SmtpReceiver(socketserver.ThreadingTCPServer):
    """Takes mail: the commands of RFC 5321 that a sender needs. `refuse` names a command that it refuses."""

    daemon_threads = True

    def __init__(self) -> None:
        self.refuse = ""
        self.got: list[Any] = []
        self.recipients: list[str] = []
        super().__init__(("127.0.0.1", 0), _Smtp)

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Smtp(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        server = cast(SmtpReceiver, self.server)
        self._say("220 receiver")
        while line := self.rfile.readline().decode().strip():
            verb = line[:4].upper()
            if verb == server.refuse:
                self._say("550 not here")
            elif verb == "DATA":
                self._say("354 go on")
                lines = []
                while (row := self.rfile.readline()) != b".\r\n":
                    lines.append(row[1:] if row.startswith(b"..") else row)
                server.got.append(message_from_bytes(b"".join(lines), policy=policy.default))
                self._say("250 taken")
            elif verb == "QUIT":
                self._say("221 bye")
                return
            else:
                if verb == "RCPT":
                    server.recipients.append(line.partition(":")[2].strip("<> "))
                self._say("250 receiver")

    def _say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


@contextmanager
def served(server: Any) -> Iterator[Any]:
    """Runs a receiver in a thread."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
