"""A fleet of thousands of connectors: real ZooKeeper and Kafka, and Connect clusters as protocol-true fakes.

Each Connect cluster is a process of its own (`python -m benchmarks.fleet`), as
in real life: the control plane under test shares no interpreter with it.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from cdc_platform.clients.kafka.admin import KafkaAdmin
from cdc_platform.clients.platform import Platform
from cdc_platform.connectors import jmx_export as jmx
from cdc_platform.connectors.config import DesiredConfigs
from cdc_platform.connectors.routing import WORKER_HEADER
from cdc_platform.connectors.topics import desired_topics
from cdc_platform.errors import KafkaUnavailable
from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import (
    Address,
    Cluster,
    Credentials,
    Dataset,
    Engine,
    Shard,
    Table,
    TopicSpec,
    Topology,
)
from cdc_platform.settings import Settings
from cdc_platform.testing.connect_model import ConnectModel
from cdc_platform.testing.connect_rest import FakeConnectServer
from cdc_platform.wiring import open_platform

WORKERS_A_CLUSTER = 3
# Nothing is there: the fleet's databases are names only.
SECRETS = "/run/secrets"
HEARTBEATS_A_SHARD = 12  # 75 s at one each 6 s


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSpec:
    """How large: shards over all, Connect clusters, and the share of connectors that drifted."""

    shards: int = 10_000
    clusters: int = 4
    drift: float = 0.0


def topology_of(spec: FleetSpec, clusters: Sequence[Cluster]) -> Topology:
    """Four datasets, three on MariaDB and one on Postgres, each in all clusters."""
    datasets: dict[str, Dataset] = {}
    shards: dict[str, tuple[Shard, ...]] = {}
    names = ("pins", "boards", "users", "orders")
    for at, name in enumerate(names):
        engine = Engine.POSTGRES if name == "orders" else Engine.MARIADB
        datasets[name] = Dataset(
            name=name,
            engine=engine,
            tables=tuple(Table(name=f"{name}_{n}", schema="public" if at == 3 else None) for n in range(4)),
            # Each dataset lives in one cluster first, so that placement is what it was made for.
            clusters=tuple(c.name for c in clusters[at % len(clusters) :])
            + tuple(c.name for c in clusters[: at % len(clusters)]),
            credentials=Credentials(
                user=f"${{file:{SECRETS}/{name}/db.properties:user}}",
                password=f"${{file:{SECRETS}/{name}/db.properties:password}}",
            ),
            topics=TopicSpec(partitions=2, replication=1),
            connector={"max.batch.size": "1024"},
        )
        count = spec.shards // len(names) + (1 if at < spec.shards % len(names) else 0)
        shards[name] = tuple(
            Shard(dataset=name, id=f"{n:05d}", leader=Address(f"db-{name}-{n % 200}", 3306), database=f"{name}_{n:05d}")
            for n in range(count)
        )
    return Topology(datasets=datasets, shards=shards, clusters={c.name: c for c in clusters})


def configs_of(topology: Topology, settings: Settings, drift: float) -> dict[str, dict[str, Mapping[str, str]]]:
    """Connector configs by cluster: shards evenly over the clusters, every (1/drift)th changed by hand."""
    config_of = DesiredConfigs(settings)
    names = sorted(topology.clusters)
    found: dict[str, dict[str, Mapping[str, str]]] = {name: {} for name in names}
    every = round(1 / drift) if drift else 0
    for at, (dataset, shard) in enumerate(topology.all_shards()):
        cluster = topology.clusters[names[at % len(names)]]
        config = config_of(dataset, shard, cluster)
        if every and at % every == 0:
            config = {**config, "max.batch.size": "7", "poll.interval.ms": "1"}
        found[cluster.name][shard.name] = config
    return found


@contextlib.contextmanager
def fleet(stack: Stack, spec: FleetSpec, root: str) -> Iterator[Settings]:
    """The fleet, running, and the settings to reach it. `root` names it in ZooKeeper and Kafka."""
    settings = replace(
        stack.settings(),
        zookeeper_root=f"/{root}",
        state_topic=f"{root}.state",
        heartbeat_topic=f"{root}.heartbeat",
        platform=root,
        secrets_dirs=(SECRETS,),
    )
    with contextlib.ExitStack() as ending:
        clusters = [
            ending.enter_context(_cluster(spec, number, stack.directory, settings)) for number in range(spec.clusters)
        ]
        topology = topology_of(spec, clusters)
        with open_platform(settings) as platform:
            platform.topology.import_topology(topology)
            topics = desired_topics(topology, settings)
            assert not platform.kafka.create_topics(topics)
            _wait_for_broker(platform, len(topics))
        send_heartbeats(settings, topology)
        yield settings


def _wait_for_broker(platform: Platform, topics: int) -> None:
    """A broker makes the logs of new topics one by one, 10 ms each: until then it takes no records."""
    end = time.monotonic() + 60 + 0.1 * topics
    while True:
        try:
            with platform.topology.lock(owner="benchmark", timeout=30.0) as lock:
                platform.state.claim(lock.generation)
            return
        except KafkaUnavailable:
            if time.monotonic() > end:
                raise
            time.sleep(1.0)


def send_heartbeats(settings: Settings, topology: Topology) -> int:
    """A window full of heartbeats of every shard, as Debezium sends them."""
    producer = Producer({**settings.kafka, "linger.ms": 20, "queue.buffering.max.messages": 500_000})
    names = [shard.name for _, shard in topology.all_shards()]
    for _ in range(HEARTBEATS_A_SHARD):
        now = int(time.time() * 1000)
        for at, name in enumerate(names):
            producer.produce(
                settings.heartbeat_topic,
                partition=0,
                key=json.dumps({"serverName": name}).encode(),
                value=json.dumps({"ts_ms": now}).encode(),
                headers=[("cdc.shard", name.encode()), (WORKER_HEADER, f"w{at % 12}".encode())],
            )
            if at % 1000 == 0:
                producer.poll(0)
        producer.flush()
    return len(names) * HEARTBEATS_A_SHARD


@contextlib.contextmanager
def _cluster(spec: FleetSpec, number: int, directory: Path, settings: Settings) -> Iterator[Cluster]:
    """One fake Connect cluster in a process of its own."""
    asked = {
        "shards": spec.shards,
        "clusters": spec.clusters,
        "drift": spec.drift,
        "number": number,
        "kafka": dict(settings.kafka),
        "platform": settings.platform,
        "heartbeat_topic": settings.heartbeat_topic,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.fleet", json.dumps(asked)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        yield Cluster(
            name=_cluster_name(number),
            urls=(told["url"],),
            capacity=3000,
            metrics={worker: told["metrics"] + f"/{worker}" for worker in _worker_names(number)},
        )
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=30)


def _cluster_name(number: int) -> str:
    return f"c{number}"


def _worker_names(number: int) -> list[str]:
    return [f"10.0.{number}.{at}:8083" for at in range(WORKERS_A_CLUSTER)]


def _serve(asked: Mapping[str, Any]) -> None:
    """Be one Connect cluster and the metrics of its workers until stdin closes."""
    spec = FleetSpec(shards=asked["shards"], clusters=asked["clusters"], drift=asked["drift"])
    settings = Settings(
        kafka=asked["kafka"],
        platform=asked["platform"],
        heartbeat_topic=asked["heartbeat_topic"],
        secrets_dirs=(SECRETS,),
    )
    all_clusters = [Cluster(name=_cluster_name(n), urls=("http://127.0.0.1:1",)) for n in range(spec.clusters)]
    configs = configs_of(topology_of(spec, all_clusters), settings, spec.drift)[_cluster_name(asked["number"])]
    workers = _worker_names(asked["number"])
    model = ConnectModel(workers=workers, kafka_cluster_id=KafkaAdmin(settings.kafka).cluster_id())
    model.fill(configs)
    texts = {
        worker: _metrics([name for at, name in enumerate(configs) if at % len(workers) == number]).encode()
        for number, worker in enumerate(workers)
    }

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = texts[self.path.partition("?")[0].rpartition("/")[2]]
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Not to stderr."""

    metrics = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=metrics.serve_forever, daemon=True).start()
    with FakeConnectServer(model=model) as server:
        server._route("GET", "/connectors?expand=info&expand=status", b"")  # encode once, before anybody measures
        print(json.dumps({"url": server.url, "metrics": f"http://127.0.0.1:{metrics.server_address[1]}"}), flush=True)
        sys.stdin.read()


def _metrics(shards: Sequence[str]) -> str:
    lines = [f'{jmx.HEAP_USED}{{area="heap"}} 6.0E8', f'{jmx.HEAP_MAX}{{area="heap"}} 2.0E9']
    lines += [f"{jmx.TASK_COUNT} {len(shards)}.0", f"{jmx.REBALANCES} 12.0"]
    for shard in shards:
        labels = f'{{engine="mariadb",server="{shard}"}}'
        lines += [f"{jmx.LAG_MS}{labels} 602.0", f"{jmx.CONNECTED}{labels} 1.0", f"{jmx.SNAPSHOT_RUNNING}{labels} 0.0"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    _serve(json.loads(sys.argv[1]))
