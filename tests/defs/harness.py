"""Small topologies and platforms in memory for the tests of the Dagster floor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from cdc_platform.clients.platform import Platform
from cdc_platform.defs import CdcPlatformResource
from cdc_platform.model.topology import Address, Cluster, Dataset, Engine, Shard, Table, Topology
from cdc_platform.settings import Settings
from cdc_platform.testing import (
    FakeConnect,
    FakeKafka,
    FakeStateStore,
    FakeStateTopic,
    InMemoryTopologyStore,
    InMemoryZooKeeper,
)
from tests.own_secrets import SECRETS_DIRS, own_secrets


def dataset(name: str = "pins", **fields: object) -> Dataset:
    defaults: dict[str, object] = {
        "name": name,
        "engine": Engine.MARIADB,
        "tables": (Table(name="pins"), Table(name="boards")),
        "clusters": ("main",),
        "credentials": own_secrets(name),
        "owners": ("data-platform", "ann@example.org"),
    }
    return Dataset(**(defaults | fields))  # type: ignore[arg-type]


def shard(of: str, number: int, **fields: object) -> Shard:
    defaults: dict[str, object] = {
        "dataset": of,
        "id": f"{number:05d}",
        "leader": Address(f"db-{number % 3}", 3306),
        "database": f"{of}_{number:05d}",
    }
    return Shard(**(defaults | fields))  # type: ignore[arg-type]


def topology(*, pins: int = 3, orders: int = 2, **fields: object) -> Topology:
    datasets = {
        "pins": dataset("pins"),
        "orders": dataset("orders", engine=Engine.POSTGRES, tables=(Table(name="orders", schema="public"),)),
    }
    defaults: dict[str, object] = {
        "datasets": datasets,
        "shards": {
            "pins": tuple(shard("pins", n) for n in range(pins)),
            "orders": tuple(shard("orders", n) for n in range(orders)),
        },
        "clusters": {"main": Cluster(name="main", urls=("http://127.0.0.1:8083",))},
    }
    return Topology(**(defaults | fields))  # type: ignore[arg-type]


@dataclass
class Harness:
    """The outside systems of one platform, in memory; each pass gets clients of its own, as from `wiring`."""

    settings: Settings
    zookeeper: InMemoryZooKeeper = field(default_factory=InMemoryZooKeeper)
    kafka: FakeKafka = field(default_factory=FakeKafka)
    connect: FakeConnect = field(default_factory=FakeConnect)
    state: FakeStateTopic = field(default_factory=FakeStateTopic)
    opened: int = 0
    name: str = ""

    def __post_init__(self) -> None:
        self.settings = replace(self.settings, secrets_dirs=SECRETS_DIRS)

    def store(self) -> InMemoryTopologyStore:
        """A ZooKeeper session."""
        return InMemoryTopologyStore(self.zookeeper)

    def put(self, wanted: Topology) -> None:
        """Write a topology, and what it no longer has is deleted."""
        self.store().import_topology(wanted, prune=True)

    @contextmanager
    def platform(self) -> Iterator[Platform]:
        """Clients of this harness."""
        self.opened += 1
        store = self.store()
        try:
            yield Platform(
                settings=self.settings,
                topology=store,
                kafka=self.kafka,
                state=FakeStateStore(self.state),
                connect=lambda cluster: self.connect,
            )
        finally:
            store.close()


class HarnessResource(CdcPlatformResource):
    """`CdcPlatformResource` on the harness that `WORLDS` has under its `config_file`."""

    def settings(self) -> Settings:
        return WORLDS[str(self.config_file)].settings

    @contextmanager
    def platform(self) -> Iterator[Platform]:
        with WORLDS[str(self.config_file)].platform() as platform:
            yield platform


# Resources are configuration and get copied: the harness itself is found by name.
WORLDS: dict[str, Harness] = {}
