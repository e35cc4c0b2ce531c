"""Restart policy: classes, backoff, probes and budgets."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_platform.planning.health.failures import CURES, Failure, classify
from cdc_platform.planning.health.restarts import Failing, RestartPolicy, RestartRecord, backoff, decide
from tests.planning.worlds import NOW

POLICY = RestartPolicy()


def failing(number: int, failure: Failure = Failure.CONNECTION, host: str = "db-1:3306") -> Failing:
    return Failing(name=f"pins.{number:05d}", failure=failure, host=host, worker=f"w{number % 3}:8083")


@pytest.mark.parametrize(
    ("trace", "failure"),
    [
        ("java.net.ConnectException: Connection refused", Failure.CONNECTION),
        ("Caused by: com.mysql.cj.exceptions.CJException: Communications link failure", Failure.CONNECTION),
        ("Access denied for user 'cdc'@'10.0.0.1' (using password: YES)", Failure.AUTHENTICATION),
        ("the source refused: Access denied, this account is locked.", Failure.AUTHENTICATION),
        ("the source refused: You must SET PASSWORD before executing this statement.", Failure.AUTHENTICATION),
        ('FATAL: role "cdc" is not permitted to log in', Failure.AUTHENTICATION),
        ('FATAL: password authentication failed for user "cdc"', Failure.AUTHENTICATION),
        ("The connector is trying to read change stream starting at x, but this is no longer available on the server."
         " Reconfigure the connector", Failure.LOG_PURGED),
        ('NullPointerException: Cannot invoke "GtidSet.toString()" because "this.gtidSet" is null', Failure.LOG_PURGED),
        ("Caused by: io.debezium.DebeziumException: Could not find GTID state requested by slave in any binlog files."
         " Probably the slave state is too old and required binlog files have been purged. Error code: 1236;",
         Failure.LOG_PURGED),
        ("ERROR: replication slot \"cdc_orders_1\" does not exist", Failure.SLOT_MISSING),
        ("trying to read change stream starting at PostgresOffsetContext [sourceInfoSchema=...], but this is no longer"
         " available on the server.", Failure.SLOT_MISSING),
        ("can no longer get changes from replication slot \"cdc_orders_1\"", Failure.SLOT_MISSING),
        ("The db history topic is missing. You may attempt to recover it", Failure.SCHEMA_HISTORY),
        ("java.lang.OutOfMemoryError: Java heap space", Failure.OUT_OF_MEMORY),
        ("org.apache.kafka.common.errors.RecordTooLargeException: The message is 9 bytes", Failure.POISON_RECORD),
        ("org.apache.kafka.common.InvalidRecordException: Compacted topic cannot accept message without key in topic",
         Failure.POISON_RECORD),
        ("org.apache.kafka.connect.errors.SchemaBuilderException: Cannot create field because of field name"
         " duplication shard", Failure.POISON_RECORD),
        ("ConnectException: An exception occurred in the change event producer. This connector will be stopped.\n"
         "Caused by: ConnectException: Error while processing event at offset {lsn_proc=155734344}\n"
         "Caused by: io.debezium.DebeziumException: Failed to properly convert data value for 'public.items.moods' of"
         " type _mood", Failure.POISON_RECORD),
        ("Caused by: io.debezium.text.ParsingException: DDL statement couldn't be parsed. Please open a Jira issue with"
         " the statement 'CREATE TABLE t (a int) COMMENT 'connection refused, Java heap space''\nno viable alternative",
         Failure.DDL_UNPARSED),
        ("Caused by: org.antlr.v4.runtime.NoViableAltException", Failure.DDL_UNPARSED),
        ("io.debezium.text.MultipleParsingExceptions: Multiple parsing errors", Failure.DDL_UNPARSED),
        ("Caused by: io.debezium.DebeziumException: Error processing row in items, internal schema size 2, but row size"
         " 3 , restart connector with schema recovery mode.", Failure.SCHEMA_MISMATCH),
        ("Caused by: java.lang.NullPointerException: Cannot invoke \"com.github.shyiko.mysql.binlog.event"
         ".deserialization.ColumnType.ordinal()\" because \"type\" is null", Failure.COLUMN_UNREADABLE),
        ('java.lang.NullPointerException: Cannot invoke "Object.toString()" because "x" is null', Failure.UNKNOWN),
        ("Caused by: org.postgresql.util.PSQLException: ERROR: all replication slots are in use\n"
         "  Hint: Free one or increase max_replication_slots.", Failure.NO_FREE_SLOT),
        ("Caused by: org.apache.kafka.common.errors.TimeoutException: Topic cdc.pins.Orders not present in metadata"
         " after 60000 ms.", Failure.TOPIC_MISSING),
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


def test_wrong_credentials_of_one_host_are_tried_by_one_shard_every_quarter_hour() -> None:
    fleet = [failing(n, Failure.AUTHENTICATION) for n in range(100)]
    records: dict[str, RestartRecord] = {}
    tries = []
    for minute in range(60):
        decision = decide(fleet, {}, records, NOW + timedelta(minutes=minute))
        records |= {name: record for name, record in decision.records.items() if record}
        tries += [minute] * len(decision.restart)
    assert tries == [15, 30, 45]


def test_another_dataset_that_is_well_on_the_host_does_not_free_wrong_credentials() -> None:
    fleet = [failing(n, Failure.AUTHENTICATION) for n in range(10)]
    healthy = {"orders.00001": "db-1:3306"}
    records: dict[str, RestartRecord] = {}
    for minute in (0, 16):
        decision = decide(fleet, healthy, records, NOW + timedelta(minutes=minute))
        records |= {name: record for name, record in decision.records.items() if record}
    assert len(decision.restart) == 1
    same = {"pins.00099": "db-1:3306"}
    assert len(decide(fleet, same, records, NOW + timedelta(minutes=16)).restart) > 1


def test_the_stuck_are_seen_twice_before_they_are_restarted_and_forgotten_if_they_beat_meanwhile() -> None:
    first = decide([failing(1, Failure.STUCK)], {}, {}, NOW)
    assert first.restart == ()
    record = first.records["pins.00001"]
    assert record is not None
    beats = decide([], {"pins.00001": "db-1:3306"}, {"pins.00001": record}, NOW + timedelta(minutes=1))
    assert beats.records == {"pins.00001": None}
    still = decide([failing(1, Failure.STUCK)], {}, {"pins.00001": record}, NOW + timedelta(minutes=1))
    assert [item.name for item in still.restart] == ["pins.00001"]


def test_a_server_without_a_free_slot_is_tried_by_one_shard_although_others_run_there() -> None:
    runs = {f"pins.{n:05d}": "pg-1:5432" for n in range(5)}
    full = [failing(n, Failure.NO_FREE_SLOT, "pg-1:5432") for n in range(5, 50)]
    first = decide(full, runs, {}, NOW)
    assert len(first.restart) == 1
    records = {name: record for name, record in first.records.items() if record}
    again = decide(full, runs, records, NOW + timedelta(minutes=1))
    assert again.restart == ()
    # The one that was tried runs: there are slots again, and the others follow within the budgets.
    probe = first.restart[0].name
    rest = [item for item in full if item.name != probe]
    freed = decide(rest, runs | {probe: "pg-1:5432"}, records, NOW + timedelta(minutes=3))
    assert len(freed.restart) == 3 * POLICY.worker_budget


FAILURES = st.sampled_from(list(Failure))
FLEETS = st.dictionaries(
    st.integers(0, 400), st.tuples(FAILURES, st.sampled_from(["db-1:3306", "db-2:3306", "db-3:3306"])), max_size=200
)


@given(FLEETS, st.lists(st.integers(0, 4000), min_size=1, max_size=8))
def test_bounds_hold_in_every_pass_and_no_shard_is_restarted_before_its_backoff(
    fleet: dict[int, tuple[Failure, str]], steps: list[int]
) -> None:
    items = [failing(number, failure, host) for number, (failure, host) in fleet.items()]
    records: dict[str, RestartRecord] = {}
    now = NOW
    for step in steps:
        now += timedelta(seconds=step)
        decision = decide(items, {}, records, now)
        assert len(decision.restart) <= POLICY.fleet_budget
        for worker in {item.worker for item in decision.restart}:
            assert sum(item.worker == worker for item in decision.restart) <= POLICY.worker_budget
        for item in decision.restart:
            assert CURES[item.failure].automatic
            known = records.get(item.name)
            assert known is None or known.next_restart <= now or known.failure is not item.failure
        accounted = {item.name for item in decision.restart} | set(decision.waiting)
        assert accounted == {item.name for item in items}
        records |= {name: record for name, record in decision.records.items() if record}


@given(st.integers(-(10**8), 10**8), FAILURES)
def test_a_clock_that_jumped_puts_no_restart_off_for_longer_than_the_longest_wait(jump: int, failure: Failure) -> None:
    then = NOW + timedelta(seconds=jump)
    written = decide([failing(1, failure)], {}, {}, then).records["pins.00001"]
    assert written is not None
    decision = decide([failing(1, failure)], {}, {"pins.00001": written}, NOW)
    until = decision.waiting["pins.00001"].until if "pins.00001" in decision.waiting else None
    longest = max(POLICY.longest_wait, CURES[failure].first_wait) * (1 + POLICY.jitter)
    assert until is None or until <= NOW + longest
    # It is forgotten in time too: from the first look on the record has a time that has been.
    seen = {"pins.00001": decision.records.get("pins.00001") or written}
    healthy = decide([], {"pins.00001": "db-1:3306"}, seen, NOW + POLICY.healthy_after)
    assert healthy.records == {"pins.00001": None}


@given(FLEETS, st.integers(0, 400))
def test_a_broken_host_never_storms_whatever_else_fails(fleet: dict[int, tuple[Failure, str]], minute: int) -> None:
    items = [failing(number, failure, host) for number, (failure, host) in fleet.items()]
    decision = decide(items, {}, {}, NOW + timedelta(minutes=minute))
    by_group: dict[tuple[Failure, str], int] = {}
    for item in items:
        by_group[item.failure, item.host] = by_group.get((item.failure, item.host), 0) + 1
    for (failure, host), size in by_group.items():
        restarted = sum((item.failure, item.host) == (failure, host) for item in decision.restart)
        assert restarted <= (1 if CURES[failure].probe and size >= POLICY.group_from else size)
