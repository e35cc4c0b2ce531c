"""What was observed: connectors, tasks, topics, workers. One `ObservedState` a pass.

What could not be read is None or `unknown`, never empty: nothing may be
decided on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cdc_platform.model.topology import EMPTY, Topology

# A connector config carries this key with the platform's name as its value.
# Connectors without it were made by somebody else and are never touched.
# Connect keeps keys that a connector does not define.
OWNER_KEY = "cdc.platform.owner"

# And this one with the name of the Connect cluster it was made for: REST does
# not tell two Connect clusters on one Kafka apart.
CLUSTER_KEY = "cdc.platform.cluster"


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedTask:
    """One task as Connect's REST API shows it. `state` is Connect's own word."""

    id: int
    state: str
    worker: str
    trace: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedConnector:
    """A connector as Connect shows it. `config` holds raw `${...}` references."""

    name: str
    config: Mapping[str, str]
    state: str
    worker: str
    tasks: tuple[ObservedTask, ...] = ()
    trace: str | None = None

    @property
    def owner(self) -> str | None:
        """The platform that made it; None for a stranger's connector."""
        return self.config.get(OWNER_KEY)

    @property
    def running(self) -> bool:
        """True when the connector and at least one task are RUNNING, and none is not.

        This is Connect's word only: a dead source still shows RUNNING.
        """
        return self.state == "RUNNING" and bool(self.tasks) and all(task.state == "RUNNING" for task in self.tasks)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedCluster:
    """A Connect cluster at one moment; `connectors` is None when it was not readable."""

    name: str
    connectors: Mapping[str, ObservedConnector] | None
    problem: str | None = None

    @property
    def known(self) -> bool:
        """True when the connectors could be read as a whole."""
        return self.connectors is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicRequest:
    """A topic as it should be: to be made, or compared with what is there."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedTopic:
    """A topic on the brokers. `config` holds only what differs from the broker's default; None: not read."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str] | None = EMPTY


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicExtent:
    """How much is in a topic: `begin` and `end` are the sums over its partitions of the first offset
    and the next one to be written. `newest` is the time of its newest record, None when it has none.
    """

    begin: int
    end: int
    newest: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedWorker:
    """What one Connect worker's metrics say; `problem` when they could not be read, and all else is unknown.

    `worker` is its id, host:port. `lag_ms` maps a shard (`<dataset>.<shard>`) to
    MilliSecondsBehindSource. `streaming` are the shards whose task here is
    connected to its source, `snapshotting` those whose initial snapshot runs here.
    Heap in bytes; `rebalances` counts since the worker's start.
    """

    worker: str
    problem: str | None = None
    heap_used: int | None = None
    heap_max: int | None = None
    tasks: int | None = None
    rebalances: int | None = None
    lag_ms: Mapping[str, int] = EMPTY
    streaming: frozenset[str] = frozenset()
    snapshotting: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedBeats:
    """The heartbeats of one shard since the reading's start.

    `last` is the time of the newest. `senders` maps each worker that sent one
    (its `${env:WORKER}`) to the times of its first and its last.
    """

    last: datetime
    senders: Mapping[str, tuple[datetime, datetime]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedHeartbeats:
    """The shared heartbeat topic from `since` on, by `<dataset>.<shard>`.

    All times are those of the records. `newest` is the latest of all (None: there
    was none): ages are measured from it, so that this machine's clock does not matter.
    """

    since: datetime
    newest: datetime | None
    beats: Mapping[str, ObservedBeats]

    def age(self, shard: str) -> float | None:
        """Seconds from the shard's last heartbeat to the newest of all; None when it sent none since `since`."""
        beats = self.beats.get(shard)
        if beats is None or self.newest is None:
            return None
        return (self.newest - beats.last).total_seconds()


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedState:
    """Everything that one pass decides on, read once.

    None is unknown: `topics` when Kafka was not readable, `heartbeats` and
    `agents` when these were not. `workers` is by worker id (host:port); a worker
    without an entry has no metrics URL. `agents` is by worker name, as each says of itself.
    `logins` holds the shards whose source was asked with the dataset's own login: None when
    it was let in, else what the source said. One that did not answer is not in it.
    `brokers` counts those that are up; None: not known.
    """

    taken_at: datetime
    topology: Topology
    clusters: Mapping[str, ObservedCluster]
    topics: Mapping[str, ObservedTopic] | None
    problem: str | None = None
    heartbeats: ObservedHeartbeats | None = None
    workers: Mapping[str, ObservedWorker] = EMPTY
    agents: Mapping[str, Mapping[str, Any]] | None = None
    logins: Mapping[str, str | None] = EMPTY
    brokers: int | None = None
