"""Waiting for a connector that was asked to stop."""

from __future__ import annotations

import time
from collections.abc import Callable

from cdc_platform.clients.protocols import Connect
from cdc_platform.errors import NotFound, Unavailable


def wait_until_stopped(
    connect: Connect,
    name: str,
    *,
    timeout: float,
    sleep: Callable[[float], object] = time.sleep,
    pause: float = 0.2,
    just_created: bool = False,
) -> None:
    """Wait until the connector is STOPPED and has no task.

    Args:
        timeout: seconds.
        sleep: waits between two looks; what it raises ends the wait.
        pause: seconds between two looks.
        just_created: a connector that is not shown yet is waited for.

    Raises:
        Unavailable: it has not stopped in time.
        NotFound: there is no such connector.
    """
    end = time.monotonic() + timeout
    while True:
        try:
            seen = connect.connector(name)
            if seen.state == "STOPPED" and not seen.tasks:
                return
        except NotFound:
            if not just_created or time.monotonic() > end:
                raise
        if time.monotonic() > end:
            raise Unavailable(f"connector {name} did not stop within {timeout:.0f} s.", cure="See its worker's log.")
        sleep(pause)
