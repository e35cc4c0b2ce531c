"""Waiting for a service with a deadline, and with the log of one that died."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from cdc_platform.errors import StackError
from cdc_platform.local.control import Control, complaints, tail

STARTED_WITHIN = 90.0
_INTERVAL = 0.1

_log = logging.getLogger(__name__)

# None when the service answers as it should, else what is still wrong.
Probe = Callable[[], str | None]


def wait_ready(control: Control, name: str, log: str, probe: Probe, timeout: float = STARTED_WITHIN) -> None:
    """Wait until the probe says nothing is wrong.

    Raises:
        StackError: the process ended or the deadline passed; with the log's last lines.
    """
    deadline = time.monotonic() + timeout
    while True:
        found = control.running().get(name)
        if found is None or found.code is not None:
            code = "was not started" if found is None else f"ended with code {found.code}"
            raise _failed(name, log, code)
        problem = probe()
        if problem is None:
            _log.info("%s is ready after %.1f s", name, timeout - (deadline - time.monotonic()))
            return
        if time.monotonic() > deadline:
            raise _failed(name, log, f"was not ready within {timeout:.0f} s: {problem}")
        time.sleep(_INTERVAL)


def _failed(name: str, log: str, what: str) -> StackError:
    wrong = complaints(Path(log), 8)
    last = tail(Path(log), 12)
    return StackError(
        f"{name} {what}."
        + (f" Its log complains:\n{wrong}\n" if wrong else "")
        + f" The last lines of its log:\n{last or '(empty)'}\n",
        where=log,
        cure=f"Read the log (`cdc-platform stack logs {name}`), then `cdc-platform stack up` again.",
    )
