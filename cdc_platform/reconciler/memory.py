"""What passes remember in the state topic, as documents.

| key | document |
|---|---|
| `restart/<dataset>.<shard>` | failure, attempts, first_failed, last_restart, next_restart |
| `shard/<dataset>.<shard>` | since, generation: it was seen running first |
| `size/cluster/<name>`, `size/dataset/<name>` | how many connectors, shards the last pass saw |
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from cdc_platform.planner import Memory, Planned
from cdc_platform.restarts import Failure, RestartRecord

RESTART = "restart/"
SHARD = "shard/"


def read_memory(records: Mapping[str, Mapping[str, Any]]) -> Memory:
    """The planner's memory from the state topic's records."""
    restarts: dict[str, RestartRecord] = {}
    clusters: dict[str, int] = {}
    datasets: dict[str, int] = {}
    for key, document in records.items():
        if key.startswith(RESTART):
            restarts[key.removeprefix(RESTART)] = _restart(document)
        elif key.startswith("size/cluster/"):
            clusters[key.removeprefix("size/cluster/")] = int(document["connectors"])
        elif key.startswith("size/dataset/"):
            datasets[key.removeprefix("size/dataset/")] = int(document["shards"])
    return Memory(restarts=restarts, cluster_sizes=clusters, dataset_sizes=datasets)


def captured_shards(records: Mapping[str, Mapping[str, Any]]) -> frozenset[str]:
    """The shards on record as seen running."""
    return frozenset(key.removeprefix(SHARD) for key in records if key.startswith(SHARD))


def size_records(planned: Planned) -> dict[str, Mapping[str, Any]]:
    """The sizes that this pass saw, as documents."""
    sizes: dict[str, Mapping[str, Any]] = {
        f"size/cluster/{name}": {"connectors": n} for name, n in planned.cluster_sizes.items()
    }
    sizes |= {f"size/dataset/{name}": {"shards": n} for name, n in planned.dataset_sizes.items()}
    return sizes


def forget_and_keep(records: Mapping[str, RestartRecord | None]) -> dict[str, Mapping[str, Any] | None]:
    """Restart records as documents; None forgets."""
    return {RESTART + name: _document(record) if record else None for name, record in records.items()}


def shard_record(now: datetime, generation: int) -> Mapping[str, Any]:
    """That a shard was seen running for the first time."""
    return {"since": now.isoformat(), "generation": generation}


def _document(record: RestartRecord) -> Mapping[str, Any]:
    return {
        "failure": str(record.failure),
        "attempts": record.attempts,
        "first_failed": record.first_failed.isoformat(),
        "last_restart": record.last_restart.isoformat() if record.last_restart else None,
        "next_restart": record.next_restart.isoformat(),
    }


def _restart(document: Mapping[str, Any]) -> RestartRecord:
    last = document["last_restart"]
    return RestartRecord(
        failure=Failure(document["failure"]),
        attempts=int(document["attempts"]),
        first_failed=datetime.fromisoformat(document["first_failed"]),
        last_restart=datetime.fromisoformat(last) if last else None,
        next_restart=datetime.fromisoformat(document["next_restart"]),
    )
