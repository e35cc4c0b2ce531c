"""What each kind of action does to Kafka and Connect: the one table of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cdc_platform.clients.platform import Platform
from cdc_platform.clients.protocols import Connect
from cdc_platform.connectors.identity import Identity, identity
from cdc_platform.connectors.tables import INCLUDE_LIST, MESSAGE_KEYS
from cdc_platform.errors import NotFound
from cdc_platform.model.naming import ShardName
from cdc_platform.model.topology import Dataset, Shard, Topology
from cdc_platform.planning import actions
from cdc_platform.reconciler.lock_watch import LockWatch
from cdc_platform.reconciler.migration import migrate, stop_and_resume, wait_stopped

# Options whose change may bring a table, or a key, that must not be published.
_PUBLISHED = frozenset({INCLUDE_LIST, MESSAGE_KEYS, "publish.via.partition.root", "publication.autocreate.mode"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyPorts:
    """What actions are applied with: `connect` holds a client under the lock for each cluster of the plan."""

    platform: Platform
    topology: Topology
    watch: LockWatch
    connect: Mapping[str, Connect]


def _create_topic(ports: ApplyPorts, action: actions.CreateTopic) -> None:
    for error in ports.platform.kafka.create_topics([action.topic]).values():
        raise error


def _alter_topic(ports: ApplyPorts, action: actions.AlterTopic) -> None:
    changes = {key: desired for key, (_, desired) in action.changes.items()}
    ports.platform.kafka.alter_topic_config(action.topic, changes)


def _update(ports: ApplyPorts, action: actions.UpdateConnector) -> None:
    if not _PUBLISHED.isdisjoint(action.changes):
        _publish(ports, ShardName.parse(action.name))
    ports.connect[action.cluster].update(action.name, action.config)


def _create(ports: ApplyPorts, action: actions.CreateConnector) -> None:
    """Not over a table that must not be published: the connector makes the publication at its first start."""
    _publish(ports, ShardName.parse(action.name))
    ports.connect[action.cluster].create(action.name, action.config)


def _publish(ports: ApplyPorts, name: ShardName) -> None:
    """A shard whose tables or keys change: its publication goes first, or its task would fail (SourceLogs)."""
    if ports.platform.sources is not None and (found := _shard(ports, name)) is not None:
        ports.platform.sources.publish(*found)


def _shard(ports: ApplyPorts, name: ShardName) -> tuple[Dataset, Shard, Identity] | None:
    dataset = ports.topology.datasets.get(name.dataset)
    for shard in ports.topology.shards.get(name.dataset, ()) if dataset else ():
        if dataset is not None and shard.id == name.shard:
            return dataset, shard, identity(ports.platform.settings, dataset, shard)
    return None


def _give_up(ports: ApplyPorts, action: actions.GiveUpSlot) -> None:
    """The task first: a slot in use cannot be dropped. The next pass resumes the connector, whose slot is gone."""
    client = ports.connect[action.cluster]
    client.stop(action.name)
    wait_stopped(client, action.name, ports.watch)
    if ports.platform.sources is not None and (found := _shard(ports, ShardName.parse(action.name))) is not None:
        ports.platform.sources.drop_slot(*found)


def _restart(ports: ApplyPorts, action: actions.RestartConnector) -> None:
    client = ports.connect[action.cluster]
    if not action.unwell:
        client.restart_failed(action.name)
        return
    try:
        client.restart_task(action.name, 0)
    except NotFound:
        stop_and_resume(action.name, client, ports.watch)  # it has no task: a resume makes one


def _delete(ports: ApplyPorts, action: actions.DeleteConnector) -> None:
    """Stop, reset the offsets (else a re-created name resumes at a stale position), delete, clean up."""
    client = ports.connect[action.cluster]
    try:
        client.stop(action.name)
        wait_stopped(client, action.name, ports.watch)
        client.reset_offsets(action.name)
    except NotFound:
        pass  # gone already: only what it left behind remains to be removed
    client.delete(action.name)
    if action.left_topics:
        ports.watch.check()
        ports.platform.kafka.delete_topics(action.left_topics)


METHODS: dict[type[actions.Action], Callable[[ApplyPorts, Any], None]] = {
    actions.CreateTopic: _create_topic,
    actions.AddPartitions: lambda ports, action: ports.platform.kafka.add_partitions(action.topic, action.total),
    actions.AlterTopic: _alter_topic,
    actions.RestartConnector: _restart,
    actions.ResumeConnector: lambda ports, action: ports.connect[action.cluster].resume(action.name),
    actions.CreateConnector: _create,
    actions.PublishTables: lambda ports, action: _publish(ports, ShardName.parse(action.name)),
    actions.GiveUpSlot: _give_up,
    actions.UpdateConnector: _update,
    actions.StopAndResumeConnector: lambda ports, action: stop_and_resume(
        action.name, ports.connect[action.cluster], ports.watch
    ),
    actions.MigrateConnector: lambda ports, action: migrate(
        action, ports.connect[action.source], ports.connect[action.target], ports.watch
    ),
    actions.DeleteConnector: _delete,
}
