"""Connectors that follow the leader files of the stack's own agents, and what tests of failover ask."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pymysql
from click.testing import CliRunner, Result

from cdc_platform.cli.main import main
from cdc_platform.clients.zookeeper.topology_store import ZooKeeperTopologyStore
from cdc_platform.local.stack import Stack
from cdc_platform.model.agent_report import AgentReport
from cdc_platform.model.topology import Address, BootstrapMode, Dataset, Engine, Shard, Table, TopicSpec, Topology
from tests.connectors.harness import Harness as ConnectorHarness
from tests.connectors.harness import Record
from tests.waiting import assert_eventually


class Harness(ConnectorHarness):
    """Connectors whose leader files the stack's own agents write."""

    def write_leader(self, shard: Shard) -> None:
        """Nothing: the agents do it."""


@contextmanager
def sql(address: Address, pairs: Stack, engine: Engine = Engine.MARIADB) -> Iterator[Any]:
    """A cursor of the administrator."""
    login = pairs.admin(engine)
    connection = pymysql.connect(
        host=address.host, port=address.port, user=login.user, password=login.password, autocommit=True
    )
    try:
        with connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()


def ids(found: list[Record]) -> set[int]:
    return {r.value["after"]["id"] for r in found if r.value and r.value.get("after")}


def cli(pairs: Stack, *arguments: str) -> Result:
    env = {"CDC_PLATFORM_CONFIG": str(pairs.settings_file), "COLUMNS": "300"}
    return CliRunner().invoke(main, list(arguments), env=env, catch_exceptions=False)


def failing(result: Result) -> set[str]:
    return {line.split(":")[0].split()[-1] for line in result.output.splitlines() if line.startswith("FAILS")}


def report(store: ZooKeeperTopologyStore) -> AgentReport:
    found = AgentReport.from_document(store.agents()["w0"])
    assert found is not None
    return found


def deploy(harness: Harness, store: ZooKeeperTopologyStore, dataset: Dataset, shard: Shard) -> None:
    cluster = harness.stack.cluster()
    known = store.load()
    store.import_topology(
        Topology(
            clusters={cluster.name: cluster},
            datasets={**known.datasets, dataset.name: dataset},
            shards={**known.shards, dataset.name: (shard,)},
        )
    )
    assert_eventually(
        lambda: report(store).has_written(store.load(), store.load().shard(dataset.name, shard.id)), "the file"
    )
    harness.deploy(dataset, shard)
    assert_eventually(lambda: bool(harness.offset(shard)), "an offset is committed", 120)


def a_dataset(pairs: Stack, name: str, engine: Engine) -> Dataset:
    return Dataset(
        name=name,
        engine=engine,
        tables=(Table(name="t"),),
        clusters=(pairs.cluster().name,),
        credentials=pairs.credentials(engine, name),
        bootstrap=BootstrapMode.SNAPSHOT,
        topics=TopicSpec(partitions=1, replication=1),
    )
