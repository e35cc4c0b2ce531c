"""What a worker's Prometheus JMX agent exports, and under which names.

The source of the MBean names: Debezium's monitoring page and Kafka Connect's
(`kafka.connect:type=...`). Only what the control plane and dashboards read is
listed: an agent that exports everything at a thousand connectors a worker takes
longer to scrape than the scrape interval.
"""

from __future__ import annotations

from typing import Any

import yaml

# Debezium attributes that are exported, by MBean context.
STREAMING = (
    "Connected",
    "MilliSecondsBehindSource",
    "MilliSecondsSinceLastEvent",
    "NumberOfCommittedTransactions",
    "QueueRemainingCapacity",
    "QueueTotalCapacity",
    "CurrentQueueSizeInBytes",
    "MaxQueueSizeInBytes",
    "TotalNumberOfEventsSeen",
)
SNAPSHOT = ("SnapshotRunning", "SnapshotCompleted", "SnapshotAborted", "RemainingTableCount")

_CONNECT = {
    "type=connect-worker-metrics": ("connector-count", "task-count"),
    "type=connect-worker-rebalance-metrics": (
        "completed-rebalances-total",
        "epoch",
        "rebalance-avg-time-ms",
        "rebalancing",
        "time-since-last-rebalance-ms",
    ),
}


def jmx_exporter_config() -> str:
    """The YAML configuration of `jmx_prometheus_javaagent` for a Connect worker.

    Debezium metrics come out as `debezium_<attribute>{engine,context,server}`,
    where `server` is `<dataset>.<shard>`; Connect's as `kafka_connect_<name>`.
    """
    debezium = "debezium.*:type=connector-metrics,*"
    document: dict[str, Any] = {
        "startDelaySeconds": 0,
        "lowercaseOutputName": True,
        "includeObjectNames": [debezium, *(f"kafka.connect:{bean}" for bean in _CONNECT)],
        "includeObjectNameAttributes": {
            debezium: sorted({*STREAMING, *SNAPSHOT}),
            **{f"kafka.connect:{bean}": list(names) for bean, names in _CONNECT.items()},
        },
        "rules": [
            {
                "pattern": "debezium.([a-z_]+)<type=connector-metrics, context=([a-z-]+), "
                "server=([^,>]+)><>([A-Za-z]+)",
                "name": "debezium_$4",
                "labels": {"engine": "$1", "context": "$2", "server": "$3"},
            },
            {
                "pattern": "kafka.connect<type=connect-worker(-rebalance)?-metrics><>([a-z-]+)",
                "name": "kafka_connect_worker_$2",
            },
        ],
    }
    text: str = yaml.safe_dump(document, sort_keys=False, width=110)
    return text
