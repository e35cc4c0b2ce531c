"""The topology as a snapshot run goes by it: without the tables that sources cannot have captured."""

from __future__ import annotations

from collections.abc import Container
from contextlib import suppress
from dataclasses import replace

from cdc_platform.clients.platform import Platform
from cdc_platform.connectors.tables import captured_tables
from cdc_platform.errors import Unavailable
from cdc_platform.model.topology import Topology
from cdc_platform.planning.health.source_hazards import SourceRecord, refused_tables, with_left_out
from cdc_platform.reconciler.source_round import ask
from cdc_platform.reconciler.state_records import read_memory
from cdc_platform.snapshots.observed_connectors import own_connectors
from cdc_platform.snapshots.run_records import Records


def without_unfit_tables(platform: Platform, records: Records, name: str, ids: Container[str]) -> Topology:
    """The topology as passes see it, by what the sources of this dataset's shards say now.

    Raises:
        ZooKeeperUnavailable: the topology could not be read.
    """
    topology = platform.topology.load()
    known = dict(read_memory(records).of(SourceRecord))
    dataset = topology.datasets.get(name)
    if dataset is None or platform.facts is None:
        return with_left_out(topology, known)
    with suppress(Unavailable):  # a table of which nothing is known is refused when its capture is to begin
        there = own_connectors(platform, topology, topology.clusters)
        own = [shard for shard in topology.shards.get(name, ()) if shard.id in ids]
        facts = ask(platform.facts, platform.settings, ((dataset, shard) for shard in own)).facts
        for shard in own:
            if shard.name in facts:
                config = there[shard.name][1].config if shard.name in there else None
                left_out = refused_tables(facts[shard.name], captured_tables(dataset, shard, config))
                known[shard.name] = replace(known.get(shard.name, SourceRecord()), left_out=left_out)
    return with_left_out(topology, known)
