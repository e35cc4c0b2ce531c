"""The lock of the control plane on a real ZooKeeper, and what happens to its holder."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from kazoo.client import KazooClient

from cdc_platform.clients.protocols import ControlLock
from cdc_platform.clients.zookeeper.topology_store import ZooKeeperTopologyStore
from cdc_platform.errors import LockHeld, LockLost, ZooKeeperUnavailable
from tests.tcp_proxy import TcpProxy
from tests.waiting import assert_eventually

pytestmark = pytest.mark.stack

# Takes the lock and says every 50 ms whether it still has it.
HOLDER = """
import sys, time
from cdc_platform.clients.zookeeper.topology_store import ZooKeeperTopologyStore
from cdc_platform.errors import LockLost
hosts, root, timeout = sys.argv[1:]
with ZooKeeperTopologyStore(hosts, root, float(timeout)).lock(owner="holder") as lock:
    while True:
        try:
            lock.check()
            print("held", flush=True)
        except LockLost as error:
            print("lost", error, flush=True)
            sys.exit(3)
        time.sleep(0.05)
"""


@pytest.fixture
def store(zookeeper: str, raw: KazooClient, root: str) -> Iterator[ZooKeeperTopologyStore]:
    made = ZooKeeperTopologyStore(zookeeper, root=root)
    yield made
    made.close()


@pytest.fixture
def holder(zookeeper: str, root: str) -> Iterator[Callable[[float], subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start(timeout: float) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLDER, zookeeper, root, str(timeout)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.communicate()


def take(store: ZooKeeperTopologyStore, within: float) -> float:
    begun = time.monotonic()
    with store.lock(owner="next", timeout=within) as lock:
        lock.check()
    return time.monotonic() - begun


def lost(lock: ControlLock) -> bool:
    try:
        lock.check()
    except LockLost:
        return True
    return False


def test_after_kill_9_the_lock_is_free_in_less_than_15_seconds(
    store: ZooKeeperTopologyStore, holder: Callable[[float], subprocess.Popen[str]]
) -> None:
    process = holder(10.0)
    with pytest.raises(LockHeld, match="holder holds the lock"), store.lock(owner="next"):
        pytest.fail("two holders")
    process.kill()
    assert take(store, within=15.0) < 15.0


def test_a_holder_that_was_stopped_knows_it_before_it_does_anything(
    store: ZooKeeperTopologyStore, holder: Callable[[float], subprocess.Popen[str]]
) -> None:
    process = holder(4.0)
    process.send_signal(signal.SIGSTOP)
    take(store, within=15.0)  # the server gave the lock to another
    process.send_signal(signal.SIGCONT)
    assert process.stdout is not None
    lines = process.stdout.read().splitlines()
    assert process.wait(10) == 3
    # What it printed before it was stopped is still in the pipe; of the rest, all is one line.
    assert lines[-1].startswith("lost")
    assert lines.count("held") == len(lines) - 1


def test_a_cut_connection_loses_the_lock_within_a_second(zookeeper: str, raw: KazooClient, root: str) -> None:
    host, _, port = zookeeper.rpartition(":")
    with TcpProxy((host, int(port))) as proxy:
        store = ZooKeeperTopologyStore(proxy.address, root=root, timeout=4.0)
        with store.lock(owner="cut") as lock:
            lock.check()
            proxy.cut()
            assert_eventually(lambda: lost(lock), seconds=1.0, what="the loss")
            proxy.resume()
            time.sleep(0.5)
            assert lost(lock), "lost is lost, also when the connection is back"
        other = ZooKeeperTopologyStore(zookeeper, root=root)
        assert take(other, within=15.0) < 15.0
        other.close()


def test_a_silent_network_loses_the_lock_before_another_can_have_it(
    zookeeper: str, raw: KazooClient, root: str
) -> None:
    host, _, port = zookeeper.rpartition(":")
    other = ZooKeeperTopologyStore(zookeeper, root=root)
    with TcpProxy((host, int(port))) as proxy:
        store = ZooKeeperTopologyStore(proxy.address, root=root, timeout=4.0)
        with store.lock(owner="stalled") as lock:
            proxy.stall()
            stalled = time.monotonic()
            while not lost(lock):
                with pytest.raises(LockHeld), other.lock(owner="other"):
                    pytest.fail("two holders")
                assert time.monotonic() - stalled < 4.0
                time.sleep(0.05)
            proxy.cut()
        take(other, within=15.0)
    other.close()


def test_a_deleted_lock_znode_is_noticed_within_a_second(
    store: ZooKeeperTopologyStore, raw: KazooClient, root: str
) -> None:
    with store.lock(owner="operator wants it gone") as lock:
        lock.check()
        raw.delete(f"{root}/control/lock", recursive=True)
        assert_eventually(lambda: lost(lock), seconds=1.0, what="the loss")


def test_generations_rise_also_when_the_lock_path_was_deleted(
    store: ZooKeeperTopologyStore, raw: KazooClient, root: str
) -> None:
    seen = []
    for _ in range(3):
        with store.lock(owner="x") as lock:
            seen.append(lock.generation)
        raw.delete(f"{root}/control", recursive=True)
    assert seen == sorted(set(seen))


def test_without_zookeeper_the_lock_is_a_clear_error(zookeeper: str, root: str) -> None:
    host, _, port = zookeeper.rpartition(":")
    with TcpProxy((host, int(port))) as proxy:
        proxy.cut()
        store = ZooKeeperTopologyStore(proxy.address, root=root, timeout=1.0)
        with pytest.raises(ZooKeeperUnavailable), store.lock(owner="x"):
            pytest.fail("no ZooKeeper, no lock")
