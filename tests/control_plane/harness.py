"""A platform of the test's own on the shared real stack: topology, databases, leader files, passes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pymysql
from confluent_kafka import Consumer, TopicPartition
from kazoo.client import KazooClient

from cdc_platform.clients.platform import Platform
from cdc_platform.clients.secrets import current, login, resolve_all
from cdc_platform.connectors.leader_files import LeaderFile, file_name, render
from cdc_platform.errors import CdcError
from cdc_platform.local import artifacts
from cdc_platform.local.stack import Stack
from cdc_platform.local.workers import worker_launch
from cdc_platform.model.topology import Address, Cluster, Dataset, Engine, Shard, Table, TopicSpec
from cdc_platform.planning.health.liveness import LivenessPolicy
from cdc_platform.planning.inputs import PassPolicy
from cdc_platform.reconciler import run_pass as reconciler
from cdc_platform.reconciler.report import PassReport
from cdc_platform.settings import CONFIG_ENV, Settings, default_cache_dir
from cdc_platform.wiring import open_platform
from tests.settings_file import write_settings
from tests.waiting import assert_eventually

# A loaded machine of four cores is what these tests must bear.
DEADLINE = 180.0


@dataclass(kw_only=True)
class Harness:
    """One dataset on the stack's servers of an engine of binlogs, and the platform that captures it."""

    stack: Stack
    settings: Settings
    name: str
    platform: Platform
    engine: Engine = Engine.MARIADB
    clusters: dict[str, Cluster] = field(default_factory=dict)
    homes: dict[str, list[Path]] = field(default_factory=dict)
    dataset: Dataset = field(init=False)
    rest: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.rest = self.stack.rest(timeout=60)
        cluster = self.stack.cluster()
        self.clusters[cluster.name] = cluster
        self.homes[cluster.name] = [self.stack.directory / "workers" / w for w in self.stack.workers]
        self.dataset = Dataset(
            name=self.name,
            engine=self.engine,
            tables=(Table(name="items"),),
            clusters=(cluster.name,),
            credentials=self.stack.credentials(self.engine, self.name),
            topics=TopicSpec(partitions=1, replication=1),
        )
        self.platform.topology.put_cluster(cluster)
        self.platform.topology.put_dataset(self.dataset)

    @property
    def topic(self) -> str:
        return f"cdc.{self.name}.items"

    def shard_name(self, number: int) -> str:
        return f"{self.name}.{number:05d}"

    def add(self, count: int, leader: Address | None = None) -> list[Shard]:
        """Databases with a table, leader files on all workers, and znodes."""
        leader = leader or self.stack.primary(self.engine)
        added = []
        for number in range(count):
            database = f"{self.name}_{number:05d}"
            self.execute(f"CREATE DATABASE IF NOT EXISTS {database}")
            self.execute(f"CREATE TABLE IF NOT EXISTS {database}.items (id INT PRIMARY KEY, v VARCHAR(40))")
            shard = Shard(dataset=self.name, id=f"{number:05d}", leader=leader, database=database)
            self.write_leader(shard)
            self.platform.topology.put_shard(shard)
            added.append(shard)
        return added

    def write_leader(self, shard: Shard) -> None:
        """What the agent beside each worker does."""
        for home in [home for homes in self.homes.values() for home in homes]:
            (home / "leaders").mkdir(parents=True, exist_ok=True)
            text = render(LeaderFile(leader=shard.leader, generation=shard.generation))
            (home / "leaders" / file_name(shard.name)).write_text(text)

    def execute(self, statement: str) -> None:
        login, at = self.stack.admin(self.engine), self.stack.primary(self.engine)
        with (
            pymysql.connect(
                host=at.host, port=at.port, user=login.user, password=login.password, autocommit=True
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(statement)

    def insert(self, number: int, key: int) -> None:
        self.execute(f"INSERT INTO {self.name}_{number:05d}.items VALUES ({key}, 'v{key}')")

    def policy(self, **more: Any) -> PassPolicy:
        """That of the settings, with times a test can wait for."""
        quick = LivenessPolicy()
        return replace(reconciler.policy_of(self.platform), liveness=quick, **more)

    def reconcile(self, **more: Any) -> PassReport:
        return reconciler.reconcile(self.platform, owner="test", wait_for_lock=60.0, **more)

    def settle(self, **more: Any) -> PassReport:
        """Passes until all shards are up, have beaten, and nothing is left to do."""

        def quiet() -> PassReport | None:
            report = self.reconcile(**more)
            up = all(health.up == health.shards for health in report.health.values())
            beaten = all(f"live/{s.name}" in self.records() for s in self.shards())
            return report if up and beaten and not report.outcomes else None

        report: PassReport = assert_eventually(quiet, "all shards are up and beat, nothing to do")
        return report

    def shards(self) -> tuple[Shard, ...]:
        return self.platform.topology.load().shards.get(self.name, ())

    def records(self) -> Mapping[str, Mapping[str, Any]]:
        return self.platform.state.read()

    def url(self, cluster: str = "local") -> str:
        return self.clusters[cluster].urls[0]

    def get(self, path: str, cluster: str = "local") -> Any:
        """A GET of Connect's REST API, without the platform's client, asked again in a rebalance; None for a 404."""
        end = time.monotonic() + DEADLINE
        while True:
            answer = self.rest.get(f"{self.url(cluster)}{path}")
            if answer.status_code == httpx.codes.NOT_FOUND:
                return None
            if answer.is_success:
                return answer.json()
            assert time.monotonic() < end, answer.text
            time.sleep(0.3)

    def call(self, method: str, path: str, cluster: str = "local", **more: Any) -> None:
        """A change by hand, asked again while the group rebalances."""

        def done() -> bool:
            answer = self.rest.request(method, f"{self.url(cluster)}{path}", **more)
            if answer.status_code == httpx.codes.CONFLICT:
                return False
            answer.raise_for_status()
            return True

        assert_eventually(done, f"{method} {path}")

    def task_states(self, name: str, cluster: str = "local") -> list[str]:
        status = self.get(f"/connectors/{name}/status", cluster)
        return [task["state"] for task in (status or {}).get("tasks", [])]

    def keys_in_topic(self) -> list[tuple[str, int]]:
        """Every event of the table's topic: (shard, id), in no order."""
        consumer = Consumer({**resolve_all(self.settings.kafka), "group.id": "plain", "enable.partition.eof": False})
        try:
            partition = TopicPartition(self.topic, 0, 0)
            _, end = consumer.get_watermark_offsets(partition, timeout=30)
            consumer.assign([partition])
            found: list[tuple[str, int]] = []
            position = 0
            while position < end:
                for message in consumer.consume(1000, 0.5):
                    if message.error() is None:
                        position = (message.offset() or 0) + 1
                        key: Any = httpx.Response(200, content=message.key()).json()
                        found.append((key["shard"], key["id"]))
                position = max(position, consumer.position([partition])[0].offset)
            return found
        finally:
            consumer.close()

    def close(self) -> None:
        """Take all connectors of this platform away, and the settings' file."""
        (self.stack.directory / f"{self.name}.toml").unlink(missing_ok=True)
        for cluster in self.clusters.values():
            with suppress(CdcError):
                client = self.platform.connect(cluster)
                for name, seen in client.connectors().items():
                    if seen.owner == self.settings.platform:
                        client.delete(name)

    @contextmanager
    def worker(self, directory: Path, **overrides: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
        """One more worker, its process and URL; of the stack's own group unless `overrides` say otherwise."""
        port, metrics = free_port(), free_port()
        launch = worker_launch(
            7,
            directory,
            ports={"connect": port, "metrics": metrics},
            kafka_port=self.stack.kafka.port,
            secrets=self.stack.secrets_dir,
            programs=artifacts.provide(default_cache_dir()),
            heap_mb=512,
            overrides=overrides,
            log=directory / "worker.log",
            security=self.stack.security,
        )
        with (directory / "worker.log").open("wb") as log:
            process = subprocess.Popen(
                launch.argv, cwd=launch.cwd, env={**os.environ, **launch.env}, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            url = f"{'https' if self.stack.secure else 'http'}://127.0.0.1:{port}"
            assert_eventually(lambda: self._answers(url), "the worker answers")
            yield process, url
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    @contextmanager
    def zookeeper(self) -> Iterator[KazooClient]:
        """A plain client with the platform's login."""
        auth = current(login(self.settings.zookeeper_user, self.settings.zookeeper_password))
        client = KazooClient(self.settings.zookeeper, auth_data=[("digest", ":".join(auth))] if auth else None)
        client.start()
        try:
            yield client
        finally:
            client.stop()
            client.close()

    def _answers(self, url: str) -> bool:
        try:
            return self.rest.get(f"{url}/connectors", timeout=5).is_success
        except httpx.HTTPError:
            return False

    @contextmanager
    def extra_worker(self, directory: Path) -> Iterator[subprocess.Popen[bytes]]:
        """One more worker of the stack's group, with leader files of its own."""
        self.homes["local"].append(directory)
        try:
            for shard in self.shards():
                self.write_leader(shard)
            with self.worker(directory) as (process, _):
                yield process
        finally:
            self.homes["local"].remove(directory)

    @contextmanager
    def second_cluster(self, directory: Path) -> Iterator[Cluster]:
        """A Connect group of its own on the same Kafka: one worker."""
        own = {
            "group.id": f"{self.name}-second",
            "config.storage.topic": f"{self.name}-second-configs",
            "offset.storage.topic": f"{self.name}-second-offsets",
            "status.storage.topic": f"{self.name}-second-status",
        }
        self.homes["second"] = [directory]
        with self.worker(directory, **own) as (_, url):
            cluster = Cluster(name="second", urls=(url,), leader_dir=self.clusters["local"].leader_dir)
            self.clusters["second"] = cluster
            self.platform.topology.put_cluster(cluster)
            try:
                yield cluster
            finally:
                self.close()
                del self.clusters["second"]

    def spawn(self, *arguments: str) -> subprocess.Popen[str]:
        """A control plane in a process of its own (`runner.py`)."""
        return subprocess.Popen(
            [sys.executable, "-m", "tests.control_plane.runner", *arguments],
            env=self.process_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def process_environment(self) -> dict[str, str]:
        """This process' environment with the settings in it."""
        path = self.stack.directory / f"{self.name}.toml"
        return {**os.environ, CONFIG_ENV: str(write_settings(self.settings, path))}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def harness_of(stack: Stack, settings: Settings, name: str, engine: Engine = Engine.MARIADB) -> Iterator[Harness]:
    """A platform named as its dataset, so that its connectors and topics are its own."""
    own = replace(settings, platform=name, heartbeat_topic=f"{name}.heartbeat", connect_timeout=30.0)
    with open_platform(own) as platform:
        harness = Harness(stack=stack, settings=own, name=name, platform=platform, engine=engine)
        try:
            yield harness
        finally:
            harness.close()
            harness.rest.close()
