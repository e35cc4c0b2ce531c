"""What the use cases need of the outside systems: one small Protocol each.

The real clients and the fakes in `testing.py` both satisfy these, and one set
of contract tests runs against both. Every call has a deadline of its own, and
foreign exceptions arrive as those of `errors.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from cdc_platform.documents.edits import Change
from cdc_platform.errors import CdcError
from cdc_platform.model.observed import (
    ObservedConnector,
    ObservedHeartbeats,
    ObservedTopic,
    ObservedWorker,
    TopicExtent,
    TopicRequest,
)
from cdc_platform.model.topology import Address, Cluster, Dataset, Pause, Shard, Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerHealth:
    """What one worker says of itself: healthy, starting, unhealthy; or unreachable."""

    url: str
    status: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """A connector class that the workers can run. `type`: source or sink."""

    class_name: str
    type: str
    version: str | None


class Connect(Protocol):
    """One Kafka Connect cluster's REST API.

    All calls raise ConnectUnavailable (no worker answered in time, or broken
    answer), ConnectRebalancing (409) and ConnectRejected (4xx or 5xx).
    """

    def connectors(self) -> Mapping[str, ObservedConnector]:
        """All connectors with config and status, from one worker's memory."""

    def connector(self, name: str) -> ObservedConnector:
        """One connector. Raises NotFound."""

    def workers(self) -> Mapping[str, int]:
        """Worker ids (host:port) that run connectors or tasks, with the number of their tasks."""

    def health(self) -> Sequence[WorkerHealth]:
        """Each worker's own word; one that does not answer is `unreachable`. Never raises."""

    def plugins(self) -> Sequence[Plugin]:
        """The connector classes that the workers can run."""

    def create(self, name: str, config: Mapping[str, str], *, stopped: bool = False) -> None:
        """Create a connector; `stopped` makes it without tasks (KIP-980).

        A create that timed out may have been applied: re-reads before it raises.
        """

    def update(self, name: str, config: Mapping[str, str]) -> None:
        """Replace the whole config. Not a no-op when unchanged: diff first."""

    def delete(self, name: str) -> None:
        """Delete; a connector that is gone already is no error."""

    def restart_failed(self, name: str) -> None:
        """Restart the connector and those of its tasks that are FAILED. No rebalance."""

    def restart_task(self, name: str, task: int) -> None:
        """Restart one task: its `${...}` references are resolved again. No rebalance."""

    def pause(self, name: str) -> None:
        """Pause: tasks stay assigned, no rebalance."""

    def resume(self, name: str) -> None:
        """Resume a paused or stopped connector."""

    def stop(self, name: str) -> None:
        """Stop: tasks are shut down, offsets may be changed."""

    def offsets(self, name: str) -> Sequence[Mapping[str, Any]]:
        """The committed source offsets: `[{"partition": {...}, "offset": {...}}]`."""

    def alter_offsets(self, name: str, offsets: Sequence[Mapping[str, Any]]) -> None:
        """Write source offsets. The connector must be stopped."""

    def reset_offsets(self, name: str) -> None:
        """Forget all source offsets. The connector must be stopped."""

    def fenced(self, check: Callable[[], None]) -> Connect:
        """The same cluster, where each request that changes something is preceded by `check`, repeats too."""


class Kafka(Protocol):
    """The brokers' admin side. Raises KafkaUnavailable and KafkaRejected."""

    def topics(
        self, names: Collection[str] | None = None, configs_of: Collection[str] | None = None
    ) -> Mapping[str, ObservedTopic]:
        """Topics with partitions, replication and non-default config; with `names` only those.

        With `configs_of` only these have their config; the others' is None. Configs are what costs.

        A platform of 10,000 connectors has as many history topics: name what is compared.
        """

    def brokers(self) -> int:
        """How many brokers are up."""

    def create_topics(self, requests: Sequence[TopicRequest]) -> Mapping[str, CdcError]:
        """Create; a topic that exists already is no error. Returns those that could not be made, each with why."""

    def add_partitions(self, topic: str, total: int) -> None:
        """Grow the topic to `total` partitions."""

    def alter_topic_config(self, topic: str, changes: Mapping[str, str | None]) -> None:
        """Set config entries; None returns one to the broker's default."""

    def delete_topics(self, names: Sequence[str]) -> None:
        """Delete; a topic that is gone already is no error."""

    def extents(self, names: Sequence[str]) -> Mapping[str, TopicExtent]:
        """How much is in these topics. A topic that does not exist is absent."""

    def samples(self, names: Sequence[str]) -> Mapping[str, bytes]:
        """One recent value of each of these topics; a topic without one near its end is absent."""


class StateStore(Protocol):
    """The compacted state topic: text keys such as `restart/pins.00000` to JSON documents.

    Raises KafkaUnavailable, and Fenced once a newer writer has taken over.
    """

    def claim(self, generation: int) -> None:
        """Become the writer under the lock of this generation. Raises Fenced if a newer one was here.

        To be called when the lock is taken: from then on older writers are fenced,
        also those that have not written yet.
        """

    def read(self) -> Mapping[str, Mapping[str, Any]]:
        """All records up to now; a later call reads only what is new."""

    def write(self, records: Mapping[str, Mapping[str, Any] | None]) -> None:
        """Write all or none, in one transaction; None deletes."""


class Heartbeats(Protocol):
    """The shared heartbeat topic. Raises KafkaUnavailable."""

    def read(self, window: timedelta) -> ObservedHeartbeats:
        """The heartbeats of the last `window`."""


class Metrics(Protocol):
    """The metrics of Connect workers. Raises ConnectUnavailable."""

    def read(self, worker: str, url: str) -> ObservedWorker:
        """What the worker (host:port) says at `url` now."""


class ControlLock(Protocol):
    """The held ZooKeeper lock of one pass."""

    @property
    def generation(self) -> int:
        """Grows with each taking of the lock: a fencing token."""

    def check(self) -> None:
        """Raises LockLost as soon as the lock may be another's."""


class AgentRegistration(Protocol):
    """An agent's ephemeral znode. Raises ZooKeeperUnavailable."""

    def update(self, info: Mapping[str, Any]) -> None:
        """Say something new; registers again after the session was lost.

        Raises LockHeld when another agent has registered for this worker.
        """

    def close(self) -> None:
        """Take the znode away."""


class TopologyStore(Protocol):
    """ZooKeeper: the ideal state, the lock, the agents. Raises ZooKeeperUnavailable."""

    def load(self) -> Topology:
        """The whole topology; malformed znodes become `problems`. Warm loads re-read only what changed."""

    def put_dataset(self, dataset: Dataset) -> None:
        """Write one dataset, unknown fields of the stored document kept."""

    def put_shard(self, shard: Shard) -> None:
        """Write one shard, unknown fields of the stored document kept."""

    def put_cluster(self, cluster: Cluster) -> None:
        """Write one cluster, unknown fields of the stored document kept."""

    def delete_dataset(self, name: str) -> None:
        """Delete a dataset and its shards."""

    def delete_shard(self, dataset: str, shard: str) -> None:
        """Delete one shard's znode."""

    def set_leader(self, dataset: str, shard: str, leader: Address) -> Shard:
        """Compare-and-set the leader and add 1 to the generation."""

    def set_pause(self, dataset: str | None, shard: str | None, pause: Pause | None) -> None:
        """Pause or resume the platform (both None), a dataset or a shard."""

    def import_topology(
        self, topology: Topology, *, dry_run: bool = False, prune: bool = False, max_deletes: int | None = None
    ) -> Sequence[Change]:
        """Make the store hold this topology; returns what differs. `documents.edits.plan_import` has the rules.

        Raises PlanRefused when more than `max_deletes` documents would be deleted.
        """

    def lock(self, *, owner: str, timeout: float = 0.0) -> AbstractContextManager[ControlLock]:
        """Take **`/cdc/control/lock`**. `owner` is shown to others (a run id). Raises LockHeld."""

    def lock_owner(self) -> str | None:
        """Who holds the lock now; None when it is free."""

    def register_agent(self, worker: str, info: Mapping[str, Any]) -> AgentRegistration:
        """Announce the agent of a worker; the newest wins. Raises TopologyError for a bad worker id."""

    def agents(self) -> Mapping[str, Mapping[str, Any]]:
        """The live agents by worker id, with what each says of itself."""

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed` (from another thread) after any change; returns the call that ends it."""
