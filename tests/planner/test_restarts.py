"""Restart policy: classes, backoff, probes and budgets."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_platform.restarts import (
    CURES,
    Failing,
    Failure,
    RestartPolicy,
    RestartRecord,
    backoff,
    classify,
    decide,
)

from .worlds import NOW

POLICY = RestartPolicy()


def failing(number: int, failure: Failure = Failure.CONNECTION, host: str = "db-1:3306") -> Failing:
    return Failing(name=f"pins.{number:05d}", failure=failure, host=host, worker=f"w{number % 3}:8083")


@pytest.mark.parametrize(
    ("trace", "failure"),
    [
        ("java.net.ConnectException: Connection refused", Failure.CONNECTION),
        ("Caused by: com.mysql.cj.exceptions.CJException: Communications link failure", Failure.CONNECTION),
        ("Access denied for user 'cdc'@'10.0.0.1' (using password: YES)", Failure.AUTHENTICATION),
        ('FATAL: password authentication failed for user "cdc"', Failure.AUTHENTICATION),
        ("The connector is trying to read change stream starting at x, but this is no longer available on the server."
         " Reconfigure the connector", Failure.LOG_PURGED),
        ("ERROR: replication slot \"cdc_orders_1\" does not exist", Failure.SLOT_MISSING),
        ("can no longer get changes from replication slot \"cdc_orders_1\"", Failure.SLOT_MISSING),
        ("The db history topic is missing. You may attempt to recover it", Failure.SCHEMA_HISTORY),
        ("java.lang.OutOfMemoryError: Java heap space", Failure.OUT_OF_MEMORY),
        ("org.apache.kafka.common.errors.RecordTooLargeException: The message is 9 bytes", Failure.POISON_RECORD),
        ("java.lang.IllegalStateException: surprising", Failure.UNKNOWN),
        (None, Failure.UNKNOWN),
    ],
)  # fmt: skip
def test_a_trace_is_read(trace: str | None, failure: Failure) -> None:
    assert classify(trace) is failure


def test_the_first_failure_is_restarted_at_once() -> None:
    decision = decide([failing(1)], {}, {}, NOW)
    assert [f.name for f in decision.restart] == ["pins.00001"]
    record = decision.records["pins.00001"]
    assert record is not None
    assert record.attempts == 1
    assert record.next_restart > NOW


def test_the_backoff_survives_a_moment_of_running() -> None:
    record = decide([failing(1)], {}, {}, NOW).records["pins.00001"]
    assert record is not None
    up = decide([], {"pins.00001": "db-1:3306"}, {"pins.00001": record}, NOW + timedelta(seconds=5))
    assert up.records == {}
    again = decide([failing(1)], {}, {"pins.00001": record}, NOW + timedelta(seconds=6))
    assert again.restart == ()
    assert again.waiting["pins.00001"].until == record.next_restart
    healthy = decide([], {"pins.00001": "db-1:3306"}, {"pins.00001": record}, NOW + POLICY.healthy_after)
    assert healthy.records == {"pins.00001": None}


def test_wrong_credentials_are_not_retried_blindly() -> None:
    first = decide([failing(1, Failure.AUTHENTICATION)], {}, {}, NOW)
    assert first.restart == ()
    record = first.records["pins.00001"]
    assert record is not None
    assert record.next_restart - NOW == CURES[Failure.AUTHENTICATION].first_wait


@pytest.mark.parametrize("failure", [f for f in Failure if not CURES[f].automatic])
def test_what_a_restart_cannot_cure_waits_for_a_person_with_advice(failure: Failure) -> None:
    decision = decide([failing(1, failure)], {}, {}, NOW + timedelta(days=3))
    assert decision.restart == ()
    assert CURES[failure].advice in decision.waiting["pins.00001"].reason


def test_a_broken_database_of_500_shards_costs_one_restart_a_pass() -> None:
    fleet = [failing(n) for n in range(500)]
    records: dict[str, RestartRecord] = {}
    total = 0
    for minute in range(30):
        decision = decide(fleet, {}, records, NOW + timedelta(minutes=minute))
        records |= {name: record for name, record in decision.records.items() if record}
        assert len(decision.restart) <= 1
        total += len(decision.restart)
    assert total == 30
    # The host is back as soon as one of its connectors stays up: then all others, within the budgets.
    freed = decide(fleet[1:], {"pins.00000": "db-1:3306"}, records, NOW + timedelta(minutes=31))
    per_worker = {w: sum(f.worker == w for f in freed.restart) for w in ("w0:8083", "w1:8083", "w2:8083")}
    assert len(freed.restart) == 30
    assert set(per_worker.values()) == {POLICY.worker_budget}


def test_a_crash_loop_is_called_one() -> None:
    records: dict[str, RestartRecord] = {}
    now, verdicts = NOW, []
    for _ in range(POLICY.crash_loop_after + 1):
        decision = decide([failing(1, Failure.UNKNOWN)], {}, records, now)
        verdicts.append(bool(decision.crash_looping))
        records |= {name: record for name, record in decision.records.items() if record}
        now = records["pins.00001"].next_restart
    assert verdicts == [False] * POLICY.crash_loop_after + [True]


@given(st.text(min_size=1, max_size=20), st.integers(1, 60))
def test_backoff_grows_within_its_jitter_and_never_beyond_its_bound(name: str, attempts: int) -> None:
    wait = backoff(name, Failure.CONNECTION, attempts, POLICY)
    assert wait == backoff(name, Failure.CONNECTION, attempts, POLICY)
    assert wait <= POLICY.longest_wait * (1 + POLICY.jitter)
    assert wait >= CURES[Failure.CONNECTION].first_wait * (1 - POLICY.jitter)
    later = backoff(name, Failure.CONNECTION, attempts + 4, POLICY)
    assert later >= wait * 0.6
