"""A control plane in a process of its own, for tests that kill it.

    python -m tests.control_plane.runner pass [KILL_AFTER]
    python -m tests.control_plane.runner loop

`pass` runs one pass; with KILL_AFTER it kills itself (SIGKILL) right after that many changes
of a Connect cluster. `loop` runs passes for ever, waiting for the lock, and tells each.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cdc_platform.errors import CdcError, LockHeld
from cdc_platform.model.topology import Cluster
from cdc_platform.reconciler import run_pass as reconciler
from cdc_platform.settings import Settings
from cdc_platform.wiring import open_platform

CHANGES = frozenset(
    [
        "create",
        "update",
        "delete",
        "restart_failed",
        "restart_task",
        "pause",
        "resume",
        "stop",
        "alter_offsets",
        "reset_offsets",
    ]
)


class Counted:
    """A Connect client that tells each change once it is done, and dies when it is told to."""

    left = 0

    def __init__(self, client: Any) -> None:
        self._client = client

    def fenced(self, check: Callable[[], None]) -> Counted:
        return Counted(self._client.fenced(check))

    def __getattr__(self, verb: str) -> Any:
        found = getattr(self._client, verb)
        if verb not in CHANGES:
            return found

        def call(name: str, *args: Any, **kwargs: Any) -> Any:
            answer = found(name, *args, **kwargs)
            print(f"{time.time():.3f} call {verb} {name}", flush=True)
            Counted.left -= 1
            if Counted.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        return call


def main(arguments: list[str]) -> None:
    with open_platform(replace(Settings.load(), connect_timeout=30.0)) as plain:
        connect: Callable[[Cluster], Any] = plain.connect
        platform = replace(plain, connect=lambda cluster: Counted(connect(cluster)))
        if arguments[0] == "pass":
            Counted.left = int(arguments[1]) if len(arguments) > 1 else 0
            report = reconciler.reconcile(platform, owner=f"pid {os.getpid()}", wait_for_lock=60.0)
            print(report.sentence(), flush=True)
            return
        while True:
            try:
                report = reconciler.reconcile(platform, owner=f"pid {os.getpid()}", wait_for_lock=1.0)
                print(f"{time.time():.3f} pass {report.generation} {report.sentence()}", flush=True)
            except LockHeld:
                continue
            except CdcError as error:
                print(f"{time.time():.3f} error {type(error).__name__}: {error}", flush=True)
            time.sleep(0.2)


if __name__ == "__main__":
    main(sys.argv[1:])
