"""Duplicates: counts equal an independent count, each cause is named, in one reading or in many."""

from __future__ import annotations

import tempfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc_platform.errors import TopologyError
from cdc_platform.model.topology import Engine
from cdc_platform.verification.duplicates.causes import Blame, Cause, DuplicatePolicy, blame, judge
from cdc_platform.verification.duplicates.copies import PartitionCounts
from cdc_platform.verification.duplicates.deliveries import DeliveryReader
from cdc_platform.verification.duplicates.delivery_store import TopicDeliveries
from tests.defs.harness import dataset
from tests.verification.duplicates.topics import Topic, run_id

A, B, C = run_id(1_700_000_000_000), run_id(1_700_000_100_000), run_id(1_700_000_200_000)


def causes(counts: PartitionCounts) -> dict[Cause, int]:
    found: Counter[Cause] = Counter()
    for item in blame([counts]):
        found[item.cause] += item.count
    return dict(found)


def test_duplicates_after_a_restart_are_redelivery_with_runs_workers_and_offsets(tmp_path: Path) -> None:
    topic = Topic()
    for seq in range(1, 11):
        topic.send(A, seq, seq, worker="w0")
    for seq in range(7, 15):
        topic.send(B, seq, seq, worker="w1")
    (found,) = blame([topic.counts(tmp_path)])
    assert (found.cause, found.count) == (Cause.REDELIVERY, 4)
    assert (found.run_before, found.run, found.worker_before, found.worker) == (A, B, "w0", "w1")
    assert (found.partition, found.first_offset, found.last_offset) == (0, 10, 13)
    assert "4 x redelivery" in found.sentence()


def test_duplicates_of_two_runs_that_interleave_are_a_zombie_task(tmp_path: Path) -> None:
    topic = Topic()
    for seq in range(1, 6):
        topic.send(A, seq, seq, worker="w0")
        topic.send(B, seq, seq, worker="w1")
    assert causes(topic.counts(tmp_path)) == {Cause.ZOMBIE: 5}


def test_duplicates_seen_as_redelivery_become_a_zombies_once_the_old_task_writes_on(tmp_path: Path) -> None:
    topic = Topic()
    for seq in (1, 2, 3):
        topic.send(A, seq, seq)
    topic.send(B, 3, 3)
    assert causes(topic.counts(tmp_path)) == {Cause.REDELIVERY: 1}
    topic.send(A, 4, 4)
    assert causes(topic.counts(tmp_path)) == {Cause.ZOMBIE: 1}


def test_duplicates_with_the_time_of_the_first_are_a_producers_retry(tmp_path: Path) -> None:
    topic = Topic()
    topic.send(A, 1, 1, time=1_700_000_000_500)
    topic.send(A, 1, 1, time=1_700_000_000_500)
    assert causes(topic.counts(tmp_path)) == {Cause.RETRY: 1}


def test_duplicates_within_a_run_at_another_time_are_a_source_connection_opened_anew(tmp_path: Path) -> None:
    topic = Topic()
    topic.send(A, 1, 1)
    topic.send(A, 1, 1)
    assert causes(topic.counts(tmp_path)) == {Cause.REDELIVERY: 1}


@pytest.mark.parametrize("snapshot", ["true", "incremental"])
def test_duplicates_of_rows_read_again_are_a_re_snapshot(tmp_path: Path, snapshot: str) -> None:
    topic = Topic()
    for run in (A, B):
        for key in (1, 2, 3):
            topic.send(run, key, 0, op="r", snapshot=snapshot)
    assert causes(topic.counts(tmp_path)) == {Cause.RESNAPSHOT: 3}


def test_duplicates_from_another_binlog_are_a_source_failover(tmp_path: Path) -> None:
    topic = Topic()
    for seq in (1, 2, 3):
        topic.send(A, seq, seq)
    for seq in (2, 3, 4):
        topic.send(B, seq, seq, place=7_000 + seq)
    assert causes(topic.counts(tmp_path)) == {Cause.FAILOVER: 2}


def test_duplicates_on_postgres_are_a_failover_when_the_leader_moved_between_the_runs(tmp_path: Path) -> None:
    topic = Topic(engine=Engine.POSTGRES)
    for seq in (100, 200):
        topic.send(A, 1, seq)
    moved = datetime.fromtimestamp((topic.at + 500) / 1000, UTC)
    topic.at += 1_000
    topic.send(B, 1, 200)
    counts = topic.counts(tmp_path)
    assert [item.cause for item in blame([counts])] == [Cause.REDELIVERY]
    assert [item.cause for item in blame([counts], {"00000": (moved,)})] == [Cause.FAILOVER]


def test_two_changes_of_a_row_in_one_transaction_are_no_duplicates(tmp_path: Path) -> None:
    topic = Topic()
    topic.send(A, 1, 5, place=500)
    topic.send(A, 1, 5, place=600)
    assert causes(topic.counts(tmp_path)) == {}
    # Both again, from the promoted replica, where they stand elsewhere.
    topic.send(B, 1, 5, place=80)
    topic.send(B, 1, 5, place=90)
    assert causes(topic.counts(tmp_path)) == {Cause.FAILOVER: 2}


def test_rows_of_one_copy_share_an_lsn_and_are_no_duplicates(tmp_path: Path) -> None:
    topic = Topic(engine=Engine.POSTGRES)
    for key in range(5):
        topic.send(A, key, 100, op="c")
    assert causes(topic.counts(tmp_path)) == {}


def test_the_same_key_of_another_shard_is_no_duplicate(tmp_path: Path) -> None:
    topic = Topic()
    topic.send(A, 1, 1, shard="00000")
    topic.send(B, 1, 1, shard="00001")
    assert causes(topic.counts(tmp_path)) == {}


def test_duplicates_without_a_run_id_are_of_unknown_cause(tmp_path: Path) -> None:
    topic = Topic()
    topic.send("", 1, 1)
    topic.send("", 1, 1)
    assert causes(topic.counts(tmp_path)) == {Cause.UNKNOWN: 1}


def test_records_that_are_no_events_are_counted_and_left_out(tmp_path: Path) -> None:
    topic = Topic()
    topic.send(A, 1, 1)
    topic.records.append((b"not json", b"{", [], topic.at))
    topic.records.append((b'{"id": 1, "shard": "00000"}', None, [], topic.at))
    topic.send(A, 2, 2)
    assert sum(span.events for span in topic.counts(tmp_path).spans) == 2


sends = st.lists(
    st.tuples(
        st.sampled_from([A, B, C]),
        st.integers(1, 4),  # key
        st.integers(1, 6),  # transaction
        st.sampled_from(["c", "u", "d"]),
        st.sampled_from(["00000", "00001"]),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(sends=sends, cuts=st.lists(st.integers(0, 60), max_size=4), batch=st.integers(1, 30))
@pytest.mark.parametrize("engine", [Engine.MARIADB, Engine.POSTGRES])
def test_duplicates_counted_equal_a_plain_count_however_the_topic_is_read(
    engine: Engine, sends: list[tuple[str, int, int, str, str]], cuts: list[int], batch: int
) -> None:
    topic = Topic(engine=engine)
    plain: Counter[tuple[str, int, int, str]] = Counter()
    for run, key, seq, op, shard in sends:
        topic.send(run, key, seq, op=op, shard=shard)
        plain[shard, key, seq, op] += 1
    with tempfile.TemporaryDirectory() as root:
        for cut in sorted(cuts):
            topic.counts(Path(root), end=min(cut, len(sends)), batch=batch)
        counts = topic.counts(Path(root), batch=batch)
    expected = Counter[str]()
    for (shard, *_), times in plain.items():
        expected[shard] += times - 1
    found = Counter[str]()
    for item in blame([counts]):
        found[item.shard] += item.count
    assert +found == +expected
    assert sum(span.events for span in counts.spans) == len(sends)


def _blame(cause: Cause, count: int, run: str = B) -> Blame:
    now = datetime.now(UTC)
    return Blame(
        shard="00000", cause=cause, count=count, partition=0, first_offset=0, last_offset=1, since=now, until=now,
        run_before=A, run=run, worker_before="w0", worker="w1",
    )  # fmt: skip


def test_some_duplicates_after_a_resume_are_normal_and_more_are_alarming() -> None:
    policy = DuplicatePolicy(redelivered_a_resume=100)
    (calm,) = judge(["00000"], [_blame(Cause.REDELIVERY, 100), _blame(Cause.REDELIVERY, 90, C)], policy)
    assert (calm.total, calm.alarming) == (190, 0)
    (loud,) = judge(["00000"], [_blame(Cause.REDELIVERY, 101)], policy)
    assert loud.alarming == 1
    assert "sent 101 again, 100 a resume are normal" in loud.reasons[0]


def test_one_duplicate_of_a_zombie_is_alarming_unless_the_policy_allows_it() -> None:
    (loud,) = judge(["00000"], [_blame(Cause.ZOMBIE, 1)], DuplicatePolicy())
    assert loud.alarming == 1
    allowed = DuplicatePolicy.of(dataset(verification={"duplicates": {"limits": {"zombie_task": 1}}}))
    assert judge(["00000"], [_blame(Cause.ZOMBIE, 1)], allowed)[0].alarming == 0
    assert allowed.limits["producer_retry"] == 0


@pytest.mark.parametrize(
    "given", [{"limits": {"nobody": 1}}, {"limits": {"zombie_task": -1}}, {"redelivered": 5}, {"window_hours": 0}]
)
def test_a_bad_duplicates_policy_is_named(given: object) -> None:
    with pytest.raises(TopologyError, match=r"verification\.duplicates\."):
        DuplicatePolicy.of(dataset(verification={"duplicates": given}))


def test_a_topic_id_with_a_slash_keeps_what_was_seen(tmp_path: Path) -> None:
    # Kafka's topic ids are base64 of the kind that has slashes.
    topic = Topic()
    topic.send(run_id(1), 1, 1)
    for _ in range(2):
        seen = TopicDeliveries(tmp_path, "cdc", "t", "dqci+/6HgLa", [0])
        seen.extend(topic, lambda: DeliveryReader(Engine.MARIADB), {0: (0, 1)}, lambda done, total: None)
        assert seen.totals() == (1, 0)
    again = TopicDeliveries(tmp_path, "cdc", "t", "dqci+/6HgLa", [0])
    assert again.totals() == (1, 0)


def test_two_statements_that_change_a_row_in_one_transaction_are_no_duplicates(tmp_path: Path) -> None:
    # MariaDB's events have the position of their transaction; rows are numbered by statement.
    topic = Topic()
    for run, order in ((run_id(1), 1), (run_id(1), 2), (run_id(9), 1), (run_id(9), 2)):
        topic.send(run, 1, 7, place=100, order=order)
    assert sum(pair.count for pair in topic.counts(tmp_path).pairs) == 2
