"""The reader of shard znodes, and a serial one, on a real ZooKeeper.

The serial reader gets one znode after another and decodes it with the same code. Both read with the same client
library; ours includes the connection. A warm reader reads nothing again.
"""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Callable
from typing import Any

from kazoo.client import KazooClient

from benchmarks.form import Form, Goal
from benchmarks.stacks import stack_of
from cdc_platform.clients.zookeeper.topology_store import ZooKeeperTopologyStore
from cdc_platform.documents import Layout
from cdc_platform.documents.znodes import read_shard
from cdc_platform.model.topology import Address, Cluster, Credentials, Dataset, Engine, Shard, Table, Topology

SIZES = {"shards": (10_000, 10_000), "rounds": (5, 3)}

SMALL = {"workers": 1, "mariadb": False, "postgres": False}
# One sync a load; the rest are pings of the sessions and the question itself.
WARM_PACKETS = 10


def topology(shards: int) -> Topology:
    """A topology of one dataset."""
    dataset = Dataset(
        name="pins",
        engine=Engine.MARIADB,
        tables=(Table(name="pins"), Table(name="boards")),
        clusters=("main",),
        credentials=Credentials(user="${file:/run/secrets/db:user}", password="${file:/run/secrets/db:password}"),
    )
    made = tuple(
        Shard(
            dataset="pins",
            id=f"{number:05d}",
            leader=Address(f"db-{number % 200}.internal", 3306),
            replicas=(Address(f"db-{number % 200}-r.internal", 3306),),
            database=f"pins_{number:05d}",
            generation=number % 7,
        )
        for number in range(shards)
    )
    cluster = Cluster(name="main", urls=("http://connect:8083",))
    return Topology(clusters={"main": cluster}, datasets={"pins": dataset}, shards={"pins": made})


def packets(address: str) -> int:
    """Packets that the server has had from clients (four-letter word `srvr`)."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(b"srvr")
        lines = connection.makefile("rb").read().decode().splitlines()
    return int(next(line for line in lines if line.startswith("Received:")).split()[1])


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds and result."""
    begun = time.perf_counter()
    result = call()
    return time.perf_counter() - begun, result


def serial(client: KazooClient, root: str) -> list[Any]:
    """The plain way."""
    layout = Layout(root)
    return [
        read_shard(layout, dataset, shard, client.get(layout.shard(dataset, shard))[0])
        for dataset in client.get_children(layout.datasets)
        for shard in client.get_children(layout.shards(dataset))
    ]


def run(form: Form) -> None:
    """Cold by turns with the serial reader, then warm."""
    with stack_of(form, **SMALL) as stack:
        measure(form, stack.settings().zookeeper)


def measure(form: Form, zookeeper: str) -> None:
    """All of it on that ZooKeeper."""
    root, shards = f"/cdc-benchmark-{secrets.token_hex(4)}", form.count("shards")
    wanted = topology(shards)
    store = ZooKeeperTopologyStore(zookeeper, root=root)
    imported, _ = timed(lambda: store.import_topology(wanted))

    def one_after_another() -> float:
        client = KazooClient(zookeeper)
        client.start()
        seconds, found = timed(lambda: serial(client, root))
        assert len(found) == shards
        client.stop()
        client.close()
        return seconds

    def cold() -> float:
        fresh = ZooKeeperTopologyStore(zookeeper, root=root)
        seconds, loaded = timed(fresh.load)
        assert loaded == wanted
        fresh.close()
        return seconds

    form.in_turn(
        "cold load", "s", cold, one_after_another,
        other_side="serial reader", rounds=form.count("rounds"), goal=Goal(at_most=0.4),
    )  # fmt: skip
    store.load()
    before = packets(zookeeper)
    warm, _ = timed(store.load)
    read = packets(zookeeper) - before
    form.condition("nothing is read again when warm", read <= WARM_PACKETS, f"{read} packets")
    for number in range(0, shards, 100):
        store.set_leader("pins", f"{number:05d}", Address("moved.internal", 3306))
    before = packets(zookeeper)
    changed, _ = timed(store.load)
    form.figure("import of all shards", "s", [imported])
    form.figure("warm load", "s", [warm])
    form.figure("load after 1 % changed", "s", [changed])
    form.figure("load after 1 % changed", "packets", [packets(zookeeper) - before])
    store.delete_dataset("pins")
    store.close()
