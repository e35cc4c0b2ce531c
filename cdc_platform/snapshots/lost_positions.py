"""Shards that cannot go on from their saved position, found by their tasks' failures. Pure.

They are repaired by one command: reset in mode incremental. Changes of the time in between are lost; the rows as
they are now come by the snapshot; rows deleted in between are left in the topic, and the watermark says between which
positions.
"""

from __future__ import annotations

from dataclasses import replace

from cdc_platform.model.observed import ObservedConnector, ObservedState
from cdc_platform.model.topology import BootstrapMode
from cdc_platform.planning.health.failures import Failure, classify
from cdc_platform.snapshots.request import Request, RunKind, bad_request

# Restarts do not help against these: the position is gone, or what follows it cannot be read.
LOST = frozenset(
    {
        Failure.LOG_PURGED,
        Failure.SLOT_MISSING,
        Failure.SCHEMA_HISTORY,
        Failure.DDL_UNPARSED,
        Failure.SCHEMA_MISMATCH,
        Failure.COLUMN_UNREADABLE,
    }
)


def lost_shards(observed: ObservedState, dataset: str) -> dict[str, Failure]:
    """Shard id to what has happened, for the shards of a dataset that cannot go on from where they were."""
    found: dict[str, Failure] = {}
    for shard in observed.topology.shards.get(dataset, ()):
        trace = failed_trace(observed, shard.name)
        if trace is not None and (failure := classify(trace)) in LOST:
            found[shard.id] = failure
    return found


def failed_trace(observed: ObservedState, name: str) -> str | None:
    """Why the connector of that name has failed; None while it has not, or is nowhere."""
    for cluster in observed.clusters.values():
        connector = (cluster.connectors or {}).get(name)
        if connector is not None and (trace := _trace(connector)) is not None:
            return trace
    return None


def for_lost_shards(observed: ObservedState, request: Request) -> Request:
    """The request for just the lost shards of its dataset.

    Raises:
        BadInput: there is none, or the request names shards itself.
    """
    if request.kind is not RunKind.BOOTSTRAP or request.shards or request.failed_of or request.positions:
        raise bad_request(
            "lost", "takes the shards that are lost, and no others.", "Leave out shards, failed_of and positions."
        )
    lost = lost_shards(observed, request.dataset)
    if not lost:
        raise bad_request(
            "lost",
            f"no shard of {request.dataset} has lost its position in the log.",
            "`cdc-platform status` shows what is down, and why.",
        )
    mode = request.mode or BootstrapMode.INCREMENTAL
    return replace(request, shards=tuple(sorted(lost)), again=True, mode=mode)


def _trace(connector: ObservedConnector) -> str | None:
    traces = [task.trace for task in connector.tasks if task.state == "FAILED"]
    if connector.state == "FAILED":
        traces.append(connector.trace)
    return (traces[0] or "") if traces else None
