"""Heartbeats decide who is stuck, and nothing else does."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from cdc_platform.model.observed import ObservedBeats, ObservedHeartbeats, ObservedWorker
from cdc_platform.model.topology import Engine, Limits
from cdc_platform.planning.health.liveness import (
    LeaderRecord,
    LivenessPolicy,
    LiveRecord,
    doubtful,
    judge,
    leader_changes,
    moving,
    silence_limit,
)
from tests.planning.worlds import NOW, dataset, shard

POLICY = LivenessPolicy()
LIMIT = timedelta(seconds=60)


def beats(ages: dict[str, float], *, window: float = 75.0, newest_age: float = 0.0) -> ObservedHeartbeats:
    newest = NOW - timedelta(seconds=newest_age)
    return ObservedHeartbeats(
        since=newest - timedelta(seconds=window),
        newest=newest,
        beats={
            name: ObservedBeats(last=newest - timedelta(seconds=age), senders={"w0": (newest, newest)})
            for name, age in ages.items()
        },
    )


def known(*names: str) -> dict[str, LiveRecord]:
    return {name: LiveRecord(since=NOW - timedelta(days=1)) for name in names}


def test_a_shard_that_stopped_beating_is_silent_and_its_neighbours_are_alive() -> None:
    found = judge({"a": LIMIT, "b": LIMIT}, beats({"a": 3.0}), known("a", "b"), NOW)
    assert found.alive == {"a"}
    assert found.silent == {"b": 75.0}
    assert found.problem is None


def test_an_old_heartbeat_in_a_long_window_is_silence_by_its_age() -> None:
    assert judge({"a": LIMIT, "b": LIMIT}, beats({"a": 1, "b": 61}), known("a", "b"), NOW).silent == {"b": 61.0}


def test_who_never_beat_is_not_judged_its_snapshot_may_run() -> None:
    found = judge({"a": LIMIT, "b": LIMIT}, beats({"a": 1}), known("a"), NOW)
    assert found.silent == {}
    assert found.first == frozenset()


def test_who_snapshots_again_is_not_judged() -> None:
    found = judge({"a": LIMIT, "b": LIMIT}, beats({"a": 1}), known("a", "b"), NOW, frozenset({"b"}))
    assert found.silent == {}


def test_a_first_heartbeat_is_told_once() -> None:
    assert judge({"a": LIMIT}, beats({"a": 1}), {}, NOW).first == {"a"}
    assert judge({"a": LIMIT}, beats({"a": 1}), known("a"), NOW).first == frozenset()


def test_nothing_is_judged_without_heartbeats_or_when_the_whole_fleet_is_silent() -> None:
    running, before = {"a": LIMIT, "b": LIMIT}, known("a", "b")
    empty = ObservedHeartbeats(since=NOW - LIMIT, newest=None, beats={})
    stranger = beats({"somebody.else": 0.0})
    stopped = beats({"a": 0.0, "b": 1.0}, newest_age=300.0)
    for heartbeats in (None, empty, stranger, stopped):
        found = judge(running, heartbeats, before, NOW)
        assert found.silent == {}
        assert found.problem


def test_a_reading_shorter_than_the_limit_judges_nobody() -> None:
    assert judge({"a": LIMIT, "b": LIMIT}, beats({"a": 1}, window=30), known("a", "b"), NOW).silent == {}


@given(st.floats(-1e7, 50.0))
def test_this_machines_clock_makes_nobody_stuck(skew: float) -> None:
    # Behind, or ahead by less than the limit: the ages are the records' own.
    found = judge({"a": LIMIT, "b": LIMIT}, beats({"a": 1, "b": 5}), known("a", "b"), NOW + timedelta(seconds=skew))
    assert found.alive == {"a", "b"}
    assert found.silent == {}


def test_a_rate_limited_dataset_may_be_silent_for_as_long_as_its_queue_takes() -> None:
    slow = dataset(limits=Limits(bytes_per_second=100_000))
    assert silence_limit(dataset(), POLICY) == POLICY.silence
    assert silence_limit(slow, POLICY) > timedelta(minutes=10)
    assert silence_limit(dataset(engine=Engine.POSTGRES, limits=slow.limits), POLICY) == POLICY.silence


def test_a_moving_shard_is_left_alone_until_its_deadline_whatever_the_clock_does() -> None:
    moved = shard("pins", 0, generation=3)
    assert moving(shard("pins", 0), None, NOW, POLICY) is None
    assert moving(moved, None, NOW, POLICY) == NOW + POLICY.leader_move
    seen = LeaderRecord(generation=3, since=NOW - POLICY.leader_move / 2)
    assert moving(moved, seen, NOW, POLICY) == NOW + POLICY.leader_move / 2
    assert moving(moved, LeaderRecord(generation=3, since=NOW - POLICY.leader_move), NOW, POLICY) is None
    older = LeaderRecord(generation=2, since=NOW - timedelta(days=9))
    assert moving(moved, older, NOW, POLICY) == NOW + POLICY.leader_move
    future = LeaderRecord(generation=3, since=NOW + timedelta(days=9))
    assert moving(moved, future, NOW, POLICY) == NOW + POLICY.leader_move


def test_a_new_generation_is_remembered_once_and_forgotten_with_its_shard() -> None:
    shards = {"pins.00000": shard("pins", 0, generation=1), "pins.00001": shard("pins", 1)}
    changes = leader_changes(shards, {"pins.00009": LeaderRecord(generation=1, since=NOW)}, NOW)
    assert changes == {"pins.00009": None, "pins.00000": LeaderRecord(generation=1, since=NOW)}
    kept = {name: record for name, record in changes.items() if record}
    assert leader_changes(shards, kept, NOW + timedelta(hours=1)) == {}


def test_doubt_falls_on_who_is_not_connected_and_without_metrics_on_who_does_not_beat() -> None:
    running = dict.fromkeys(("fine", "cut", "mute", "first"), ("w0", LIMIT))
    connected = frozenset({"fine", "mute"})
    worker = ObservedWorker(worker="w0", streaming=connected, snapshotting=frozenset({"first"}))
    all_beat = beats({"fine": 1, "cut": 1})
    assert doubtful(running, all_beat, {"w0": worker}, NOW) == {"cut"}
    assert doubtful(running, None, {"w0": worker}, NOW) == {"cut"}
    blind = ObservedWorker(worker="w0", problem="away")
    assert doubtful(running, all_beat, {"w0": blind}, NOW) == {"mute", "first"}
    assert doubtful(running, None, {"w0": blind}, NOW) == set()


def test_doubt_falls_on_all_of_a_fleet_that_fell_silent_at_once() -> None:
    running = dict.fromkeys(("a", "b"), ("w0", LIMIT))
    assert doubtful(running, beats({"a": 0, "b": 1}, newest_age=59), {}, NOW) == set()
    assert doubtful(running, beats({"a": 0, "b": 1}, newest_age=70), {}, NOW) == {"a", "b"}
