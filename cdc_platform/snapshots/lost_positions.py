"""Shards whose place in the source's log is gone, found by their tasks' failures. Pure.

The cure is one command: start them anew in mode incremental. What a stream would have told of the time in
between is lost; the rows as they are now come by the snapshot; rows deleted in between are left in the topic, and the
watermark says between which positions.
"""

from __future__ import annotations

from dataclasses import replace

from cdc_platform.errors import BadInput
from cdc_platform.model.observed import ObservedConnector, ObservedState
from cdc_platform.model.topology import BootstrapMode
from cdc_platform.planning.health.failures import Failure, classify
from cdc_platform.snapshots.request import Request, RunKind

# Restarts do not cure these.
LOST = frozenset({Failure.LOG_PURGED, Failure.SLOT_MISSING, Failure.SCHEMA_HISTORY})


def lost_shards(picture: ObservedState, dataset: str) -> dict[str, Failure]:
    """Shard id to what has happened, for the shards of a dataset that cannot go on where they were."""
    found: dict[str, Failure] = {}
    for shard in picture.topology.shards.get(dataset, ()):
        for cluster in picture.clusters.values():
            seen = (cluster.connectors or {}).get(shard.name)
            failure = _failure(seen) if seen is not None else None
            if failure in LOST:
                found[shard.id] = failure
    return found


def cure(picture: ObservedState, request: Request) -> Request:
    """The request for just the lost shards of its dataset.

    Raises:
        BadInput: there is none, or the request names shards itself.
    """
    if request.kind is not RunKind.BOOTSTRAP or request.shards or request.failed_of or request.positions:
        raise BadInput("takes the shards that are lost, and no others.", where="request", field="lost")
    lost = lost_shards(picture, request.dataset)
    if not lost:
        raise BadInput(
            f"no shard of {request.dataset} has lost its place.",
            where="request",
            field="lost",
            cure="`cdc-platform status` shows what is down, and why.",
        )
    mode = request.mode or BootstrapMode.INCREMENTAL
    return replace(request, shards=tuple(sorted(lost)), again=True, mode=mode)


def _failure(seen: ObservedConnector) -> Failure | None:
    traces = [task.trace for task in seen.tasks if task.state == "FAILED"]
    if seen.state == "FAILED":
        traces.append(seen.trace)
    return classify(traces[0]) if traces else None
