"""MySQL by GTID sets: a replica behind, transactions of its own, a purged log, an old primary that comes back."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from click.testing import Result

from cdc_platform.clients.sources.leader_probes import Found, ReadOnlyProbe
from cdc_platform.clients.zookeeper.topology_store import ZooKeeperTopologyStore
from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import Address, Engine, Shard
from tests.conftest import own_stack
from tests.failover.harness import Harness, a_dataset, cli, deploy, failing, ids, report, sql
from tests.local import mysql_servers
from tests.waiting import assert_eventually

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.mysql]


@pytest.fixture(scope="module")
def pair() -> Iterator[Stack]:
    """A stack of this module's own: its servers are promoted."""
    with own_stack(workers=1, mariadb=False, postgres=False, mysql=True) as started:
        yield started


def test_mysql_failover_goes_by_gtid_sets_and_loses_nothing(pair: Stack) -> None:
    store, harness = ZooKeeperTopologyStore(str(pair.zookeeper)), Harness(stack=pair, settings=pair.settings())
    try:
        assert_failover(pair, store, harness)
    finally:
        harness.close()
        store.close()


def assert_failover(pair: Stack, store: ZooKeeperTopologyStore, harness: Harness) -> None:
    engine = Engine.MYSQL
    old, new, login = pair.primary(engine), pair.replica(engine), pair.admin(engine)
    with sql(old, pair, engine) as cursor:
        cursor.execute("CREATE DATABASE shop")
        cursor.execute("CREATE TABLE shop.t (id BIGINT PRIMARY KEY)")
        cursor.execute("INSERT INTO shop.t VALUES (1)")
    dataset, late = a_dataset(pair, "shop", engine), a_dataset(pair, "late", engine)
    shard = Shard(dataset="shop", id="0", leader=old, database="shop", replicas=(new,))
    stopped = Shard(dataset="late", id="0", leader=old, database="shop", replicas=(new,))
    deploy(harness, store, dataset, shard)
    deploy(harness, store, late, stopped)
    topic = dataset.topic(dataset.tables[0])
    assert cli(pair, "topology", "discover", "shop").exit_code == 0, "ZooKeeper is right"
    assert ReadOnlyProbe(pair.settings()).leader(dataset, shard) == Found(leader=old)

    # A replica that stands still: the primary no longer waits for it (semi-sync is lost), and the connector goes on.
    semi_sync(pair, old, new)
    with sql(new, pair, engine) as cursor:
        cursor.execute("STOP REPLICA")
    with sql(old, pair, engine) as cursor:
        cursor.execute("INSERT INTO shop.t VALUES (2)")
    assert not has_semi_sync(pair, old)
    harness.read(topic, lambda found: ids(found) >= {1, 2})
    assert_eventually(lambda: "up" in failing(_refused(pair, "shop", new)), "the position of row 2 is saved")
    refused = _refused(pair, "shop", new)
    assert failing(refused) >= {"promoted", "up", "leader"}, refused.output
    store.set_leader("shop", "0", new)
    assert_eventually(
        lambda: "has not reached the saved position" in report(store).blocked.get("shop.0", ""), "held: behind"
    )
    shown = json.loads(cli(pair, "status", "shop", "0", "--json").output)
    assert any("waits for its new leader" in text for text in shown["findings"]), shown
    store.set_leader("shop", "0", old)

    # An errant transaction: it is in no binlog of the old leader, and in the new one's table.
    with sql(new, pair, engine) as cursor:
        cursor.execute("START REPLICA")
        cursor.execute("SET GLOBAL super_read_only = OFF")
        cursor.execute("INSERT INTO shop.t VALUES (100)")
        cursor.execute("SET GLOBAL super_read_only = ON")
    harness.rest.put(f"{harness.url}/connectors/{stopped.name}/stop")

    # Planned: writes are held until the replica has all, and it is promoted.
    with mysql_servers.writes_locked(old.port, login) as position:
        assert_eventually(lambda: mysql_servers.behind(new.port, login, position) is None, "the replica has all")
        pair.kill("mysql-1")
    mysql_servers.become_primary(new.port, login, "mysql-2")
    moved = cli(pair, "topology", "set-leader", "shop", "0", str(new))
    assert moved.exit_code == 0, moved.output
    with sql(new, pair, engine) as cursor:
        cursor.execute("INSERT INTO shop.t VALUES (3)")
    found = harness.read(topic, lambda found: ids(found) >= {1, 2, 3, 100}, 120)
    rows = [r.value["after"]["id"] for r in found if r.value and r.value.get("after")]
    assert sorted(rows) == [1, 2, 3, 100], "none lost, none twice, and what only the new leader had is there"
    assert ReadOnlyProbe(pair.settings()).leader(dataset, shard) == Found(leader=new)

    # The other connector stood still meanwhile; what follows its position is purged on the new leader.
    with sql(new, pair, engine) as cursor:
        cursor.execute("FLUSH BINARY LOGS")
        cursor.execute("SHOW BINARY LOGS")
        cursor.execute(f"PURGE BINARY LOGS TO '{cursor.fetchall()[-1][0]}'")
    refused = _refused(pair, "late", new)
    assert "kept" in failing(refused) and "it purged transactions that follow" in refused.output, refused.output
    store.set_leader("late", "0", new)
    assert_eventually(lambda: "it purged transactions" in report(store).blocked.get("late.0", ""), "held: purged")

    # The old primary comes back, unfenced, and is written to: it lacks what the new one took.
    pair.start("mysql-1")
    with sql(old, pair, engine) as cursor:
        cursor.execute("INSERT INTO shop.t VALUES (999)")
    refused = _refused(pair, "shop", old)
    assert failing(refused) >= {"up", "leader"} and "it takes writes of its own" in refused.output, refused.output
    store.set_leader("shop", "0", old)
    assert_eventually(lambda: "it takes writes of its own" in report(store).blocked.get("shop.0", ""), "held: diverged")
    with sql(new, pair, engine) as cursor:
        cursor.execute("INSERT INTO shop.t VALUES (4)")
    found = harness.read(topic, lambda found: ids(found) >= {4})
    assert 999 not in ids(found), "what the old leader took is captured by nobody"


def semi_sync(pair: Stack, old: Address, new: Address) -> None:
    """Have the primary wait for its replica, half a second at most."""
    with sql(new, pair, Engine.MYSQL) as cursor:
        cursor.execute("SET GLOBAL super_read_only = OFF")
        cursor.execute("INSTALL PLUGIN rpl_semi_sync_replica SONAME 'semisync_replica.so'")
        cursor.execute("SET GLOBAL super_read_only = ON")
        cursor.execute("SET GLOBAL rpl_semi_sync_replica_enabled = ON")
        cursor.execute("STOP REPLICA IO_THREAD")
        cursor.execute("START REPLICA IO_THREAD")
    with sql(old, pair, Engine.MYSQL) as cursor:
        cursor.execute("INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'")
        cursor.execute("SET GLOBAL rpl_semi_sync_source_timeout = 500")
        cursor.execute("SET GLOBAL rpl_semi_sync_source_enabled = ON")
    assert_eventually(lambda: has_semi_sync(pair, old), "the primary waits for its replica", 60)


def has_semi_sync(pair: Stack, primary: Address) -> bool:
    with sql(primary, pair, Engine.MYSQL) as cursor:
        cursor.execute("SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_source_status'")
        return bool(cursor.fetchone()[1] == "ON")


def _refused(pair: Stack, dataset: str, leader: object) -> Result:
    found = cli(pair, "topology", "set-leader", dataset, "0", str(leader), "--dry-run")
    assert found.exit_code != 0, found.output
    return found
