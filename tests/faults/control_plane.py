"""The control plane of the fault suite: passes in a process of its own, that can be killed and paused.

    python -m tests.faults.control_plane

Passes follow each other after EVERY seconds; in Dagster the sensor's tick of a minute takes that place.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from cdc_platform.clients.platform import Platform
from cdc_platform.errors import CdcError
from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import EMPTY
from cdc_platform.reconciler import run_pass as reconciler
from cdc_platform.settings import CONFIG_ENV, Settings
from cdc_platform.wiring import open_platform

EVERY = 2.0


class ControlPlane:
    """Starts, kills and pauses that process; `log` is what it told."""

    def __init__(self, stack: Stack, log: Path) -> None:
        self._stack = stack
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "the control plane does not run"
        return self._process.pid

    def start(self, more: Mapping[str, str] = EMPTY) -> None:
        """With `more` in its environment."""
        own = {CONFIG_ENV: str(self._stack.settings_file), "PYTHONUNBUFFERED": "1"}
        environment = {**os.environ, **own, **more}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.control_plane"], env=environment, stdout=log, stderr=log
            )

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def stop(self) -> None:
        """End it, if it runs."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self.kill()

    def heal(self) -> None:
        """Have it run."""
        if self._process is None or self._process.poll() is not None:
            self.start()
        else:
            self._process.send_signal(signal.SIGCONT)

    def told(self) -> str:
        return self.log.read_text() if self.log.exists() else ""


def main() -> None:
    """Passes while the suite lives; an error is told and the next pass comes in its turn."""
    parent = os.getppid()
    while os.getppid() == parent:
        try:
            with open_platform(replace(Settings.load(), connect_timeout=30.0)) as platform:
                _passes(platform, parent)
        except CdcError as error:
            print(f"{time.time():.3f} error {type(error).__name__}: {error}")
        time.sleep(EVERY)


def _passes(platform: Platform, parent: int) -> None:
    while os.getppid() == parent:
        report = reconciler.reconcile(platform, owner=f"pid {os.getpid()}", wait_for_lock=5.0, progress=print)
        if report.outcomes:
            print(f"{time.time():.3f} {report.sentence()}")
            for outcome in report.outcomes:
                print(f"  {outcome.sentence()}")
        time.sleep(EVERY)


if __name__ == "__main__":
    main()
