"""Failover on the real stack: agents as processes, real Connect and Debezium, the old leader dead."""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pymysql
import pytest

from cdc_platform.clients.zookeeper.topology_store import ZooKeeperTopologyStore
from cdc_platform.connectors.leader_files import LeaderFile, file_name, parse
from cdc_platform.local.stack import Stack
from cdc_platform.model.agent_report import AgentReport, reports_by_worker, workers_without
from cdc_platform.model.topology import (
    Address,
    BootstrapMode,
    Cluster,
    Dataset,
    Engine,
    Shard,
    Table,
    TopicSpec,
    Topology,
)
from cdc_platform.wiring import topology_store
from tests.connectors.harness import Harness as ConnectorHarness
from tests.connectors.harness import Record
from tests.engines import EACH_BINLOG
from tests.tcp_proxy import TcpProxy
from tests.waiting import assert_eventually, seconds_until

pytestmark = pytest.mark.stack


@dataclass(kw_only=True)
class Agents:
    """One agent process per worker of the stack, below a ZooKeeper root of their own."""

    stack: Stack
    root: str
    logs: Path
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, worker: str, *more: str) -> subprocess.Popen[bytes]:
        number = self.stack.workers.index(worker)
        command = [
            sys.executable, "-m", "cdc_platform.agent",
            "--zookeeper", str(self.stack.zookeeper),
            "--zookeeper-root", self.root,
            "--worker", worker,
            "--connect-url", self.stack.connect_urls[number],
            "--leader-dir", str(self.directory(worker)),
            *(("--settings", str(self.stack.settings_file)) if self.stack.secure else ()),
            *more,
        ]  # fmt: skip
        with (self.logs / f"{worker}.log").open("ab") as log:
            self.running[worker] = subprocess.Popen(command, stderr=log, stdout=log)
        return self.running[worker]

    def directory(self, worker: str) -> Path:
        return self.stack.directory / "workers" / worker / "leaders"

    def kill(self, worker: str) -> None:
        process = self.running.pop(worker)
        process.kill()
        process.wait()

    def stop(self) -> None:
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            assert process.wait(20) == 0

    def log(self, worker: str) -> str:
        return (self.logs / f"{worker}.log").read_text()

    def content(self, worker: str, name: str) -> LeaderFile | None:
        path = self.directory(worker) / file_name(name)
        return parse(path.read_text(), where=str(path)) if path.exists() else None


class AgentField(ConnectorHarness):
    """Connectors whose leader files are written by agents."""

    def write_leader(self, shard: Shard) -> None:
        """Nothing: the agents do it."""


@pytest.fixture
def root() -> str:
    return f"/cdc-agents-{secrets.token_hex(4)}"


@pytest.fixture
def store(stack: Stack, root: str) -> Iterator[ZooKeeperTopologyStore]:
    made = topology_store(replace(stack.settings(), zookeeper_root=root))
    yield made
    made.close()


@pytest.fixture
def agents(stack: Stack, root: str, tmp_path: Path) -> Iterator[Agents]:
    made = Agents(stack=stack, root=root, logs=tmp_path)
    for worker in stack.workers:
        made.start(worker)
    yield made
    made.stop()


@pytest.fixture
def ground(stack: Stack, unique_name: Callable[[str], str]) -> Iterator[AgentField]:
    own = unique_name("agents")
    made = AgentField(stack=stack, settings=replace(stack.settings(), platform=own, heartbeat_topic=f"{own}.heartbeat"))
    yield made
    made.close()


@pytest.fixture
def source(stack: Stack, engine: Engine) -> Iterator[pymysql.Connection[Any]]:
    login, address = stack.admin(engine), stack.primary(engine)
    connection = pymysql.connect(
        host=address.host, port=address.port, user=login.user, password=login.password, autocommit=True
    )
    yield connection
    connection.close()


def is_synced(store: ZooKeeperTopologyStore, cluster: Cluster, name: str) -> bool:
    topology = store.load()
    dataset, _, shard = name.partition(".")
    return not workers_without(
        topology, topology.shard(dataset, shard), cluster.labels, reports_by_worker(store.agents())
    )


@EACH_BINLOG
def test_failover_from_a_dead_leader_needs_neither_control_plane_nor_rebalance(
    engine: Engine,
    stack: Stack,
    store: ZooKeeperTopologyStore,
    agents: Agents,
    ground: AgentField,
    source: pymysql.Connection[Any],
    unique_name: Callable[[str], str],
) -> None:
    name, database = unique_name("failover"), unique_name("failover_db")
    with source.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {database}")
        cursor.execute(f"CREATE TABLE {database}.t (id BIGINT PRIMARY KEY, v INT)")
        cursor.execute(f"INSERT INTO {database}.t VALUES (1, 1)")
    primary = stack.primary(engine)
    with TcpProxy((primary.host, primary.port)) as doomed:
        dataset = Dataset(
            name=name,
            engine=engine,
            tables=(Table(name="t"),),
            clusters=(stack.cluster().name,),
            credentials=stack.credentials(engine, name),
            bootstrap=BootstrapMode.SNAPSHOT,
            topics=TopicSpec(partitions=1, replication=1),
        )
        shard = Shard(dataset=name, id="00000", leader=Address.parse(doomed.address), database=database)
        wanted = Topology(
            clusters={stack.cluster().name: stack.cluster()}, datasets={name: dataset}, shards={name: (shard,)}
        )
        store.import_topology(wanted)
        assert_eventually(lambda: is_synced(store, stack.cluster(), shard.name), "the leader file on every worker")
        ground.deploy(dataset, shard)
        topic = dataset.topic(dataset.tables[0])
        ground.read(topic, lambda found: ids(found) >= {1})
        before = ground.rest.get(f"{ground.url}/connectors/{shard.name}").json()["config"]

        doomed.cut()
        with source.cursor() as cursor:
            cursor.execute(f"INSERT INTO {database}.t VALUES (2, 2)")
        moved = time.monotonic()
        store.set_leader(name, "00000", primary)
        found = ground.read(topic, lambda found: ids(found) >= {1, 2})
        print(f"leader change to first event: {time.monotonic() - moved:.2f} s")

        assert time.monotonic() - moved < 20
        assert [record.value["after"]["v"] for record in found if record.value] == [1, 2], "none lost, none twice"
        assert ground.rest.get(f"{ground.url}/connectors/{shard.name}").json()["config"] == before
        assert sum(f"{shard.name}-0 restarted with leader {primary}" in agents.log(w) for w in stack.workers) == 1
        for worker in stack.workers:
            assert agents.content(worker, shard.name) == LeaderFile(leader=primary, generation=1)

        # The agents are killed, the leader moves, the agents come back.
        doomed.resume()
        for worker in stack.workers:
            agents.kill(worker)
        store.set_leader(name, "00000", Address.parse(doomed.address))
        for worker in stack.workers:
            agents.start(worker)
        assert_eventually(
            lambda: sum(f"restarted with leader {doomed.address}" in agents.log(w) for w in stack.workers) == 1, "it"
        )
        assert_eventually(lambda: ground.task_state(shard) == "RUNNING", "the task runs")
        with source.cursor() as cursor:
            cursor.execute(f"INSERT INTO {database}.t VALUES (3, 3)")
        ground.read(topic, lambda found: ids(found) >= {1, 2, 3})


def ids(found: list[Record]) -> set[int]:
    return {record.value["after"]["id"] for record in found if record.value and record.value.get("after")}


def test_an_agent_of_10_000_shards_is_small_and_fast(
    stack: Stack, store: ZooKeeperTopologyStore, root: str, tmp_path: Path
) -> None:
    shards = tuple(
        Shard(dataset="many", id=f"{number:05d}", leader=Address("db.internal", 3306), database=f"m_{number:05d}")
        for number in range(10_000)
    )
    dataset = Dataset(
        name="many",
        engine=Engine.MARIADB,
        tables=(Table(name="t"),),
        clusters=("main",),
        credentials=stack.credentials(Engine.MARIADB, "many"),
    )
    cluster = Cluster(name="main", urls=stack.connect_urls)
    store.import_topology(Topology(clusters={"main": cluster}, datasets={"many": dataset}, shards={"many": shards}))
    agent = Agents(stack=stack, root=root, logs=tmp_path)
    leaders = tmp_path / "leaders"
    begun = time.monotonic()
    process = agent.start("w0", "--leader-dir", str(leaders))
    try:
        assert_eventually(lambda: "w0" in store.agents(), "the first sync", seconds=90)
        print(f"first sync of 10,000 shards: {time.monotonic() - begun:.1f} s")
        report = AgentReport.from_document(store.agents()["w0"])
        assert report is not None and report.files == 10_000
        assert report.has_written(store.load(), shards[0])
        begun = time.monotonic()
        store.set_leader("many", "05000", Address("new.internal", 3306))
        path = leaders / file_name("many.05000")
        took = seconds_until(lambda: "new.internal" in path.read_text(), "the file")
        print(f"one leader change to its file: {took:.3f} s")
        resident = psutil.Process(process.pid).memory_info().rss / 1024**2
        print(f"resident: {resident:.0f} MB")
        assert resident < 200
    finally:
        agent.stop()
    assert store.agents() == {}, "it signed off"
    store.delete_dataset("many")
