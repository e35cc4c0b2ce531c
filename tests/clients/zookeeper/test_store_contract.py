"""What every `TopologyStore` keeps to: the fake and the real one alike."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from cdc_platform.clients.protocols import TopologyStore
from cdc_platform.errors import LockHeld, LockLost, NotFound, PlanRefused, TopologyError
from cdc_platform.model.topology import Address, Pause, Topology
from tests.clients.zookeeper.conftest import Server
from tests.documents.test_edits import CLUSTER, DATASET, NEW, OLD, shard, topology
from tests.waiting import assert_eventually


@pytest.fixture
def store(server: Server) -> Iterator[TopologyStore]:
    yield server.store()


def test_an_empty_server_gives_an_empty_topology(store: TopologyStore) -> None:
    assert store.load() == Topology()
    assert store.agents() == {}
    assert store.lock_owner() is None


def test_what_is_put_is_loaded_by_every_session(server: Server, store: TopologyStore) -> None:
    other = server.store()
    assert other.load() == Topology()
    store.put_cluster(CLUSTER)
    store.put_dataset(DATASET)
    for number in (2, 0, 1):
        store.put_shard(shard(number))
    expected = topology(shard(0), shard(1), shard(2))
    assert store.load() == expected
    assert other.load() == expected
    store.delete_shard("pins", "00001")
    store.delete_shard("pins", "00001")
    assert other.load() == topology(shard(0), shard(2))
    store.delete_dataset("pins")
    store.delete_dataset("pins")
    assert other.load() == Topology(clusters={"main": CLUSTER})


def test_a_shard_needs_its_dataset(store: TopologyStore) -> None:
    with pytest.raises(NotFound, match="no dataset 'pins'"):
        store.put_shard(shard(0))
    assert store.load() == Topology()


def test_import_dry_run_then_import_then_nothing(store: TopologyStore) -> None:
    wanted = topology(*(shard(number) for number in range(1200)))
    changes = store.import_topology(wanted, dry_run=True)
    assert len(changes) == 1202
    assert store.load() == Topology()
    assert store.import_topology(wanted) == changes
    assert store.load() == wanted
    assert store.import_topology(wanted) == ()


def test_import_deletes_what_is_absent_within_the_cap(store: TopologyStore) -> None:
    store.import_topology(topology(*(shard(number) for number in range(700))))
    with pytest.raises(PlanRefused):
        store.import_topology(topology(shard(0)), max_deletes=698)
    assert len(store.load().shards["pins"]) == 700
    gone = store.import_topology(topology(shard(0)), max_deletes=699)
    assert {change.action for change in gone} == {"delete"}
    assert store.load() == topology(shard(0))
    store.import_topology(Topology(), prune=True)
    assert store.load() == Topology()


def test_set_leader_counts_generations_and_reaches_the_others(server: Server, store: TopologyStore) -> None:
    store.import_topology(topology(shard(0)))
    other = server.store()
    assert other.load().shard("pins", "00000").leader == OLD
    assert store.set_leader("pins", "00000", NEW) == shard(0, leader=NEW, generation=1)
    assert store.set_leader("pins", "00000", NEW).generation == 1, "it leads already"
    assert other.load().shard("pins", "00000") == shard(0, leader=NEW, generation=1)
    with pytest.raises(NotFound):
        store.set_leader("pins", "00009", NEW)
    with pytest.raises(TopologyError, match="meanwhile"):
        store.put_shard(shard(0, database="q"))  # as it was read before the move


def test_concurrent_leader_changes_each_get_their_generation(server: Server, store: TopologyStore) -> None:
    store.import_topology(topology(shard(0)))
    stores = [server.store() for _ in range(3)]

    def move(number: int) -> None:
        stores[number].set_leader("pins", "00000", Address(f"host-{number}", 1))

    threads = [threading.Thread(target=move, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.load().shard("pins", "00000").generation == 3


def test_unknown_fields_survive_every_write(server: Server, store: TopologyStore) -> None:
    store.import_topology(topology(shard(0)))
    path = f"{server.root}/datasets/pins/shards/00000"  # type: ignore[attr-defined]
    server.write(path, b'{"leader":"old:3306","database":"p","rack":{"row":7}}')
    store.set_leader("pins", "00000", NEW)
    store.set_pause("pins", "00000", Pause(reason="r", author="a"))
    store.put_shard(replace(store.load().shard("pins", "00000"), database="q"))
    store.import_topology(topology(shard(0, database="z")))
    assert store.load().shard("pins", "00000").extra == {"rack": {"row": 7}}


def test_pauses_of_platform_dataset_and_shard(store: TopologyStore) -> None:
    store.import_topology(topology(shard(0)))
    pause = Pause(reason="a move", author="ann", until=datetime(2030, 1, 1, 12, tzinfo=UTC))
    for dataset, shard_id in ((None, None), ("pins", None), ("pins", "00000")):
        store.set_pause(dataset, shard_id, pause)
    found = store.load()
    assert found.pause == found.dataset("pins").pause == found.shard("pins", "00000").pause == pause
    for dataset, shard_id in ((None, None), ("pins", None), ("pins", "00000"), (None, None)):
        store.set_pause(dataset, shard_id, None)
    assert store.load() == topology(shard(0))
    with pytest.raises(NotFound):
        store.set_pause("nothing", None, pause)


def test_one_garbage_znode_costs_that_shard_only_until_it_is_mended(server: Server, store: TopologyStore) -> None:
    store.import_topology(topology(shard(0), shard(1)))
    path = f"{server.root}/datasets/pins/shards/00001"  # type: ignore[attr-defined]
    server.write(path, b"\xff garbage")
    found = store.load()
    assert found.shards["pins"] == (shard(0),)
    assert [(problem.kind, problem.name) for problem in found.problems] == [("shard", "pins.00001")]
    with pytest.raises(TopologyError, match="is no JSON"):
        store.set_leader("pins", "00001", NEW)
    store.import_topology(topology(shard(0), shard(1)))
    assert store.load() == topology(shard(0), shard(1))


def test_a_garbage_dataset_keeps_its_shards_for_failover(server: Server, store: TopologyStore) -> None:
    store.import_topology(topology(shard(0)))
    server.write(f"{server.root}/datasets/pins", b"")  # type: ignore[attr-defined]
    found = store.load()
    assert not found.datasets and [problem.kind for problem in found.problems] == ["dataset"]
    assert found.shards["pins"] == (shard(0),)


def test_watch_tells_of_each_kind_of_change(server: Server, store: TopologyStore) -> None:
    told = threading.Event()
    end = server.store().watch(told.set)
    watcher = server.store()
    end_of_second = watcher.watch(told.set)
    for change in (
        lambda: store.import_topology(topology(shard(0))),
        lambda: store.put_shard(shard(1)),
        lambda: store.set_leader("pins", "00000", NEW),
        lambda: store.set_pause(None, None, Pause(reason="r", author="a")),
        lambda: store.set_pause(None, None, None),
        lambda: store.delete_shard("pins", "00001"),
        lambda: store.delete_dataset("pins"),
    ):
        watcher.load()
        told.clear()
        change()
        assert told.wait(10), "a change was not told"
    end()
    end_of_second()


def test_zxid_rises_with_each_change_of_a_shard_and_is_the_same_for_all(server: Server, store: TopologyStore) -> None:
    store.import_topology(topology(shard(0), shard(1)))
    seen = [store.load().zxid]
    store.set_leader("pins", "00000", NEW)
    seen.append(store.load().zxid)
    server.write(f"{server.root}/datasets/pins/shards/00001", b"garbage")  # type: ignore[attr-defined]
    seen.append(store.load().zxid)
    assert seen == sorted(set(seen))
    assert server.store().load().zxid == seen[-1]


def test_one_holder_of_the_lock(server: Server, store: TopologyStore) -> None:
    other = server.store()
    with store.lock(owner="run one") as lock:
        lock.check()
        assert other.lock_owner() == "run one"
        with pytest.raises(LockHeld, match="run one holds the lock"), other.lock(owner="run two"):
            pytest.fail("two holders")
        with pytest.raises(LockHeld), other.lock(owner="run two", timeout=0.3):
            pytest.fail("two holders")
        lock.check()
        first = lock.generation
    with pytest.raises(LockLost):
        lock.check()
    assert other.lock_owner() is None
    with other.lock(owner="run two") as second:
        second.check()
        assert second.generation > first


def test_a_waiting_pass_gets_the_lock_when_it_is_given_back(server: Server, store: TopologyStore) -> None:
    other = server.store()
    got = threading.Event()

    def wait() -> None:
        with other.lock(owner="second", timeout=20):
            got.set()

    with store.lock(owner="first"):
        thread = threading.Thread(target=wait)
        thread.start()
        assert not got.wait(0.5)
    assert got.wait(10)
    thread.join(10)


def test_the_lock_is_free_after_an_error(store: TopologyStore) -> None:
    with suppress(ZeroDivisionError), store.lock(owner="one"):
        raise ZeroDivisionError
    with store.lock(owner="two"):
        assert store.lock_owner() == "two"


def test_agents_are_seen_while_they_live(server: Server, store: TopologyStore) -> None:
    session = server.store()
    agent = session.register_agent("w0:8083", {"pid": 1, "synced": 0})
    assert store.agents() == {"w0:8083": {"pid": 1, "synced": 0}}
    agent.update({"pid": 1, "synced": 7})
    assert store.agents() == {"w0:8083": {"pid": 1, "synced": 7}}
    session.close()  # type: ignore[attr-defined]
    assert_eventually(lambda: store.agents() == {}, what="the end of the agent's znode")
    with pytest.raises(TopologyError, match="not a valid worker id"):
        store.register_agent("../control/lock", {})


def test_the_newest_agent_of_a_worker_wins_and_the_other_learns_of_it(server: Server, store: TopologyStore) -> None:
    first = server.store().register_agent("w0", {"pid": 1})
    second = server.store().register_agent("w0", {"pid": 2})
    assert store.agents() == {"w0": {"pid": 2}}
    with pytest.raises(LockHeld, match="another agent"):
        first.update({"pid": 1})
    second.update({"pid": 2, "synced": 1})
    second.close()
    assert store.agents() == {}
