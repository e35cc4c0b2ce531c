"""What other systems hold: ZooKeeper's paths and documents, Kafka's names, files beside workers, the audit frame."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from cdc_platform.agent.journal import Journal, Remembered
from cdc_platform.clients.kafka.state_reader import VERSION, VERSION_FIELD, WRITER_KEY
from cdc_platform.connectors import identity, leader_files, routing
from cdc_platform.documents import Layout, dump_yaml
from cdc_platform.documents.topology_fields import encode_cluster, encode_dataset, encode_pause, encode_shard
from cdc_platform.documents.znodes import generation_floor
from cdc_platform.model.agent_report import AgentReport
from cdc_platform.model.observed import CLUSTER_KEY, OWNER_KEY
from cdc_platform.settings import Settings
from cdc_platform.verification import verdict_tables as frames
from cdc_platform.verification.audit_frame import AuditFrame
from cdc_platform.verification.proof.verdicts import ShardVerdict
from cdc_platform.verification.repair.reemit import REPAIR_HEADER
from tests.defs.harness import topology
from tests.surface.json_output import whole_topology
from tests.surface.samples import sample


def zookeeper() -> dict[str, Any]:
    """Path to document, with every field filled, below the default root."""
    layout, found = Layout(Settings().zookeeper_root), whole_topology()
    assert found.pause is not None
    floor = generation_floor(None, [("pins", 1)])
    assert floor is not None
    return {
        layout.pause: encode_pause(found.pause),
        layout.lock: "ephemeral contenders below",
        layout.clusters: "",
        layout.cluster("main"): encode_cluster(found.clusters["main"]),
        layout.datasets: json.loads(floor),
        layout.dataset("pins"): encode_dataset(found.datasets["pins"]),
        layout.shards("pins"): "",
        layout.shard("pins", "00000"): encode_shard(found.shards["pins"][0]),
        layout.agents: "",
        layout.agent("w0"): sample(AgentReport).to_document(),
    }


def topology_file() -> str:
    """The file that `topology export` prints."""
    found = whole_topology()
    return dump_yaml(type(found)(clusters=found.clusters, datasets=found.datasets, shards=found.shards))


def kafka() -> dict[str, Any]:
    """Names of topics, groups, headers and of what each shard has at its source, on default settings."""
    settings, found = Settings(), topology()
    names: dict[str, Any] = {
        "state_topic": settings.state_topic,
        "state_topic_version": {VERSION_FIELD: VERSION},
        "state_topic_writer_key": WRITER_KEY,
        "heartbeat_topic": settings.heartbeat_topic,
        "notification_topic": identity.notification_topic(settings),
        "record_key_field_of_the_shard": identity.SHARD_KEY_FIELD,
        "headers": sorted([routing.SHARD_HEADER, routing.WORKER_HEADER, REPAIR_HEADER]),
        "connector_config_keys": sorted([OWNER_KEY, CLUSTER_KEY]),
    }
    for name, dataset in found.datasets.items():
        shard = found.shards[name][0]
        names[str(dataset.engine)] = {
            "table_topic": identity.table_topic(dataset, dataset.tables[0]),
            "transaction_topic": identity.transaction_topic(settings, dataset),
            "shard": asdict(identity.identity(settings, dataset, shard)),
        }
    return names


def worker_files() -> dict[str, Any]:
    """What the agent leaves beside its worker: leader files and the journal."""
    found = topology()
    shard, cluster = found.shards["pins"][0], found.clusters["main"]
    content = leader_files.LeaderFile(leader=shard.leader, generation=7)
    journal = Journal(Path(), "w0")
    old = next(iter(sample(Remembered, given={type(shard.leader): shard.leader}).old.values()))
    journal.write(Remembered(applied={shard.name: content}, old={shard.name: old}))
    return {
        "leader_file": {
            "path": leader_files.leader_file(cluster, shard),
            "lines": leader_files.render(content).splitlines(),
            "reference": leader_files.leader_reference(cluster, shard, leader_files.HOST),
        },
        "journal": {"name": journal.path.name, "document": json.loads(journal.path.read_text())},
    }


def audit_frame() -> dict[str, Any]:
    """Where a file of the audit frame is, and its columns."""
    verdict = sample(ShardVerdict)
    path = AuditFrame(str(Path("audit").absolute())).write([verdict])
    assert path is not None
    place = Path(path).relative_to(Path("audit").absolute())
    stem, _, _ = place.name.rpartition("-")
    old_names = {"first", "fence"}
    assert set(frames.SCHEMA.names) == {field.name for field in fields(ShardVerdict)} | old_names
    return {
        "file": f"{place.parent}/{stem}-RANDOM.parquet",
        "columns": {field.name: str(field.type) for field in frames.SCHEMA},
    }
