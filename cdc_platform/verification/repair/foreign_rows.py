"""Where a topic holds rows of shards that the topology lacks, so that a repair can remove them."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from cdc_platform.canonical.columns import Shape
from cdc_platform.errors import CdcError, NotFound, RepairRefused, SourceRejected
from cdc_platform.model.naming import ShardName
from cdc_platform.model.topology import Topology
from cdc_platform.verification.ports import VerificationPolicy, VerificationPorts
from cdc_platform.verification.proof.change_events import NO_SHARD, partition_offsets
from cdc_platform.verification.proof.topic_fold import TopicFold


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """Rows of one such shard: how many, and partition and offset of the first of them."""

    rows: int
    places: tuple[tuple[int, int], ...]


def find_foreign(
    ports: VerificationPorts, topology: Topology, dataset: str, table: str, shards: Collection[str], *, most: int
) -> dict[str, Foreign]:
    """Of these shards, those that the topic has rows of; `most` places in all.

    Raises:
        RepairRefused: the topology has the shard, or its connector still is there.
        SourceUnavailable, SourceRejected: no shard's table can be read, and the fold needs its shape.
        KafkaUnavailable, KafkaRejected, CacheHeld, Unavailable.
    """
    known = topology.dataset(dataset)
    for shard in shards:
        _check_gone(ports, topology, dataset, shard)
    settings, topic = ports.platform.settings, known.topic(known.table(table))
    batch = VerificationPolicy.of(known).slab_rows
    found: dict[str, Foreign] = {}
    with closing(ports.records(topic)) as records:
        fold = TopicFold(
            Path(settings.cache_dir), settings.platform, topic, _any_shape(ports, topology, dataset, table), records
        )
        fold.extend(records.bounds(), {}, lambda done, total: None)
        for shard in sorted(shards):
            rows, places = 0, list[tuple[int, int]]()
            for live in fold.live(shard, batch):
                rows += len(live)
                places += partition_offsets(live[: most - len(places)])
            most -= len(places)
            if rows:
                found[shard] = Foreign(rows=rows, places=tuple(places))
    return found


def table_shape(ports: VerificationPorts, topology: Topology, dataset: str, table: str, shard: str) -> Shape:
    """The shape of a shard's table. Raises SourceUnavailable, SourceRejected."""
    known, found = topology.dataset(dataset), topology.shard(dataset, shard)
    with closing(ports.source(known, found, known.table(table))) as source:
        shape = source.inspect().shape
    if shape is None:
        raise SourceRejected(
            "its table cannot be read as the proof reads it.", where=found.name, cure="`cdc-platform verify` says why."
        )
    return shape


def _any_shape(ports: VerificationPorts, topology: Topology, dataset: str, table: str) -> Shape:
    shards = topology.shards.get(dataset, ())
    error: CdcError = SourceRejected(
        "the dataset has no shard whose table could be read.", where=dataset, cure="Add one, or delete the topic."
    )
    for shard in itertools.islice(shards, 20):
        try:
            return table_shape(ports, topology, dataset, table, shard.id)
        except CdcError as found:
            error = found
    raise error


def _check_gone(ports: VerificationPorts, topology: Topology, dataset: str, shard: str) -> None:
    """Its rows would come back, or be removed while they are written."""
    if shard == NO_SHARD:
        return
    name = str(ShardName(dataset, shard))
    for cluster in topology.dataset(dataset).clusters:
        if cluster not in topology.clusters:
            continue
        try:
            ports.platform.connect(topology.clusters[cluster]).offsets(name)
        except NotFound:
            continue
        raise RepairRefused(
            "the topology does not have the shard, but its connector is still there.",
            where=f"{cluster}/{name}",
            cure="Have it deleted by `cdc-platform apply` first.",
        )
