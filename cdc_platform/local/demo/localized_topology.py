"""The example topology on a local stack."""

from __future__ import annotations

from dataclasses import replace

from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import Engine, Topology


def localized(topology: Topology, stack: Stack, binlog: Engine = Engine.MARIADB) -> Topology:
    """The example topology with this stack's addresses, secrets and Connect cluster in home of its own.

    `binlog` has the datasets that are MariaDB's in the example.
    """
    cluster = stack.cluster()
    datasets, shards = {}, {}
    for name, dataset in topology.datasets.items():
        engine = binlog if dataset.engine.reads_binlog else dataset.engine
        leader, replica = stack.primary(engine), stack.replica(engine)
        credentials = stack.credentials(engine, name)
        datasets[name] = replace(dataset, engine=engine, credentials=credentials, clusters=(cluster.name,))
        shards[name] = tuple(
            replace(shard, leader=leader, replicas=(replica,)) for shard in topology.shards.get(name, ())
        )
    return replace(topology, datasets=datasets, shards=shards, clusters={cluster.name: cluster})
