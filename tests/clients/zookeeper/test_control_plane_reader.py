"""The watched reader on a real ZooKeeper: whole or not at all, and nothing read twice."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from kazoo.client import KazooClient
from kazoo.security import make_digest_acl

from cdc_platform.clients.zookeeper.topology_store import ZooKeeperTopologyStore
from cdc_platform.errors import ZooKeeperUnavailable
from cdc_platform.model.topology import Topology
from tests.clients.zookeeper.conftest import packets_received
from tests.documents.test_edits import NEW, shard, topology
from tests.tcp_proxy import TcpProxy
from tests.waiting import assert_eventually

pytestmark = pytest.mark.stack


@pytest.fixture
def writer(zookeeper: str, raw: KazooClient, root: str) -> Iterator[ZooKeeperTopologyStore]:
    store = ZooKeeperTopologyStore(zookeeper, root=root)
    yield store
    store.close()


@pytest.fixture
def proxy(zookeeper: str) -> Iterator[TcpProxy]:
    host, _, port = zookeeper.rpartition(":")
    with TcpProxy((host, int(port))) as made:
        yield made


@pytest.fixture
def reader(proxy: TcpProxy, root: str) -> Iterator[ZooKeeperTopologyStore]:
    store = ZooKeeperTopologyStore(proxy.address, root=root, timeout=4.0, load_deadline=20.0)
    yield store
    proxy.resume()
    store.close()


def test_10_000_shards_are_loaded_and_nothing_is_read_again_when_warm(
    writer: ZooKeeperTopologyStore, zookeeper: str, root: str
) -> None:
    wanted = topology(*(shard(number) for number in range(10_000)))
    writer.import_topology(wanted)
    cold = ZooKeeperTopologyStore(zookeeper, root=root)
    before = packets_received(zookeeper)
    assert cold.load() == wanted
    assert 10_000 < packets_received(zookeeper) - before < 10_200

    before = packets_received(zookeeper)
    assert cold.load() is cold.load()
    # One sync a load, the question itself, and a ping of each session now and then.
    assert packets_received(zookeeper) - before < 10

    writer.set_leader("pins", "07000", NEW)
    writer.delete_shard("pins", "00001")
    before = packets_received(zookeeper)
    changed = cold.load()
    assert packets_received(zookeeper) - before < 10
    assert changed.shard("pins", "07000").leader == NEW
    assert len(changed.shards["pins"]) == 9_999
    cold.close()


def test_garbage_in_one_znode_of_10_000_costs_that_shard_only(
    writer: ZooKeeperTopologyStore, raw: KazooClient, root: str
) -> None:
    wanted = topology(*(shard(number) for number in range(10_000)))
    writer.import_topology(wanted)
    raw.set(f"{root}/datasets/pins/shards/04242", b"\x00 garbage")
    found = writer.load()
    assert [problem.name for problem in found.problems] == ["pins.04242"]
    assert found.shards["pins"] == tuple(s for s in wanted.shards["pins"] if s.id != "04242")
    writer.import_topology(wanted)
    assert writer.load() == wanted


def test_without_zookeeper_there_is_one_clear_error_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        dead = f"127.0.0.1:{server.getsockname()[1]}"
    store = ZooKeeperTopologyStore(dead, timeout=1.0)
    begun = time.monotonic()
    with pytest.raises(ZooKeeperUnavailable, match=rf"{dead}: ZooKeeper does not answer.* Cure: "):
        store.load()
    assert time.monotonic() - begun < 5
    store.close()


def test_a_connection_lost_in_mid_load_gives_an_error_and_never_a_part(
    writer: ZooKeeperTopologyStore, reader: ZooKeeperTopologyStore, proxy: TcpProxy
) -> None:
    wanted = topology(*(shard(number) for number in range(5_000)))
    writer.import_topology(wanted)
    for delay in (0.0, 0.05, 0.1, 0.2, 0.3):
        timer = threading.Timer(delay, proxy.cut)
        timer.start()
        with suppress(ZooKeeperUnavailable):
            assert reader.load() == wanted, "whole, if it was faster than the cut"
        timer.join()
        proxy.resume()
        assert_eventually(lambda: whole_load(reader) == wanted, what="a whole load")


def whole_load(reader: ZooKeeperTopologyStore) -> Topology | None:
    try:
        return reader.load()
    except ZooKeeperUnavailable:
        return None


def test_after_the_connection_was_lost_no_watch_is_trusted(
    writer: ZooKeeperTopologyStore, reader: ZooKeeperTopologyStore, proxy: TcpProxy
) -> None:
    writer.import_topology(topology(shard(0), shard(1)))
    told = threading.Event()
    reader.watch(told.set)
    told.clear()
    proxy.cut()
    # The watches of these changes go nowhere.
    writer.set_leader("pins", "00000", NEW)
    writer.delete_shard("pins", "00001")
    with pytest.raises(ZooKeeperUnavailable):
        reader.load()
    proxy.resume()
    assert told.wait(15), "whoever watches is told that there may be news"
    found = assert_eventually(lambda: whole_load(reader), what="a load")
    assert [s.id for s in found.shards["pins"]] == ["00000"]
    assert found.shard("pins", "00000").leader == NEW


def test_a_half_open_connection_is_noticed(
    writer: ZooKeeperTopologyStore, reader: ZooKeeperTopologyStore, proxy: TcpProxy
) -> None:
    writer.import_topology(topology(shard(0)))
    assert reader.load() == topology(shard(0))
    proxy.stall()
    begun = time.monotonic()
    with pytest.raises(ZooKeeperUnavailable):
        reader.load()
    assert time.monotonic() - begun < 25
    proxy.cut()
    proxy.resume()
    assert_eventually(lambda: whole_load(reader) == topology(shard(0)), seconds=30, what="a whole load")


def test_an_expired_session_is_replaced(
    writer: ZooKeeperTopologyStore, reader: ZooKeeperTopologyStore, proxy: TcpProxy
) -> None:
    writer.import_topology(topology(shard(0)))
    registration = reader.register_agent("w0", {"pid": 1})
    assert reader.load() == topology(shard(0))
    proxy.cut()
    assert_eventually(lambda: writer.agents() == {}, seconds=20, what="the expiry of the session")
    writer.set_leader("pins", "00000", NEW)
    proxy.resume()
    found = assert_eventually(lambda: whole_load(reader), seconds=20, what="a load")
    assert found.shard("pins", "00000").leader == NEW
    registration.update({"pid": 1})
    assert writer.agents() == {"w0": {"pid": 1}}


def test_shards_that_come_and_go_during_loads_harm_nothing(
    writer: ZooKeeperTopologyStore, zookeeper: str, raw: KazooClient, root: str
) -> None:
    stable = tuple(shard(number) for number in range(500))
    writer.import_topology(topology(*stable))
    stop = threading.Event()
    base = f"{root}/datasets/pins/shards"

    def churn() -> None:
        while not stop.is_set():
            for number in range(20):
                raw.create(f"{base}/x{number}", b'{"leader":"h:1","database":"p"}')
            for number in range(20):
                raw.delete(f"{base}/x{number}")

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(15):
            fresh = ZooKeeperTopologyStore(zookeeper, root=root)
            for _ in range(3):
                found = fresh.load()
                assert not found.problems
                assert [s for s in found.shards["pins"] if not s.id.startswith("x")] == list(stable)
            fresh.close()
    finally:
        stop.set()
        thread.join()
    assert writer.load() == topology(*stable)


def test_a_znode_that_may_not_be_read_is_a_problem_and_is_read_once_it_may(
    writer: ZooKeeperTopologyStore, zookeeper: str, raw: KazooClient, root: str
) -> None:
    writer.import_topology(topology(shard(0), shard(1)))
    path = f"{root}/datasets/pins/shards/00001"
    open_acl = raw.get_acls(path)[0]
    raw.add_auth("digest", "somebody:else")
    raw.set_acls(path, [make_digest_acl("somebody", "else", all=True)])
    # Not writer: it holds a good copy. An ACL sets no watch off.
    fresh = ZooKeeperTopologyStore(zookeeper, root=root)
    found = fresh.load()
    assert found.shards["pins"] == (shard(0),)
    assert [problem.name for problem in found.problems] == ["pins.00001"]
    assert "does not let this client read it" in found.problems[0].message
    raw.set_acls(path, open_acl)
    assert fresh.load() == topology(shard(0), shard(1))
    fresh.close()


def test_a_long_list_and_large_documents_fit(writer: ZooKeeperTopologyStore, raw: KazooClient, root: str) -> None:
    names = {f"{'long' * 9}{number:04d}" for number in range(10_000)}  # 400 KB of children
    base = f"{root}/datasets/pins/shards"
    writer.import_topology(topology(shard(0)))
    transaction = raw.transaction()
    for number, name in enumerate(sorted(names)):
        transaction.create(f"{base}/{name}", b"")
        if number % 500 == 499:
            transaction.commit()
            transaction = raw.transaction()
    raw.set(f"{base}/00000", b'{"leader":"h:1","database":"p","x":"' + b"y" * 900_000 + b'"}')
    found = writer.load()
    assert len(found.problems) == 10_001
    assert "too many" in next(p.message for p in found.problems if p.name == "pins.00000")
