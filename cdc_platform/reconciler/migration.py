"""Migrate a connector to another Connect cluster with its offsets; resumable at each step.

No record of the progress is kept: each step is derived from what both clusters
show. The order makes it safe: the source is stopped before the target exists,
and deleted before the target runs, so that never two run.

    source running              -> stop it
    source stopped, no target   -> create the target stopped, copy the offsets
    both stopped                -> copy the offsets if the source still has them
    offsets equal               -> reset the source's offsets, delete the source, resume the target
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from cdc_platform.clients.connect.stopping import wait_until_stopped
from cdc_platform.clients.protocols import Connect
from cdc_platform.errors import ConnectRejected, LockLost, NotFound, Unavailable
from cdc_platform.model.observed import ObservedConnector
from cdc_platform.planning.actions import MigrateConnector
from cdc_platform.reconciler.lock_watch import LockWatch

STOP_LIMIT = 60.0
SHOW_LIMIT = 20.0
_POLL_SECONDS = 0.2


def migrate(action: MigrateConnector, source: Connect, target: Connect, watch: LockWatch) -> None:
    """Bring the migration to its end from wherever an earlier pass left it.

    Raises:
        ConnectRejected: both sides have different offsets: an operator must choose.
        LockLost, Unavailable: the next pass goes on from here.
    """
    name = action.name
    known = _find(target, name)
    if known is not None and known.state != "STOPPED":
        target.stop(name)
        wait_stopped(target, name, watch)
    source.stop(name)
    wait_stopped(source, name, watch)
    offsets = list(source.offsets(name))
    if known is None:
        target.create(name, action.config, stopped=True)
        wait_stopped(target, name, watch)
    copied = list(target.offsets(name))
    if offsets and copied and not _same(offsets, copied):
        raise ConnectRejected(
            f"connector {name} has different offsets in {action.source} and in {action.target}.",
            where=f"cluster {action.target}",
            cure=f"Compare GET /connectors/{name}/offsets of both and delete the connector that is wrong.",
        )
    if offsets and not copied:
        target.alter_offsets(name, offsets)
        _wait_offsets(target, name, offsets, watch)
    source.reset_offsets(name)
    source.delete(name)
    target.resume(name)


def stop_and_resume(name: str, client: Connect, watch: LockWatch) -> None:
    """Stop a connector on all workers of its group, and resume it on one.

    Killed in between, the next pass finds it STOPPED and resumes it.

    Raises:
        LockLost, Unavailable, NotFound.
    """
    client.stop(name)
    try:
        wait_stopped(client, name, watch)
    except LockLost:
        raise
    except Unavailable:
        client.resume(name)  # better a task that runs twice than a shard that is down
        raise
    client.resume(name)


def wait_stopped(client: Connect, name: str, watch: LockWatch) -> None:
    """Wait until the connector is STOPPED without tasks.

    Raises:
        Unavailable: it is not within STOP_LIMIT seconds.
        NotFound: there is no such connector.
        LockLost: the lock went meanwhile.
    """
    wait_until_stopped(client, name, timeout=STOP_LIMIT, sleep=watch.sleep)


def _wait_offsets(client: Connect, name: str, offsets: Sequence[Mapping[str, Any]], watch: LockWatch) -> None:
    """Wait until the cluster shows these offsets: a worker may read its offsets topic a moment late."""
    end = time.monotonic() + SHOW_LIMIT
    while not _same(offsets, list(client.offsets(name))):
        if time.monotonic() > end:
            raise Unavailable(f"the offsets of connector {name} do not show within {SHOW_LIMIT:.0f} s.")
        watch.sleep(_POLL_SECONDS)


def _find(client: Connect, name: str) -> ObservedConnector | None:
    try:
        return client.connector(name)
    except NotFound:
        return None


def _same(left: Sequence[Mapping[str, Any]], right: Sequence[Mapping[str, Any]]) -> bool:
    def key(entry: Mapping[str, Any]) -> str:
        return repr(sorted(entry["partition"].items()))

    return sorted(left, key=key) == sorted(right, key=key)
