"""Watermarks end where capturing ends: what comes back later has missed what changed meanwhile. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from cdc_platform.connectors.tables import INCLUDE_LIST, no_longer_captured
from cdc_platform.model.topology import Topology
from cdc_platform.planning.actions import Action, DeleteConnector, UpdateConnector
from cdc_platform.planning.holds import WATERMARK
from cdc_platform.reconciler.state_records import DocumentChanges, Documents


def ended_watermarks(actions: Iterable[Action], topology: Topology, documents: Documents) -> DocumentChanges:
    """Deletes the watermarks of what these actions stop to capture.

    Written before the actions are applied: one that fails costs a needless bootstrap, never a hole.
    """
    deleted: set[str] = set()
    dropped: dict[str, frozenset[str]] = {}
    for action in actions:
        if isinstance(action, DeleteConnector):
            deleted.add(action.name)
        elif isinstance(action, UpdateConnector) and INCLUDE_LIST in action.changes:
            before, after = action.changes[INCLUDE_LIST]
            dropped[action.name] = no_longer_captured(before or "", after or "")
    if deleted:
        # A second connector of a shard that stays is no end of it.
        deleted -= {shard.name for _, shard in topology.all_shards()}
    if not deleted and not any(dropped.values()):
        return {}
    ended: DocumentChanges = {}
    for key in documents:
        if key.startswith(WATERMARK):
            dataset, table, shard = key.removeprefix(WATERMARK).split("/")
            name = f"{dataset}.{shard}"
            if name in deleted or table in dropped.get(name, ()):
                ended[key] = None
    return ended
