"""Uneven groups: seen, cured in small steps, never while they settle."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from cdc_platform.model.observed import ObservedCluster, ObservedWorker
from cdc_platform.planning.health.task_balance import BalancePolicy, SkewRecord, decide, fullest, tasks_by_worker
from tests.planning.worlds import NOW, cluster, connector

POLICY = BalancePolicy()


def test_all_tasks_on_one_worker_are_a_skew() -> None:
    assert fullest({"a": 12, "b": 0, "c": 0}, POLICY) == ("a", 8)
    assert fullest({"a": 1000, "b": 300, "c": 200}, POLICY) == ("a", 500)


def test_small_differences_are_none() -> None:
    assert fullest({"a": 8, "b": 3, "c": 4}, POLICY) is None
    assert fullest({"a": 1000, "b": 900, "c": 700}, POLICY) is None
    assert fullest({"a": 12}, POLICY) is None


def test_idle_workers_count_when_their_metrics_show_them() -> None:
    here = cluster(metrics={"w0:8083": "http://w0", "w1:8083": "http://w1", "w2:8083": "http://w2"})
    seen = ObservedCluster(
        name="main", connectors={f"pins.{n}": connector(f"pins.{n}", {}, worker="w0:8083") for n in range(9)}
    )
    workers = {
        "w1:8083": ObservedWorker(worker="w1:8083"),
        "w2:8083": ObservedWorker(worker="w2:8083", problem="no answer"),
    }
    assert tasks_by_worker(here, seen, workers) == {"w0:8083": 9, "w1:8083": 0}


def test_a_group_that_is_not_settled_or_not_read_is_not_judged() -> None:
    moving = {"pins.0": connector("pins.0", {}, task="UNASSIGNED")}
    assert tasks_by_worker(cluster(), ObservedCluster(name="main", connectors=moving), {}) is None
    assert tasks_by_worker(cluster(), ObservedCluster(name="main", connectors=None), {}) is None
    record = SkewRecord(since=NOW)
    assert decide(None, {}, record, NOW + timedelta(days=1), POLICY).stop_and_resume == ()


def test_the_cure_begins_with_one_connector_and_stays_small() -> None:
    tasks, movable = {"a": 60, "b": 0, "c": 0}, {"a": [f"pins.{n:05d}" for n in range(60)]}
    record, now, steps = None, NOW, []
    for _ in range(12):
        decision = decide(tasks, movable, record, now, POLICY)
        record = decision.record
        steps.append(len(decision.stop_and_resume))
        now += timedelta(minutes=1)
    assert steps == [0, 0, 0, 1, 0, 5, 0, 5, 0, 5, 0, 5]


def test_an_even_group_forgets_the_skew() -> None:
    decision = decide({"a": 5, "b": 5}, {}, SkewRecord(since=NOW), NOW, POLICY)
    assert decision.changed
    assert decision.record is None


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 2000), min_size=1), st.integers(0, 400))
def test_never_more_than_the_bound_and_only_from_the_fullest(tasks: dict[str, int], minutes: int) -> None:
    movable = {worker: [f"{worker}.{n}" for n in range(min(number, 50))] for worker, number in tasks.items()}
    record = SkewRecord(since=NOW, cures=3, last_cure=NOW)
    decision = decide(tasks, movable, record, NOW + timedelta(minutes=minutes), POLICY)
    assert len(decision.stop_and_resume) <= POLICY.most
    assert all(tasks[name[0]] == max(tasks.values()) for name in decision.stop_and_resume)
