"""Headless Chromium, driven by its own DevTools protocol: open, read, take a picture."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from websockets.sync.client import ClientConnection, connect

WIDTH, HEIGHT = 1440, 1000
# A page of Dagster on a loaded machine.
PATIENCE = 90.0


def program() -> str | None:
    """Where Chromium is; None where it is not."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


class Page:
    """One tab. What it waits for and does not see is an AssertionError with the page's text."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._number = 0
        self._call("Page.enable")
        size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", **size)

    def open(self, url: str) -> None:
        """Go to the address."""
        self._call("Page.navigate", url=url)

    def text(self) -> str:
        """All that is shown."""
        return str(self.evaluate("document.body ? document.body.innerText : ''"))

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        found = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, holds: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
        """The first true value of the function."""
        end = time.monotonic() + seconds
        while not (found := holds()):
            assert time.monotonic() < end, f"after {seconds:.0f} s not: {what}. The page says:\n{self.text()[:4000]}"
            time.sleep(0.3)
        return found

    def assert_shows(self, *texts: str, seconds: float = PATIENCE) -> None:
        """Until all these texts are shown at once."""
        self.wait(lambda: all(text in self.text() for text in texts), f"shown: {texts}", seconds)

    def picture(self, path: Path) -> None:
        """What is shown now, as a PNG file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"]))

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            answer = json.loads(self._socket.recv(timeout=60))
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer)
                return dict(answer["result"])


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """A new Chromium with one tab; `profile` is a directory that it makes."""
    executable = program()
    assert executable is not None
    process = subprocess.Popen(
        [
            executable,
            "--headless=new",
            *(["--no-sandbox"] if os.geteuid() == 0 else []),
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--remote-debugging-port=0",
            f"--user-data-dir={profile}",
            "about:blank",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        port = _port(profile, process)
        with urlopen(Request(f"http://127.0.0.1:{port}/json/new?about:blank", method="PUT"), timeout=30) as answer:
            address = json.load(answer)["webSocketDebuggerUrl"]
        with connect(address, max_size=None) as socket:
            yield Page(socket)
    finally:
        process.terminate()
        process.wait(timeout=30)


def _port(profile: Path, process: subprocess.Popen[bytes]) -> int:
    file, end = profile / "DevToolsActivePort", time.monotonic() + 60
    while not (file.exists() and file.read_text().splitlines()):
        assert process.poll() is None, "Chromium has ended"
        assert time.monotonic() < end, "Chromium opens no port"
        time.sleep(0.1)
    return int(file.read_text().splitlines()[0])
