"""A real ZooKeeper, and a store that is either the fake or the real one."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from typing import Protocol

import pytest
from kazoo.client import KazooClient

from cdc_platform.clients.protocols import TopologyStore
from cdc_platform.clients.zookeeper.topology_store import ZooKeeperTopologyStore
from cdc_platform.testing import InMemoryTopologyStore, InMemoryZooKeeper

ZOOKEEPER_ENV = "CDC_TEST_ZOOKEEPER"


def packets_received(address: str) -> int:
    """How many packets the server has had from clients so far (four-letter word `srvr`)."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(b"srvr")
        answer = connection.makefile("rb").read().decode()
    return int(next(line for line in answer.splitlines() if line.startswith("Received:")).split()[1])


@pytest.fixture(scope="session")
def zookeeper(request: pytest.FixtureRequest) -> str:
    """HOST:PORT of a real ZooKeeper: the stack's, or that of CDC_TEST_ZOOKEEPER."""
    return os.environ.get(ZOOKEEPER_ENV) or str(request.getfixturevalue("stack").zookeeper)


@pytest.fixture
def root() -> str:
    """A root of the test's own."""
    return f"/cdc-test-{secrets.token_hex(4)}"


@pytest.fixture
def raw(zookeeper: str, root: str) -> Iterator[KazooClient]:
    """A plain client: what HA tooling and operators use."""
    client = KazooClient(zookeeper)
    client.start()
    yield client
    delete_tree(client, root)
    client.stop()
    client.close()


def delete_tree(client: KazooClient, path: str) -> None:
    """Delete a znode and all below it; the leaves of a node at once, not one by one."""
    if not client.exists(path):
        return
    children = [f"{path}/{name}" for name in client.get_children(path)]
    found = [(child, client.exists_async(child)) for child in children]
    for child, stat in found:
        if stat.get().numChildren:
            delete_tree(client, child)
    leaves = [client.delete_async(child) for child, stat in found if not stat.get().numChildren]
    for leaf in leaves:
        leaf.get()
    client.delete(path)


class Server(Protocol):
    """The two things that a contract test needs behind the store's back."""

    def store(self) -> TopologyStore:
        """A new session."""

    def write(self, path: str, data: bytes) -> None:
        """Set a znode as another client would."""

    def delete(self, path: str) -> None:
        """Delete a znode as another client would."""


class FakeServer:
    """`InMemoryZooKeeper`."""

    def __init__(self, root: str) -> None:
        self.zookeeper = InMemoryZooKeeper()
        self.root = root
        self.write, self.delete = self.zookeeper.write, self.zookeeper.delete

    def store(self) -> TopologyStore:
        return InMemoryTopologyStore(self.zookeeper, self.root)


class RealServer:
    """A ZooKeeper server."""

    def __init__(self, hosts: str, raw: KazooClient, root: str) -> None:
        self.hosts, self.raw, self.root = hosts, raw, root
        self.stores: list[ZooKeeperTopologyStore] = []

    def store(self) -> TopologyStore:
        self.stores.append(ZooKeeperTopologyStore(self.hosts, root=self.root))
        return self.stores[-1]

    def write(self, path: str, data: bytes) -> None:
        self.raw.ensure_path(path)
        self.raw.set(path, data)

    def delete(self, path: str) -> None:
        self.raw.delete(path, recursive=True)


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.stack)])
def server(request: pytest.FixtureRequest, root: str) -> Iterator[Server]:
    """Runs the test against the fake and against a real server."""
    if request.param == "fake":
        yield FakeServer(root)
        return
    hosts = request.getfixturevalue("zookeeper")
    real = RealServer(hosts, request.getfixturevalue("raw"), root)
    yield real
    for store in real.stores:
        store.close()
