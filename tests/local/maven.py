"""A tiny Maven repository on loopback, and locks for what it serves."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cdc_platform.local.artifacts import Artifact

GROUP = "org.example"


class Repository:
    """What it serves, by file name, and what was asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        # How many bytes of a file are sent before the connection is cut, for its next requests.
        self.cuts: dict[str, list[int]] = {}
        self.url = ""

    def add(self, artifact: str, content: bytes, *, classifier: str = "", extension: str = "jar") -> Artifact:
        """Serve a file; its entry for a lock."""
        entry = Artifact(
            group=GROUP,
            artifact=artifact,
            version="1.0",
            classifier=classifier,
            extension=extension,
            sha256=hashlib.sha256(content).hexdigest(),
            size=len(content),
        )
        self.files[entry.filename] = content
        return entry


@contextmanager
def serving(home: Path) -> Iterator[Repository]:
    """Serve a repository, named as the mirror of Maven's central one in the settings below `home`."""
    repository = Repository()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rsplit("/", 1)[1]
            repository.requests.append(name)
            content = repository.files.get(name)
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            cuts = repository.cuts.get(name)
            self.wfile.write(content[: cuts.pop(0)] if cuts else content)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    repository.url = f"http://127.0.0.1:{server.server_address[1]}/maven"
    (home / ".m2").mkdir(parents=True)
    (home / ".m2" / "settings.xml").write_text(
        '<settings xmlns="http://maven.apache.org/SETTINGS/1.0.0"><mirrors><mirror><id>here</id>'
        f"<mirrorOf>central</mirrorOf><url>{repository.url}</url></mirror></mirrors></settings>"
    )
    try:
        yield repository
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
