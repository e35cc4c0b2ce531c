"""The committed places of some connectors, asked of Connect: a bounded number of them, in bounded time."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, wait

from cdc_platform.clients.platform import Platform
from cdc_platform.errors import CdcError
from cdc_platform.model.observed import ObservedState
from cdc_platform.model.positions import Committed
from cdc_platform.model.topology import Engine

log = logging.getLogger(__name__)

_THREADS = 16
SECONDS = 10.0


def committed_places(
    platform: Platform, observed: ObservedState, wanted: Iterable[tuple[str, Engine]], *, seconds: float = SECONDS
) -> dict[str, Committed]:
    """Shard to where its connector is, of those that Connect tells within the seconds; `wanted` with their engines."""
    homes = {name: cluster.name for cluster in observed.clusters.values() for name in cluster.connectors or ()}
    clients = {name: platform.connect(cluster) for name, cluster in observed.topology.clusters.items()}
    pool = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="offsets")
    try:
        asked = {
            pool.submit(clients[homes[name]].offsets, name): (name, engine)
            for name, engine in wanted
            if homes.get(name) in clients
        }
        found = {}
        for future in wait(asked, timeout=seconds).done:
            name, engine = asked[future]
            try:
                offsets = future.result()
            except CdcError as error:
                log.warning("the place of %s is not known: %s", name, error)
                continue
            found[name] = Committed.answered(engine, offsets)
        return found
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
