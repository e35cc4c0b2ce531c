"""Promotions that are not finished, replicas behind, old leaders that go on: on real pairs, connectors and agents."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest

from cdc_platform.clients.sources.leader_probes import Found, ReadOnlyProbe
from cdc_platform.clients.zookeeper.topology_store import ZooKeeperTopologyStore
from cdc_platform.connectors.config import desired_config
from cdc_platform.local import postgres
from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import Address, Engine, Shard
from tests.conftest import own_stack
from tests.failover.harness import Harness, a_dataset, cli, deploy, failing, ids, report, sql
from tests.local import mariadb_servers, postgres_servers
from tests.waiting import assert_eventually

pytestmark = [pytest.mark.stack, pytest.mark.slow]


@pytest.fixture(scope="module")
def pairs() -> Iterator[Stack]:
    """A stack of this module's own: its servers are promoted."""
    with own_stack(workers=1) as started:
        yield started


@pytest.fixture(scope="module")
def store(pairs: Stack) -> Iterator[ZooKeeperTopologyStore]:
    made = ZooKeeperTopologyStore(str(pairs.zookeeper))
    yield made
    made.close()


@pytest.fixture(scope="module")
def harness(pairs: Stack) -> Iterator[Harness]:
    made = Harness(stack=pairs, settings=pairs.settings())
    yield made
    made.close()


def test_mariadb_failover_waits_for_a_replica_that_is_behind_and_for_the_whole_promotion(
    pairs: Stack, store: ZooKeeperTopologyStore, harness: Harness
) -> None:
    old, new = pairs.mariadb_primary, pairs.mariadb_replica
    with sql(old, pairs) as cursor:
        cursor.execute("CREATE DATABASE shop")
        cursor.execute("CREATE TABLE shop.t (id BIGINT PRIMARY KEY)")
        cursor.execute("INSERT INTO shop.t VALUES (1)")
    dataset = a_dataset(pairs, "shop", Engine.MARIADB)
    shard = Shard(dataset="shop", id="0", leader=old, database="shop", replicas=(new,))
    deploy(harness, store, dataset, shard)
    topic = dataset.topic(dataset.tables[0])
    assert cli(pairs, "topology", "discover", "shop").exit_code == 0, "ZooKeeper is right"
    assert ReadOnlyProbe(pairs.settings()).leader(dataset, shard) == Found(leader=old)

    # A replica that stands still, while the connector goes on.
    with sql(new, pairs) as cursor:
        cursor.execute("STOP SLAVE SQL_THREAD")
    with sql(old, pairs) as cursor:
        cursor.execute("INSERT INTO shop.t VALUES (2)")
        cursor.execute("SELECT @@gtid_binlog_pos")
        reached = cursor.fetchone()[0]
    harness.read(topic, lambda found: ids(found) >= {1, 2})
    assert_eventually(lambda: harness.offset(shard).get("gtids") == reached, "the position of row 2 is saved")
    refused = cli(pairs, "topology", "set-leader", "shop", "0", str(new))
    assert refused.exit_code == 2 and "is not fit to lead" in refused.output
    assert {"promoted", "up", "leader"} <= failing(refused), refused.output
    assert reached in refused.output and store.load().shard("shop", "0").leader == old

    # HA tooling moves the leader all the same: the agent holds the task back, and says why.
    store.set_leader("shop", "0", new)
    assert_eventually(
        lambda: "has not reached the saved position" in report(store).blocked.get("shop.0", ""), "held: behind"
    )
    assert harness.task_state(shard) == "RUNNING"
    shown = json.loads(cli(pairs, "status", "shop", "0", "--json").output)
    assert any("waits for its new leader" in text for text in shown["findings"]), shown

    # It catches up and is promoted, but not all of it: the server id is another.
    with sql(new, pairs) as cursor:
        cursor.execute("START SLAVE SQL_THREAD")
    assert_eventually(lambda: "SET GLOBAL server_id = 1" in report(store).blocked.get("shop.0", ""), "held: server id")
    # Whatever starts the task meanwhile starts it with the leader that it can go on from.
    assert harness.rest.post(f"{harness.url}/connectors/shop.0/tasks/0/restart").is_success
    with sql(old, pairs) as cursor:
        cursor.execute("INSERT INTO shop.t VALUES (3)")
    harness.read(topic, lambda found: ids(found) >= {1, 2, 3})
    preflight = cli(pairs, "topology", "set-leader", "shop", "0", str(old), "--dry-run")
    assert "reachable" in preflight.output

    # What the message says, in its order. Nobody tells the agent that it is done.
    login = pairs.admin(Engine.MARIADB)
    with mariadb_servers.writes_locked(old.port, login) as position:
        assert_eventually(lambda: mariadb_servers.behind(new.port, login, position) is None, "the replica has all")
        pairs.kill("mariadb-1")
    with sql(new, pairs) as cursor:
        cursor.execute("STOP SLAVE")
        cursor.execute("RESET SLAVE ALL")
        cursor.execute("SET GLOBAL server_id = 1")
        cursor.execute("SET GLOBAL read_only = OFF")
    with sql(new, pairs) as cursor:
        cursor.execute("INSERT INTO shop.t VALUES (4)")
    found = harness.read(topic, lambda found: ids(found) >= {1, 2, 3, 4}, 120)
    rows = [r.value["after"]["id"] for r in found if r.value and r.value.get("after")]
    assert sorted(rows) == [1, 2, 3, 4], "none lost, none twice"
    assert_eventually(lambda: not report(store).blocked and not report(store).moving, "the move is over")
    assert report(store).split == {}, "the old server is gone: nothing is seen"
    assert cli(pairs, "topology", "discover", "shop").exit_code == 0
    assert ReadOnlyProbe(pairs.settings()).leader(dataset, shard) == Found(leader=new), "ZooKeeper's word is not taken"


def test_postgres_failover_and_split_brain(pairs: Stack, store: ZooKeeperTopologyStore, harness: Harness) -> None:
    old, new = pairs.postgres_primary, pairs.postgres_standby
    login = pairs.admin(Engine.POSTGRES)
    with postgres.connect(old.port, login) as admin:
        admin.execute("CREATE DATABASE orders OWNER cdc")

    def run(address: Address, statement: str) -> None:
        with psycopg.connect(
            host=address.host, port=address.port, user=login.user, password=login.password,
            dbname="orders", autocommit=True, connect_timeout=5,
        ) as connection:  # fmt: skip
            connection.execute(statement)

    run(old, "CREATE TABLE t (id INT PRIMARY KEY)")
    run(old, "ALTER TABLE t REPLICA IDENTITY FULL")
    run(old, "ALTER TABLE t OWNER TO cdc")
    run(old, "INSERT INTO t VALUES (1)")
    dataset = a_dataset(pairs, "orders", Engine.POSTGRES)
    without = replace(dataset, name="bare", connector={"slot.failover": "false"})
    shard = Shard(dataset="orders", id="0", leader=old, database="orders", replicas=(new,))
    bare = Shard(dataset="bare", id="0", leader=old, database="orders", replicas=(new,))
    deploy(harness, store, dataset, shard)
    deploy(harness, store, without, bare)
    topic = dataset.topic(dataset.tables[0])
    harness.read(topic, lambda found: ids(found) >= {1})
    slot = desired_config(dataset, shard, pairs.cluster(), harness.settings)["slot.name"]

    refused = cli(pairs, "topology", "set-leader", "orders", "0", str(new))
    assert refused.exit_code == 2 and "promoted" in failing(refused) and "leader" in failing(refused)

    # The standby has the slot only some time after the connector began.
    def ready() -> bool:
        postgres_servers.log_snapshot(old.port, login)
        return postgres_servers.slots_not_ready(new.port, login, frozenset([slot])) is None

    assert_eventually(ready, "the failover slot is on the standby", 120)
    run(old, "INSERT INTO t VALUES (2)")
    harness.read(topic, lambda found: ids(found) >= {1, 2})
    position = postgres_servers.flushed(old.port, login)
    assert_eventually(lambda: postgres_servers.behind(new.port, login, position) is None, "the standby has all")
    postgres_servers.promote(new.port, login)

    # Promoted while the old primary goes on: the preflight says so, discovery names nobody.
    refused = cli(pairs, "topology", "set-leader", "orders", "0", str(new))
    assert refused.exit_code == 2 and failing(refused) == {"leader"}, refused.output
    found = cli(pairs, "topology", "discover", "orders")
    assert found.exit_code == 2 and f"split brain: {old} and {new} take writes" in found.output
    moved = cli(pairs, "topology", "set-leader", "orders", "0", str(new), "--force")
    assert moved.exit_code == 0 and "skipped by --force: old leader" in moved.output
    run(new, "INSERT INTO t VALUES (3)")
    harness.read(topic, lambda found: ids(found) >= {1, 2, 3})
    assert_eventually(lambda: "orders.0" in report(store).split, "split brain is seen")
    run(old, "INSERT INTO t VALUES (999)")
    assert_eventually(
        lambda: "wrote: its log went from" in report(store).split.get("orders.0", ""), "writes there are seen"
    )
    shown = json.loads(cli(pairs, "status", "orders", "0", "--json").output)
    assert any(text.startswith("split brain: ") for text in shown["findings"]), shown

    # Without a failover slot there is nothing to go on with, and that is said before anything is tried.
    refused = cli(pairs, "topology", "set-leader", "bare", "0", str(new))
    assert "slot" in failing(refused) and "Bootstrap the shard" in refused.output
    store.set_leader("bare", "0", new)
    assert_eventually(lambda: "has no slot" in report(store).blocked.get("bare.0", ""), "held: no slot")
    assert harness.task_state(bare) == "RUNNING", "its old run goes on"

    # The old one is fenced: the split is over, and the probe finds the one leader.
    store.set_leader("orders", "0", old)
    assert_eventually(lambda: "orders.0" in report(store).moving, "the move back is taken up")
    pairs.kill("postgres-1")
    assert_eventually(lambda: "orders.0" not in report(store).split, "the split is over")
    assert cli(pairs, "topology", "discover", "orders").exit_code == 2
    applied = cli(pairs, "topology", "discover", "orders", "--apply")
    assert f"orders.0: {new} leads: moved, generation 3" in applied.output
    run(new, "INSERT INTO t VALUES (4)")
    found_rows = harness.read(topic, lambda found: ids(found) >= {1, 2, 3, 4}, 120)
    assert 999 not in ids(found_rows), "what was written on the old leader is captured by nobody"
    assert cli(pairs, "topology", "discover", "orders").exit_code == 0
