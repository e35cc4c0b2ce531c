"""The continuity ledger: transactions that are whole, runs that resumed where they should, and what is not so."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import KafkaError, KafkaException
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc_platform.clients.kafka.offset_history import OffsetTopics, WrittenOffset, connector_key
from cdc_platform.clients.kafka.topic_records import TopicBounds
from cdc_platform.errors import ConnectRejected, KafkaUnavailable, NotFound
from cdc_platform.model.topology import Cluster, Engine
from cdc_platform.verification.continuity.breaks import Break, BreakKind, unproven_of
from cdc_platform.verification.continuity.committed_positions import (
    Commit,
    commit_of,
    log_positions,
    positions_text,
    span_text,
    transaction_of,
)
from cdc_platform.verification.continuity.handovers import SENT, ShardSent, Silence, resumed, sent_before
from cdc_platform.verification.continuity.ledger import breaks_on_record
from cdc_platform.verification.continuity.ledger_store import LedgerStore
from cdc_platform.verification.continuity.transaction_balance import END, SEEN, Rows, balance, found_of, handed_on
from tests.verification.continuity.harness import NOW, Harness
from tests.verification.duplicates.topics import run_id

NONE = np.zeros(0, dtype=np.uint64)


def ends(*rows: tuple[int, int, int], shard: int = 0) -> Rows:
    """ENDs of (transaction, count, place)."""
    found = np.zeros(len(rows), dtype=END)
    for at, (transaction, count, place) in enumerate(rows):
        found[at] = (transaction, shard, count, 0, transaction, place, 0)
    return found


def seen(*rows: tuple[int, int, int], shard: int = 0) -> Rows:
    """Events of (transaction, run, count)."""
    found = np.zeros(len(rows), dtype=SEEN)
    for at, (transaction, run, count) in enumerate(rows):
        found[at] = (transaction, shard, run, count, 0, 0)
    return found


# Transactions


def test_ledger_balances_transactions_whose_events_are_in_several_partitions() -> None:
    found = balance(ends((1, 3, 10), (2, 1, 11)), seen((1, 0, 2), (1, 0, 1), (2, 0, 1)), NONE)
    assert (dict(found.checked), len(found.ends), len(found.seen)) == ({0: 2}, 0, 0)


def test_ledger_does_not_add_what_two_runs_sent_of_one_transaction() -> None:
    # Each run lost one of three: together they sent four copies of two events.
    found = balance(ends((1, 3, 10)), seen((1, 0, 2), (1, 1, 2)), NONE)
    assert (dict(found.checked), found_of(found.ends, found.seen)) == ({}, [2])


def test_ledger_takes_the_last_end_of_a_transaction_that_was_resumed_in_its_middle() -> None:
    # Run 1 had sent all five, of which the first two were committed; run 2 sends the rest, and counts only that.
    found = balance(ends((1, 5, 10), (1, 3, 20)), seen((1, 0, 4), (1, 1, 3)), NONE)
    assert dict(found.checked) == {0: 1}


def test_ledger_tells_equal_transactions_of_two_shards_apart() -> None:
    mixed = np.concatenate([ends((1, 2, 10)), ends((1, 2, 11), shard=1)])
    found = balance(mixed, seen((1, 0, 2), shard=1), NONE)
    assert (dict(found.checked), found.ends["shard"].tolist()) == ({1: 1}, [0])


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=30),
    cuts=st.lists(st.integers(0, 60), max_size=4),
    again=st.integers(0, 10),
    lost=st.integers(0, 200),
    lose=st.booleans(),
    batch=st.sampled_from([1, 7, 1_000]),
)
def test_ledger_extended_piece_by_piece_finds_what_it_finds_at_once(
    sizes: list[int],
    cuts: list[int],
    again: int,
    lost: int,
    lose: bool,
    batch: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    # Run 0 sends all transactions, run 1 the last ones once more; an event that is lost is lost in both.
    events = [
        (number, run) for run, first in ((0, 0), (1, len(sizes) - again)) for number in range(max(0, first), len(sizes))
    ]
    victim = lost % len(sizes) if lose else None
    records: list[tuple[str, Rows]] = []
    for place, (number, run) in enumerate(events):
        sent = sizes[number] - (number == victim)
        if sent:
            records.append(("seen", seen((number + 1, run, sent))))
        records.append(("ends", ends((number + 1, sizes[number], place))))
    store = LedgerStore(tmp_path_factory.mktemp("ledger"), "cdc", "t", "id")
    edges = sorted({0, len(records), *(min(cut, len(records)) for cut in cuts)})
    checked = 0
    left = balance(ends(), seen(), NONE)
    for begin, end in itertools.pairwise(edges):
        with store.lock():
            store.begin()
            for kind, rows in records[begin:end]:
                store.write_down(kind, rows)
            left = store.balanced(batch_rows=batch)
            checked += sum(left.checked.values())
            store.save(left.ends, left.seen, left.closed)
    broken = sorted((np.unique(left.ends["transaction"]) - 1).tolist())
    assert broken == ([] if victim is None else [victim])
    assert checked == len(sizes) - len(broken)


def test_ledger_judges_only_what_lies_behind_a_committed_position() -> None:
    rows = ends((5, 1, 0), (6, 1, 1), (7, 1, 2))
    assert handed_on(Engine.MARIADB, "0-1-6", rows).tolist() == [True, True, False]
    assert handed_on(Engine.POSTGRES, "0/6", rows).tolist() == [True, True, False]
    rows["stream"] = 0xAABBCCDD
    uuid = "aabbccdd-0000-0000-0000-000000000001"
    assert handed_on(Engine.MYSQL, f"{uuid}:1-6", rows).tolist() == [True, True, False]


# Resumes


def test_ledger_knows_how_far_was_sent_before_a_run_was_born() -> None:
    shard = ShardSent()
    rows = np.array([(0, 0, 10, 1_000, 1_100), (0, 0, 12, 1_150, 1_200), (0, 0, 13, 5_000, 5_000)], dtype=SENT)
    silences = shard.extend(rows, [3_000])
    assert sent_before(3_000, shard, silences) == Silence(1_200, 5_000, {0: 12})
    assert sent_before(1_120, shard, silences) is None  # no silence: nothing tells
    later = sent_before(9_000, shard, silences)
    assert later is not None
    assert later.sent == {0: 13}
    # Once more, after the silence has been carried over.
    again = shard.extend(rows[:0], [])
    assert sent_before(3_000, shard, again) == Silence(1_200, 5_000, {0: 12})


def test_ledger_of_a_run_that_began_within_what_was_sent() -> None:
    told = resumed([Commit(1_000, {0: 8}), Commit(6_000, {0: 12})], {0: 12}, 7_000)
    assert (told.known, told.skipped) == (True, None)


def test_ledger_of_an_offset_that_was_moved_forward() -> None:
    commits = [Commit(1_000, {0: 8}), Commit(6_000, {0: 12}), Commit(8_000, {0: 50}), Commit(99_000, {0: 60})]
    told = resumed(commits, {0: 12}, 20_000)
    assert told.skipped == ({0: 12}, {0: 50})
    assert span_text(Engine.MARIADB, *told.skipped) == "GTID domain 0, 13 to 50"
    assert span_text(Engine.POSTGRES, {0: 0x16B374D848}, {0: 0x16B374D900}) == "LSN 16/B374D848 to 16/B374D900"


def test_ledger_of_an_offset_that_a_resting_task_committed_twice_has_no_break() -> None:
    # The end of a snapshot is committed, though no transaction up to there was sent.
    commits = [Commit(1_000, {}), Commit(6_000, {0: 50}), Commit(11_000, {0: 50})]
    assert resumed(commits, {0: 12}, 20_000) == resumed(commits, {0: 50}, 20_000)
    assert resumed(commits, {0: 12}, 20_000).skipped is None


def test_ledger_of_an_offset_that_was_moved_back_has_no_break() -> None:
    told = resumed([Commit(1_000, {0: 12}), Commit(6_000, {0: 3})], {0: 12}, 7_000)
    assert (told.known, told.skipped) == (True, None)


def test_ledger_of_a_run_that_began_anew_in_the_middle_of_a_snapshot() -> None:
    reading = Commit(6_000, {0: 8}, reading=True)
    told = resumed([Commit(1_000, {0: 8}, reading=True), reading], {0: 12}, 7_000)
    assert (told.known, told.from_scratch, told.since) == (True, {0: 12}, 6_000)
    assert positions_text(Engine.MARIADB, {0: 12}) == "GTID domain 0, 12"
    assert positions_text(Engine.POSTGRES, {0: 0x16B374D848}) == "LSN 16/B374D848"
    # Nothing of the stream was sent before: no step was left out, nor is it a resume.
    assert not resumed([reading], None, 7_000).known


def test_ledger_of_a_run_whose_predecessor_was_lost_before_its_first_commit() -> None:
    own = [Commit(15_000, {0: 40}), Commit(20_000, {0: 41})]
    assert resumed(own, {0: 12}, 9_000, whole=True).from_scratch == {0: 12}
    for nothing in (
        resumed(own, {0: 12}, 9_000),  # older commits may be compacted away
        resumed([], {0: 12}, 9_000, whole=True),  # or nothing can be read
        resumed(own, None, 9_000, whole=True),
    ):
        assert (nothing.known, nothing.from_scratch) == (False, None)


@pytest.mark.parametrize(
    ("offset", "reading"),
    [
        ({"gtids": "0-1-7", "snapshot": "INITIAL"}, True),
        ({"gtids": "0-1-7", "server_id": 1}, False),
        ({"lsn": 7, "snapshot": "INITIAL", "last_snapshot_record": False, "snapshot_completed": False}, True),
        ({"lsn": 7, "snapshot": "INITIAL", "last_snapshot_record": True, "snapshot_completed": True}, False),
        (None, False),
    ],
)
def test_ledger_tells_an_offset_of_a_snapshot_that_has_not_ended(offset: dict[str, Any] | None, reading: bool) -> None:
    assert commit_of(Engine.POSTGRES, 1, offset).reading is reading


def test_ledger_of_an_offset_that_was_deleted() -> None:
    told = resumed([Commit(1_000, {0: 12}), Commit(6_000, None)], {0: 12}, 7_000)
    assert told.forgotten == {0: 12}


@pytest.mark.parametrize("commits", [[], [Commit(1_000, {0: 50})]])
def test_ledger_of_a_run_of_which_nothing_tells_is_unknown_and_no_break(commits: list[Commit]) -> None:
    told = resumed(commits, {0: 12}, 7_000)
    assert (told.known, told.skipped, told.forgotten) == (False, None, None)
    two = [Commit(1_000, {0: 12}), Commit(2_000, {0: 50})]
    assert not resumed(two, None, 7_000).known


def test_positions_of_offsets_and_transactions_by_engine() -> None:
    assert log_positions(Engine.MARIADB, {"gtids": "0-1-56,1-2-7"}) == {0: 56, 1: 7}
    assert log_positions(Engine.MYSQL, {"gtids": "aabbccdd-0000-0000-0000-000000000001:1-5:7-9"}) == {0xAABBCCDD: 9}
    assert log_positions(Engine.POSTGRES, {"lsn": 9, "lsn_commit": 7}) == {0: 7}
    assert log_positions(Engine.POSTGRES, {}) == {}
    assert log_positions(Engine.POSTGRES, None) is None
    assert transaction_of(Engine.MARIADB, "0-1-7") == (0, 7)
    assert transaction_of(Engine.MYSQL, "aabbccdd-0000-0000-0000-000000000001:7") == (0xAABBCCDD, 7)
    assert transaction_of(Engine.POSTGRES, "760:55014632") == (760, 55014632)


def test_an_offsets_topic_that_may_not_be_read_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = iter([KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError._ALL_BROKERS_DOWN])

    def read(*args: object) -> None:
        raise KafkaException(KafkaError(next(codes)))

    monkeypatch.setattr(OffsetTopics, "_read", read)
    topics = OffsetTopics({"bootstrap.servers": "127.0.0.1:1"})
    cluster = Cluster(name="main", urls=("http://127.0.0.1:1",))
    assert topics.read(cluster, {"pins.00000": (0, 1)}) == {}
    with pytest.raises(KafkaUnavailable):
        topics.read(cluster, {"pins.00000": (0, 1)})


def test_the_key_of_a_source_offset_is_connects_own() -> None:
    assert connector_key("pins.00001") == b'["pins.00001",{"server":"pins.00001"}]'


# All of it


def test_ledger_of_a_restart_with_redelivery_has_no_break_and_costs_only_what_is_new(tmp_path: Path) -> None:
    harness = Harness(tmp_path)
    first = run_id(harness.events.at)
    for _ in range(10):
        harness.transaction(first, 3)
    harness.commit(7)
    assert (harness.only().checked, harness.only().breaks) == (10, ())
    second = run_id(harness.rest(5_000))
    harness.rest(100)
    for number in (8, 9, 10):
        harness.transaction(second, 3, number=number)
    harness.number = 10
    harness.transaction(second, 2)
    found = harness.only()
    assert (found.checked, found.open, found.breaks) == (11, 0, ())
    assert (found.resumed, found.unknown) == (1, 0)  # the very first has no predecessor
    asked = len(harness.connect.asked)
    assert harness.only() == found
    assert (harness.connect.calls, harness.connect.asked[asked:]) == (0, [{}])


def test_ledger_names_the_steps_between_two_snapshots_of_a_task_that_was_lost_early(tmp_path: Path) -> None:
    harness = Harness(tmp_path)
    first = run_id(harness.events.at)
    for _ in range(3):
        harness.transaction(first, 1)
    second = run_id(harness.rest(2_000))
    harness.rest(100)
    harness.number = 20  # it read the table anew: nobody has sent 4 to 20
    harness.transaction(second, 1)
    harness.rest(5_000)
    harness.commit(21)
    found = harness.only()
    (gap,) = found.breaks
    assert (gap.kind, gap.range, gap.run, found.unknown) == (BreakKind.FROM_SCRATCH, "GTID domain 0, 3", second, 0)
    assert "what changed after GTID domain 0, 3 until then came as rows only" in gap.sentence()
    assert harness.only().breaks == (gap,)


def test_ledger_finds_a_transaction_that_lost_an_event_once_it_is_committed(tmp_path: Path) -> None:
    harness = Harness(tmp_path)
    run = run_id(harness.events.at)
    harness.transaction(run, 3)
    bad = harness.transaction(run, 5, lost=1)
    harness.transaction(run, 1)
    found = harness.only()
    assert (found.checked, found.open, found.breaks) == (2, 1, ())  # it may still be under way
    harness.commit(bad)
    found = harness.only()
    (gap,) = found.breaks
    assert (gap.kind, gap.expected, gap.found, found.open) == (BreakKind.TRANSACTION, 5, 4, 0)
    assert gap.range == "transaction 0-1-2 (its END: partition 0, offset 1)"
    assert harness.only().breaks == (gap,)
    assert breaks_on_record(harness.store.read(), "pins", "pins") == {"00000": (gap,)}
    assert len(harness.store.writes) == 1


@pytest.mark.parametrize(("committed", "lost"), [(4, 0), (0, 0), (4, 1)], ids=["middle", "anew", "lost"])
def test_ledger_of_a_transaction_that_was_taken_over_by_a_task_that_numbers_on(
    committed: int, lost: int, tmp_path: Path
) -> None:
    """Debezium from 3.6.1 on: the second END counts all of it, of which each run has sent a part."""
    harness = Harness(tmp_path)
    release = "3.6.1.Final"
    first = run_id(harness.events.at)
    harness.transaction(first, 3, release=release)
    harness.commit(1)
    harness.send(first, range(6), 2, release)  # of ten; the END does not come any more
    assert harness.only().breaks == ()
    second = run_id(harness.rest(5_000))
    harness.rest(100)
    harness.transaction(second, 10, first=committed, lost=lost, number=2, release=release)
    harness.transaction(second, 2, number=3, release=release)
    harness.rest(5_000)
    harness.commit(3)
    harness.only()  # what is open then is judged by the next look
    found = harness.only()
    assert found.open == 0
    assert [(gap.kind, gap.expected, gap.found) for gap in found.breaks] == (
        [(BreakKind.TRANSACTION, 10, 9)] if lost else []
    )


def test_ledger_names_the_range_that_a_moved_offset_skipped(tmp_path: Path) -> None:
    harness = Harness(tmp_path)
    first = run_id(harness.events.at)
    for _ in range(5):
        harness.transaction(first, 1)
    harness.commit(5)
    assert harness.only().breaks == ()
    harness.rest(20_000)
    harness.commit(25)  # by hand: nobody has sent 6 to 25
    second = run_id(harness.rest(10_000))
    harness.rest(200)
    harness.number = 25
    for _ in range(3):
        harness.transaction(second, 1)
    (gap,) = harness.only().breaks
    assert (gap.kind, gap.range, gap.run) == (BreakKind.RESUME, "GTID domain 0, 6 to 25", second)
    # The cache is lost: the same is found again, and is the same on record.
    for path in (tmp_path / "ledger").rglob("*"):
        if path.is_file():
            path.unlink()
    for _ in range(3):
        # Whose events were handed over to the lost ledger is not judged, now or later.
        (again,) = harness.only().breaks
        assert again.id == gap.id
    # What comes after that is.
    harness.rest(120_000)
    harness.transaction(second, 1)
    bad = harness.transaction(second, 2, lost=1)
    harness.commit(bad)
    harness.only()
    assert [one.kind for one in harness.only().breaks] == [BreakKind.RESUME, BreakKind.TRANSACTION]


def test_ledger_of_a_connector_that_cannot_be_asked_leaves_its_transactions_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = Harness(tmp_path)
    harness.transaction(run_id(harness.events.at), 2, lost=1)
    harness.commit(1)
    harness.only()

    def broken(name: str) -> list[Any]:
        raise ConnectRejected("HTTP 500: no leader file.")

    with monkeypatch.context() as patch:
        patch.setattr(harness.connect, "offsets", broken)
        found = harness.only()
        assert (found.open, found.breaks) == (1, ())
    assert len(harness.only().breaks) == 1


def test_ledger_asks_what_is_committed_before_it_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness(tmp_path)
    run = run_id(harness.events.at)
    harness.transaction(run, 2, lost=1)  # its second event is under way in another partition
    assert harness.only().open == 1
    ends, calls = harness.events.bounds, []

    def late() -> TopicBounds:
        # It arrives, and is committed, just after the ends up to which it is read were asked for.
        found = ends()
        calls.append(found)
        if len(calls) == 2:
            harness.events.send(run, 1, 1, place=101)
            harness.commit(1)
        return found

    monkeypatch.setattr(harness.events, "bounds", late)
    assert harness.only().breaks == ()
    assert (harness.only().checked, harness.only().breaks) == (1, ())


def test_ledger_of_numbers_missing_in_a_shared_servers_stream_has_no_break(tmp_path: Path) -> None:
    harness = Harness(tmp_path)
    first = run_id(harness.events.at)
    for number in (1, 2, 50, 51, 900):
        harness.transaction(first, 1, number=number)
    harness.commit(900)
    harness.only()
    second = run_id(harness.rest(5_000))
    harness.rest(100)
    for number in (2_000, 3_000):
        harness.transaction(second, 1, number=number)
    found = harness.only()
    assert (found.checked, found.breaks, found.resumed) == (7, (), 1)


def test_ledger_of_a_shard_bootstrapped_anew_has_no_break(tmp_path: Path) -> None:
    harness = Harness(tmp_path)
    first = run_id(harness.events.at)
    harness.transaction(first, 1)
    harness.commit(1)
    harness.only()
    anew = datetime.fromtimestamp(harness.rest(20_000) / 1000, UTC)
    harness.connect.once.append(WrittenOffset(harness.events.at, None))
    harness.store.write(
        {
            "watermark/pins/pins/00000": {
                "mode": "latest", "run": "r", "position": "0-1-40", "offset": {}, "since": anew.isoformat(),
                "complete": None, "rows": None, "hole": None, "backfilled": None,
            }
        }
    )  # fmt: skip
    second = run_id(harness.rest(5_000))
    harness.rest(100)
    harness.transaction(second, 1, number=41)
    assert harness.only().breaks == ()


def test_ledger_without_transaction_metadata_says_so(tmp_path: Path) -> None:
    harness = Harness(tmp_path, connector={"provide.transaction.metadata": "false"})
    harness.transaction(run_id(harness.events.at), 1)
    found = harness.keep()
    assert (found.shards, found.problem) == ((), "the dataset has switched transaction metadata off")


def test_ledger_without_its_topic_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness(tmp_path)

    def gone() -> TopicBounds:
        raise NotFound("there is no such topic.")

    monkeypatch.setattr(harness.transactions, "bounds", gone)
    assert "no such topic" in harness.keep().problem


def test_a_break_is_over_once_the_shard_was_proven_after_it() -> None:
    gap = Break(shard="00000", kind=BreakKind.RESUME, range="LSN 0/1 to 0/2", found_at=NOW, run="r")
    assert unproven_of([gap], None) == (gap,)
    assert unproven_of([gap], NOW - timedelta(seconds=1)) == (gap,)
    assert unproven_of([gap], NOW + timedelta(seconds=1)) == ()
