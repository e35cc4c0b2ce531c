"""Shards as dynamic partitions: one axis a dataset, kept equal to the topology."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import dagster as dg

from cdc_platform.defs.translator import shards_partition
from cdc_platform.model.topology import Topology

# A delete costs Dagster 4 to 10 ms a key, an add of 10,000 keys half a second.
MOST_DELETES = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionDiff:
    """What one axis lacks and what it has too much, in order."""

    axis: str
    add: tuple[str, ...]
    delete: tuple[str, ...]


def diff_partitions(
    topology: Topology,
    *,
    platform: str,
    known: Mapping[str, Iterable[str]],
    may_delete: bool,
    most_deletes: int = MOST_DELETES,
) -> tuple[PartitionDiff, ...]:
    """Compare the axes with the topology. Pure.

    Args:
        topology: what should be there. A dataset that could not be read is left alone,
            and so is a shard.
        platform: its name.
        known: dataset to the partition keys that Dagster has now.
        may_delete: False while the observed state is not whole.
        most_deletes: deletes beyond this number wait for the next tick.
    """
    off = {problem.name for problem in topology.problems}
    left = most_deletes if may_delete else 0
    found: list[PartitionDiff] = []
    for dataset in sorted({*topology.datasets, *known}):
        if dataset in off:
            continue
        desired = [shard.id for shard in topology.shards.get(dataset, ())]
        have = set(known.get(dataset, ()))
        gone = sorted(key for key in have - set(desired) if f"{dataset}.{key}" not in off)[:left]
        left -= len(gone)
        add = tuple(key for key in desired if key not in have)
        if add or gone:
            found.append(PartitionDiff(axis=shards_partition(platform, dataset), add=add, delete=tuple(gone)))
    return tuple(found)


def sync_partitions(
    instance: dg.DagsterInstance,
    topology: Topology,
    *,
    platform: str,
    datasets: Iterable[str] = (),
    may_delete: bool,
) -> str | None:
    """Make the axes equal to the topology, in bulk; what changed, in one sentence.

    `datasets` names further datasets whose axis may have keys, such as those of the
    loaded assets: Dagster does not say which axes it has.
    """
    names = {*topology.datasets, *datasets}
    known = {name: instance.get_dynamic_partitions(shards_partition(platform, name)) for name in sorted(names)}
    changes = diff_partitions(topology, platform=platform, known=known, may_delete=may_delete)
    for change in changes:
        if change.add:
            instance.add_dynamic_partitions(change.axis, list(change.add))
        for key in change.delete:
            instance.delete_dynamic_partition(change.axis, key)
    if not changes:
        return None
    return (
        "Partitions: "
        + ", ".join(f"{change.axis} +{len(change.add)} -{len(change.delete)}" for change in changes)
        + "."
    )
