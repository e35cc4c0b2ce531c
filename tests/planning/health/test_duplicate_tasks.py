"""A task that runs twice: what tells of it, and what is done."""

from __future__ import annotations

from datetime import timedelta

from cdc_platform.model.observed import ObservedBeats, ObservedHeartbeats, ObservedWorker
from cdc_platform.planning.health.duplicate_tasks import Suspect, ZombiePolicy, ZombieRecord, decide, suspects
from tests.planning.worlds import NOW

POLICY = ZombiePolicy()


def heartbeats(**spans: tuple[float, float]) -> ObservedHeartbeats:
    """One shard's senders, each with the ages of its first and last heartbeat."""
    senders = {
        worker: (NOW - timedelta(seconds=first), NOW - timedelta(seconds=last))
        for worker, (first, last) in spans.items()
    }
    last = max(end for _, end in senders.values())
    beats = {"pins.00000": ObservedBeats(last=last, senders=senders)}
    return ObservedHeartbeats(since=NOW - timedelta(seconds=75), newest=NOW, beats=beats)


def worker(name: str, *streaming: str) -> ObservedWorker:
    return ObservedWorker(worker=name, streaming=frozenset(streaming))


def test_heartbeats_of_two_workers_in_turn_are_a_zombie() -> None:
    found = suspects(heartbeats(w0=(70, 1), w1=(60, 2)), {}, POLICY)
    assert found["pins.00000"].workers == ("w0", "w1")


def test_a_task_that_moved_is_none() -> None:
    assert suspects(heartbeats(w0=(70, 30), w1=(25, 1)), {}, POLICY) == {}
    # Its last heartbeats may come late, for seconds.
    assert suspects(heartbeats(w0=(70, 15), w1=(25, 1)), {}, POLICY) == {}


def test_an_overlap_that_is_over_is_none() -> None:
    assert suspects(heartbeats(w0=(70, 40), w1=(65, 1)), {}, POLICY) == {}


def test_two_workers_that_are_both_connected_are_a_zombie() -> None:
    workers = {"a:1": worker("a:1", "pins.00000", "pins.00001"), "b:1": worker("b:1", "pins.00000")}
    assert suspects(None, workers, POLICY)["pins.00000"].workers == ("a:1", "b:1")


def test_it_is_stopped_and_resumed_once_confirmed_then_a_person_is_asked() -> None:
    found = {"pins.00000": Suspect(shard="pins.00000", workers=("a", "b"), evidence="seen")}
    records: dict[str, ZombieRecord] = {}
    bounces, now = [], NOW
    for _ in range(30):
        decision = decide(found, records, now, POLICY)
        records |= {name: record for name, record in decision.records.items() if record}
        if decision.stop_and_resume:
            bounces.append(now - NOW)
        now += timedelta(minutes=1)
    assert bounces == [timedelta(minutes=1), timedelta(minutes=4)]
    assert "restart the worker" in decision.findings["pins.00000"]
    over = decide({}, records, now, POLICY)
    assert over.records == {"pins.00000": None}


def test_a_suspicion_of_one_pass_changes_nothing() -> None:
    found = {"pins.00000": Suspect(shard="pins.00000", workers=("a", "b"), evidence="seen")}
    first = decide(found, {}, NOW, POLICY)
    assert first.stop_and_resume == {}
    assert first.records["pins.00000"] == ZombieRecord(since=NOW, workers=("a", "b"))
