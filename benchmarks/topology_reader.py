"""The reader of 10,000 shard znodes against a serial one, on a real ZooKeeper.

    python -m benchmarks topology-reader [--shards 10000] [--stack DIR | --zookeeper HOST:PORT] [--json]

The serial reader gets one znode after another and decodes it with the same
code. Both read with the same client library. Goals: under 1.5 s cold, at least
2.5 times the serial reader, and nothing read again when warm.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import socket
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kazoo.client import KazooClient

from cdc_platform.clients.zookeeper.topology_store import ZooKeeperTopologyStore
from cdc_platform.documents import Layout
from cdc_platform.documents.znodes import read_shard
from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import Address, Cluster, Credentials, Dataset, Engine, Shard, Table, Topology
from tests.conftest import own_stack

SMALL = {"workers": 1, "mariadb": False, "postgres": False}
COLD_SECONDS = 1.5
RATIO = 2.5
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


def measure(zookeeper: str, shards: int, rounds: int) -> dict[str, Any]:
    """All figures: seconds are medians of the rounds, serial and pipelined by turns."""
    root = f"/cdc-benchmark-{secrets.token_hex(4)}"
    wanted = topology(shards)
    store = ZooKeeperTopologyStore(zookeeper, root=root)
    imported, _ = timed(lambda: store.import_topology(wanted))
    serials, colds, cpus = [], [], []
    for _ in range(rounds):
        client = KazooClient(zookeeper)
        client.start()
        seconds, found = timed(lambda client=client: serial(client, root))  # type: ignore[misc]
        assert len(found) == shards
        serials.append(seconds)
        client.stop()
        client.close()
        fresh = ZooKeeperTopologyStore(zookeeper, root=root)
        cpu = time.process_time()
        seconds, loaded = timed(fresh.load)  # with the connection
        cpus.append(time.process_time() - cpu)
        assert loaded == wanted
        colds.append(seconds)
        fresh.close()
    store.load()
    before = packets(zookeeper)
    warm, _ = timed(store.load)
    warm_packets = packets(zookeeper) - before
    for number in range(0, shards, 100):
        store.set_leader("pins", f"{number:05d}", Address("moved.internal", 3306))
    before = packets(zookeeper)
    changed, _ = timed(store.load)
    changed_packets = packets(zookeeper) - before
    store.delete_dataset("pins")
    store.close()
    cold, slow = statistics.median(colds), statistics.median(serials)
    return {
        "shards": shards,
        "load_average": round(os.getloadavg()[0], 1),
        "import_seconds": round(imported, 3),
        "serial_seconds": round(slow, 3),
        "cold_seconds": round(cold, 3),
        "cold_cpu_seconds": round(statistics.median(cpus), 3),
        "ratio": round(slow / cold, 2),
        "warm_seconds": round(warm, 4),
        "warm_packets": warm_packets,
        "one_percent_changed_seconds": round(changed, 4),
        "one_percent_changed_packets": changed_packets,
    }


def main(arguments: list[str]) -> int:
    """Prints the figures, and `goal met` or `goal missed: ...` as the last line; 1 when one is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks topology-reader",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--zookeeper", metavar="HOST:PORT", help="this ZooKeeper, in place of one of the benchmark's own"
    )
    parser.add_argument("--stack", type=Path, help="that of the running stack of this directory")
    parser.add_argument("--shards", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    with contextlib.ExitStack() as ending:
        zookeeper = asked.zookeeper
        if zookeeper is None:
            stack = Stack.load(asked.stack) if asked.stack else ending.enter_context(own_stack(**SMALL))
            zookeeper = stack.settings().zookeeper
        found = measure(zookeeper, asked.shards, asked.rounds)
    if asked.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:32} {value}")
    missed = [
        text
        for text, bad in (
            (f"cold under {COLD_SECONDS} s", found["cold_seconds"] >= COLD_SECONDS),
            (f"{RATIO} times a serial reader", found["ratio"] < RATIO),
            ("nothing read again when warm", found["warm_packets"] > WARM_PACKETS),
        )
        if bad
    ]
    print(
        "goal met" if not missed else f"goal missed: {', '.join(missed)}", file=sys.stderr if asked.json else sys.stdout
    )
    return 1 if missed else 0
