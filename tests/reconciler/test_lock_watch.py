"""Whoever lost the lock stops within a second, whatever it waits for."""

from __future__ import annotations

import threading
import time

import pytest

from cdc_platform.errors import LockLost
from cdc_platform.model.topology import Topology
from cdc_platform.reconciler.lock_watch import LockWatch
from cdc_platform.testing.zookeeper import InMemoryTopologyStore
from tests.reconciler.harness import Harness, cluster, dataset, shards


class Lock:
    """A lock that is lost when a test says so."""

    generation = 7

    def __init__(self) -> None:
        self.lost = False

    def check(self) -> None:
        if self.lost:
            raise LockLost("gone.")


def lose_in(lock: Lock, seconds: float) -> float:
    threading.Timer(seconds, lambda: setattr(lock, "lost", True)).start()
    return time.monotonic() + seconds


def test_work_that_hangs_is_left_behind_within_a_second() -> None:
    lock, never = Lock(), threading.Event()
    at = lose_in(lock, 0.3)
    with pytest.raises(LockLost):
        LockWatch(lock).run(lambda tell: never.wait(60))
    assert time.monotonic() - at < 1.0
    never.set()


def test_calls_in_flight_are_not_waited_for_and_the_rest_is_never_made() -> None:
    lock, never, made = Lock(), threading.Event(), []

    def call() -> None:
        made.append(1)
        never.wait(60)

    at = lose_in(lock, 0.3)
    with pytest.raises(LockLost):
        LockWatch(lock).each([call] * 50, at_once=4)
    assert time.monotonic() - at < 1.0
    never.set()
    time.sleep(0.2)
    assert len(made) == 4


def test_sleeping_ends_with_the_lock() -> None:
    lock = Lock()
    at = lose_in(lock, 0.2)
    with pytest.raises(LockLost):
        LockWatch(lock).sleep(60)
    assert time.monotonic() - at < 1.0


def test_what_the_work_tells_arrives_in_the_calling_thread_and_its_errors_too() -> None:
    told: list[tuple[str, str]] = []

    def work(tell: object) -> int:
        tell("one")  # type: ignore[operator]
        tell("two")  # type: ignore[operator]
        return 3

    here = threading.current_thread().name
    assert LockWatch(Lock()).run(work, lambda text: told.append((text, threading.current_thread().name))) == 3
    assert told == [("one", here), ("two", here)]
    with pytest.raises(ZeroDivisionError):
        LockWatch(Lock()).run(lambda tell: 1 // 0)


def test_a_pass_that_loses_its_session_in_mid_apply_writes_nothing_more() -> None:
    harness = Harness("east")
    harness.put(
        Topology(
            datasets={"pins": dataset(clusters=("east",))},
            shards={"pins": shards("pins", 60)},
            clusters={"east": cluster("east")},
        )
    )
    platform = harness.control_plane()
    lost_at: list[float] = []

    def after(verb: str, name: str) -> None:
        if verb == "create" and not lost_at:
            assert isinstance(platform.topology, InMemoryTopologyStore)
            platform.topology.expire()
            lost_at.append(time.monotonic())

    harness.after = after
    from cdc_platform.reconciler import run_pass as reconciler

    with pytest.raises(LockLost):
        reconciler.reconcile(platform, owner="old")
    assert time.monotonic() - lost_at[0] < 1.0
    # What was in flight may have come through; nothing was begun afterwards.
    made = len(harness.connect["east"].connectors())
    assert made <= 16
    time.sleep(0.3)
    assert len(harness.connect["east"].connectors()) == made
    harness.after = lambda verb, name: None
    assert not harness.reconcile().failed
    assert len(harness.connect["east"].connectors()) == 60
