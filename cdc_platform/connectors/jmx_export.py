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

WORKER = ("connector-count", "task-count")
REBALANCE = (
    "completed-rebalances-total",
    "epoch",
    "rebalance-avg-time-ms",
    "rebalancing",
    "time-since-last-rebalance-ms",
)

# The names under which the control plane finds what it reads, as the agent
# writes them: lower case, and `_total` is taken off what is no counter to it.
LAG_MS = "debezium_millisecondsbehindsource"
CONNECTED = "debezium_connected"
SNAPSHOT_RUNNING = "debezium_snapshot_snapshotrunning"
TASK_COUNT = "kafka_connect_worker_task_count"
REBALANCES = "kafka_connect_worker_completed_rebalances"
HEAP_USED, HEAP_MAX = "jvm_memory_used_bytes", "jvm_memory_max_bytes"


def jmx_exporter_config() -> str:
    """The YAML configuration of `jmx_prometheus_javaagent` for a Connect worker.

    Debezium metrics come out as `debezium_<attribute>{engine,server}`, those of
    snapshots as `debezium_snapshot_<attribute>`; `server` is `<dataset>.<shard>`.
    Connect's come out as `kafka_connect_worker_<name>`. All lower case.
    """
    debezium = "debezium.([a-z_]+)<type=connector-metrics, context={}, server=([^,>]+)><>({}): "
    document: dict[str, Any] = {
        "startDelaySeconds": 0,
        "lowercaseOutputName": True,
        "includeObjectNames": [
            "debezium.*:type=connector-metrics,context=streaming,*",
            "debezium.*:type=connector-metrics,context=snapshot,*",
            "kafka.connect:type=connect-worker-metrics",
            "kafka.connect:type=connect-worker-rebalance-metrics",
        ],
        # What no rule matches is dropped. The agent searches, so the colon ends the attribute's name.
        "rules": [
            {
                "pattern": debezium.format("streaming", "|".join(STREAMING)),
                "name": "debezium_$3",
                "labels": {"engine": "$1", "server": "$2"},
            },
            {
                "pattern": debezium.format("snapshot", "|".join(SNAPSHOT)),
                "name": "debezium_snapshot_$3",
                "labels": {"engine": "$1", "server": "$2"},
            },
            {
                "pattern": f"kafka.connect<type=connect-worker-metrics><>({'|'.join(WORKER)}): ",
                "name": "kafka_connect_worker_$1",
            },
            {
                "pattern": f"kafka.connect<type=connect-worker-rebalance-metrics><>({'|'.join(REBALANCE)}): ",
                "name": "kafka_connect_worker_$1",
            },
        ],
    }
    text: str = yaml.safe_dump(document, sort_keys=False, width=110)
    return text
