"""A platform in memory with several Connect clusters, which a test may break at any call."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cdc_platform.clients.platform import Platform
from cdc_platform.clients.protocols import Connect
from cdc_platform.errors import CdcError
from cdc_platform.model.observed import ObservedBeats, ObservedConnector, ObservedHeartbeats, ObservedWorker
from cdc_platform.model.topology import (
    Address,
    Cluster,
    Dataset,
    Engine,
    Shard,
    Table,
    TopicSpec,
    Topology,
)
from cdc_platform.planning.inputs import PassPolicy
from cdc_platform.reconciler import run_pass as reconciler
from cdc_platform.reconciler.report import PassReport
from cdc_platform.settings import Settings
from cdc_platform.testing.connect import FakeConnect
from cdc_platform.testing.connect_model import ConnectModel
from cdc_platform.testing.kafka import FakeKafka
from cdc_platform.testing.state_topic import FakeStateStore, FakeStateTopic
from cdc_platform.testing.zookeeper import InMemoryTopologyStore, InMemoryZooKeeper
from tests.own_secrets import SECRETS_DIRS, own_secrets


class Killed(BaseException):
    """The control plane died here: nothing after this line ran."""


def dataset(name: str = "pins", clusters: tuple[str, ...] = ("east", "west"), **fields: Any) -> Dataset:
    defaults: dict[str, Any] = {
        "name": name,
        "engine": Engine.MARIADB,
        "tables": (Table(name="pins"),),
        "clusters": clusters,
        "credentials": own_secrets(name),
        "topics": TopicSpec(partitions=1, replication=1),
    }
    return Dataset(**(defaults | fields))


def shards(name: str, count: int) -> tuple[Shard, ...]:
    return tuple(
        Shard(dataset=name, id=f"{n:05d}", leader=Address(f"db-{n % 3}", 3306), database=f"{name}_{n:05d}")
        for n in range(count)
    )


def cluster(name: str, **fields: Any) -> Cluster:
    return Cluster(**({"name": name, "urls": (f"http://{name}:8083",)} | fields))


@dataclass
class Beating:
    """Heartbeats of all connectors whose task runs, but the `mute`."""

    clusters: Mapping[str, FakeConnect]
    mute: set[str] = field(default_factory=set)
    outage: CdcError | None = None

    def read(self, window: timedelta) -> ObservedHeartbeats:
        if self.outage is not None:
            raise self.outage
        now = datetime.now(UTC)
        running = {
            name
            for client in self.clusters.values()
            # The tasks beat on while their REST API is away.
            for name, seen in FakeConnect(client.name, client.model).connectors().items()
            if seen.running and name not in self.mute
        }
        beat = ObservedBeats(last=now, senders={"w0": (now, now)})
        return ObservedHeartbeats(since=now - window, newest=now, beats=dict.fromkeys(running, beat))


@dataclass
class Measured:
    """Metrics of workers, as a test sets them."""

    workers: dict[str, ObservedWorker] = field(default_factory=dict)

    def read(self, worker: str, url: str) -> ObservedWorker:
        return self.workers.get(worker, ObservedWorker(worker=worker))


class Harness:
    """ZooKeeper, Kafka, the state topic and Connect clusters that outlive any control plane."""

    def __init__(self, *names: str) -> None:
        self.zookeeper = InMemoryZooKeeper()
        self.kafka = FakeKafka(brokers=1)
        self.topic = FakeStateTopic()
        self.models = {name: ConnectModel(workers=(f"{name}-w0:8083", f"{name}-w1:8083")) for name in names}
        self.connect = {name: FakeConnect(name, model) for name, model in self.models.items()}
        self.heartbeats = Beating(self.connect)
        self.metrics = Measured()
        self.settings = Settings(connect_timeout=2.0, secrets_dirs=SECRETS_DIRS)
        # Asked after each change of a Connect cluster, and each write of the state topic.
        self.after: Callable[[str, str], None] = lambda verb, name: None

    def put(self, topology: Topology) -> None:
        store = InMemoryTopologyStore(self.zookeeper)
        for one in topology.clusters.values():
            store.put_cluster(one)
        for one_dataset in topology.datasets.values():
            store.put_dataset(one_dataset)
        for found in topology.shards.values():
            for shard in found:
                store.put_shard(shard)

    def control_plane(self) -> Platform:
        """A new one, with sessions of its own."""
        return Platform(
            settings=self.settings,
            topology=InMemoryTopologyStore(self.zookeeper),
            kafka=self.kafka,
            state=_WatchedState(self.topic, self),
            connect=self._client,
            heartbeats=self.heartbeats,
            metrics=self.metrics,
        )

    def _client(self, found: Cluster) -> Connect:
        return _Watched(self.connect[found.name], self)

    def reconcile(self, **more: Any) -> PassReport:
        """One pass of a new control plane."""
        return reconciler.reconcile(self.control_plane(), owner="test", **more)

    def policy(self, **more: Any) -> PassPolicy:
        return replace(reconciler.policy_of(self.control_plane()), **more)

    def running(self, name: str) -> list[str]:
        """The clusters in which a task of this connector runs."""
        return [
            cluster
            for cluster, client in self.connect.items()
            if any(task.state == "RUNNING" for task in self.seen(client, name))
        ]

    def seen(self, client: FakeConnect, name: str) -> Any:
        found: ObservedConnector | None = client.connectors().get(name)
        return found.tasks if found else ()

    def records(self) -> Mapping[str, Mapping[str, Any]]:
        return FakeStateStore(self.topic).read()


class _Watched:
    """A FakeConnect that tells the harness of each change."""

    def __init__(self, client: FakeConnect, harness: Harness) -> None:
        self._client = client
        self._harness = harness

    def fenced(self, check: Callable[[], None]) -> _Watched:
        return _Watched(self._client.fenced(check), self._harness)

    def __getattr__(self, verb: str) -> Any:
        found = getattr(self._client, verb)
        if verb in ("connectors", "connector", "offsets"):
            return found

        def call(name: str, *args: Any, **kwargs: Any) -> Any:
            answer = found(name, *args, **kwargs)
            self._harness.after(verb, name)
            return answer

        return call


class _WatchedState(FakeStateStore):
    def __init__(self, topic: FakeStateTopic, harness: Harness) -> None:
        super().__init__(topic)
        self._harness = harness

    def write(self, records: Mapping[str, Mapping[str, Any] | None]) -> None:
        super().write(records)
        self._harness.after("write", ",".join(sorted(records)))


class KillAt:
    """Kills the control plane right after the nth change it makes."""

    def __init__(self, number: int) -> None:
        self.left = number
        self.done: list[tuple[str, str]] = []
        self._lock = threading.Lock()

    def __call__(self, verb: str, name: str) -> None:
        with self._lock:
            self.done.append((verb, name))
            self.left -= 1
            if self.left == 0:
                raise Killed(f"after {verb} {name}")
            if self.left < 0:
                raise Killed("dead already")
