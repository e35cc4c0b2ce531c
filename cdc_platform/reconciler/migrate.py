"""Move a connector to another Connect cluster with its offsets; resumable at each step.

No record of the progress is kept: each step is derived from what both clusters
show. The order makes it safe: the source is stopped before the target exists,
and deleted before the target runs, so that never two run.

    source running              -> stop it
    source stopped, no target   -> create the target stopped, copy the offsets
    both stopped                -> copy the offsets if the source still has them
    offsets equal               -> forget the source's offsets, delete the source, resume the target
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from cdc_platform.clients.protocols import Connect, ControlLock
from cdc_platform.errors import ConnectRejected, NotFound, Unavailable
from cdc_platform.plan import MigrateConnector
from cdc_platform.state import ObservedConnector

STOP_LIMIT = 60.0


def migrate(action: MigrateConnector, source: Connect, target: Connect, lock: ControlLock) -> None:
    """Bring the move to its end from wherever an earlier pass left it.

    Raises:
        ConnectRejected: both sides hold different offsets: a person must choose.
        LockLost, Unavailable: the next pass goes on from here.
    """
    name = action.name
    there = _find(target, name)
    if there is not None and there.state != "STOPPED":
        target.stop(name)
        wait_stopped(target, name)
    lock.check()
    source.stop(name)
    wait_stopped(source, name)
    offsets = list(source.offsets(name))
    lock.check()
    if there is None:
        target.create(name, action.config, stopped=True)
        wait_stopped(target, name)
    held = list(target.offsets(name))
    if offsets and held and not _same(offsets, held):
        raise ConnectRejected(
            f"connector {name} has different offsets in {action.source} and in {action.target}.",
            where=f"cluster {action.target}",
            cure=f"Compare GET /connectors/{name}/offsets of both and delete the connector that is wrong.",
        )
    if offsets and not held:
        lock.check()
        target.alter_offsets(name, offsets)
        if not _same(offsets, list(target.offsets(name))):
            raise Unavailable(f"cluster {action.target} does not show the offsets of {name} yet.")
    lock.check()
    source.reset_offsets(name)
    source.delete(name)
    lock.check()
    target.resume(name)


def _find(client: Connect, name: str) -> ObservedConnector | None:
    try:
        return client.connector(name)
    except NotFound:
        return None


def wait_stopped(client: Connect, name: str) -> None:
    """Wait until the connector is STOPPED without tasks.

    Raises:
        Unavailable: it is not within STOP_LIMIT seconds.
        NotFound: there is no such connector.
    """
    end = time.monotonic() + STOP_LIMIT
    while True:
        seen = client.connector(name)
        if seen.state == "STOPPED" and not seen.tasks:
            return
        if time.monotonic() > end:
            raise Unavailable(f"connector {name} did not stop within {STOP_LIMIT:.0f} s.", cure="See its worker's log.")
        time.sleep(0.2)


def _same(left: Sequence[Mapping[str, Any]], right: Sequence[Mapping[str, Any]]) -> bool:
    def key(entry: Mapping[str, Any]) -> str:
        return repr(sorted(entry["partition"].items()))

    return sorted(left, key=key) == sorted(right, key=key)
