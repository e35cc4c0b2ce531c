"""The continuity ledger: transactions that are whole, runs that resumed where they should, and what is not so."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import KafkaError, KafkaException
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc_platform.clients.kafka.offset_history import OffsetTopics, WrittenOffset, connector_key
from cdc_platform.clients.kafka.topic_records import Batch, Records, TopicBounds
from cdc_platform.clients.platform import Platform
from cdc_platform.errors import ConnectRejected, KafkaUnavailable, NotFound
from cdc_platform.model.topology import Address, Cluster, Credentials, Dataset, Engine, Shard, Table, Topology
from cdc_platform.settings import Settings
from cdc_platform.testing import FakeKafka, FakeStateStore, InMemoryTopologyStore
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
from cdc_platform.verification.continuity.ledger import LedgerPorts, TableContinuity, breaks_on_record, count_and_keep
from cdc_platform.verification.continuity.ledger_store import LedgerStore
from cdc_platform.verification.continuity.transaction_balance import END, SEEN, Rows, balance, found_of, handed_on
from tests.verification.duplicates.topics import Topic, run_id

NONE = np.zeros(0, dtype=np.uint64)
NOW = datetime.now(UTC)
MS = int(NOW.timestamp() * 1000)


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


@dataclass
class Transactions:
    """The transactions' topic in memory, one partition."""

    records: list[tuple[str, str, bytes, int]] = field(default_factory=list)

    def bounds(self) -> TopicBounds:
        return TopicBounds(topic_id="tx", partitions={0: (0, len(self.records))})

    def read(self, partition: int, begin: int, end: int) -> Iterator[Batch]:
        part = self.records[begin:end]
        if part:
            yield Batch(
                [key.encode() for _, key, _, _ in part],
                [value for _, _, value, _ in part],
                list(range(begin, end)),
                [[("cdc.shard", shard.encode())] for shard, _, _, _ in part],
                [time for _, _, _, time in part],
            )

    def fetch(self, partition: int, offsets: Sequence[int]) -> Mapping[int, tuple[bytes | None, bytes | None]]:
        return {at: (self.records[at][1].encode(), self.records[at][2]) for at in offsets}

    def close(self) -> None:
        """Nothing to close."""


class Offsets:
    """Connect's offsets, now and once."""

    def __init__(self) -> None:
        self.now: dict[str, Any] | None = None
        self.once: list[WrittenOffset] = []
        self.asked: list[Mapping[str, tuple[int, int]]] = []
        self.calls = 0

    def offsets(self, name: str) -> list[Any]:
        self.calls += 1
        return [{"partition": {"server": name}, "offset": self.now}] if self.now else []

    def read(self, cluster: Cluster, windows: Mapping[str, tuple[int, int]]) -> Mapping[str, Sequence[WrittenOffset]]:
        self.asked.append(windows)
        return {name: [one for one in self.once if begin <= one.at <= end] for name, (begin, end) in windows.items()}


class Scene:
    """One MariaDB shard in memory."""

    def __init__(self, root: Path, **dataset: Any) -> None:
        self.events = Topic(at=MS - 600_000)
        self.transactions = Transactions()
        self.connect = Offsets()
        self.store = FakeStateStore()
        shard = Shard(dataset="pins", id="00000", leader=Address("db", 3306), database="pins_0")
        made = Dataset(
            name="pins", engine=Engine.MARIADB, tables=(Table(name="pins"),), clusters=("main",),
            credentials=Credentials(user="${env:U}", password="${env:P}"), **dataset,
        )  # fmt: skip
        self.topology = Topology(
            datasets={"pins": made}, shards={"pins": (shard,)},
            clusters={"main": Cluster(name="main", urls=("http://connect:8083",))},
        )  # fmt: skip
        platform = Platform(
            settings=Settings(cache_dir=str(root)), topology=InMemoryTopologyStore(), kafka=FakeKafka(),
            state=self.store, connect=lambda cluster: self.connect,  # type: ignore[arg-type,return-value]
        )  # fmt: skip
        self.outside = LedgerPorts(
            platform=platform, records=self.records, offsets=self.connect, store=lambda name: self.store
        )
        self.number = 0

    def records(self, topic: str) -> Records:
        found: Records = self.events if topic == "cdc.pins.pins" else self.transactions
        return found

    def transaction(self, run: str, events: int, *, number: int | None = None, lost: int = 0) -> int:
        """One transaction: its events, then its END."""
        self.number += 1
        number = self.number if number is None else number
        for row in range(events - lost):
            self.events.send(run, row, number, place=number * 100 + row)
        self.events.at += 1
        value = {
            "status": "END", "id": f"0-1-{number}", "event_count": events,
            "data_collections": [{"data_collection": "pins_0.pins", "event_count": events}] if events else [],
        }  # fmt: skip
        self.transactions.records.append(("pins.00000", f"0-1-{number}", json.dumps(value).encode(), self.events.at))
        return number

    def rest(self, ms: int) -> int:
        """Nothing happens for so long; the time then."""
        self.events.at += ms
        return self.events.at

    def commit(self, number: int) -> None:
        self.connect.now = {"gtids": f"0-1-{number}", "file": "b", "pos": 1}
        self.connect.once.append(WrittenOffset(self.events.at, self.connect.now))

    def keep(self) -> TableContinuity:
        return count_and_keep(self.outside, self.topology, "pins", "pins", run_id="r")[1]

    def only(self) -> Any:
        (shard,) = self.keep().shards
        return shard


def test_ledger_of_a_restart_with_redelivery_has_no_break_and_costs_only_what_is_new(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    first = run_id(scene.events.at)
    for _ in range(10):
        scene.transaction(first, 3)
    scene.commit(7)
    assert (scene.only().checked, scene.only().breaks) == (10, ())
    second = run_id(scene.rest(5_000))
    scene.rest(100)
    for number in (8, 9, 10):
        scene.transaction(second, 3, number=number)
    scene.number = 10
    scene.transaction(second, 2)
    found = scene.only()
    assert (found.checked, found.open, found.breaks) == (11, 0, ())
    assert (found.resumed, found.unknown) == (1, 0)  # the very first has no predecessor
    asked = len(scene.connect.asked)
    assert scene.only() == found
    assert (scene.connect.calls, scene.connect.asked[asked:]) == (0, [{}])


def test_ledger_names_the_steps_between_two_snapshots_of_a_task_that_was_lost_early(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    first = run_id(scene.events.at)
    for _ in range(3):
        scene.transaction(first, 1)
    second = run_id(scene.rest(2_000))
    scene.rest(100)
    scene.number = 20  # it read the table anew: nobody has sent 4 to 20
    scene.transaction(second, 1)
    scene.rest(5_000)
    scene.commit(21)
    found = scene.only()
    (gap,) = found.breaks
    assert (gap.kind, gap.range, gap.run, found.unknown) == (BreakKind.FROM_SCRATCH, "GTID domain 0, 3", second, 0)
    assert "what changed after GTID domain 0, 3 until then came as rows only" in gap.sentence()
    assert scene.only().breaks == (gap,)


def test_ledger_finds_a_transaction_that_lost_an_event_once_it_is_committed(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    run = run_id(scene.events.at)
    scene.transaction(run, 3)
    bad = scene.transaction(run, 5, lost=1)
    scene.transaction(run, 1)
    found = scene.only()
    assert (found.checked, found.open, found.breaks) == (2, 1, ())  # it may still be under way
    scene.commit(bad)
    found = scene.only()
    (gap,) = found.breaks
    assert (gap.kind, gap.expected, gap.found, found.open) == (BreakKind.TRANSACTION, 5, 4, 0)
    assert gap.range == "transaction 0-1-2 (its END: partition 0, offset 1)"
    assert scene.only().breaks == (gap,)
    assert breaks_on_record(scene.store.read(), "pins", "pins") == {"00000": (gap,)}
    assert len(scene.store.writes) == 1


def test_ledger_names_the_range_that_a_moved_offset_skipped(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    first = run_id(scene.events.at)
    for _ in range(5):
        scene.transaction(first, 1)
    scene.commit(5)
    assert scene.only().breaks == ()
    scene.rest(20_000)
    scene.commit(25)  # by hand: nobody has sent 6 to 25
    second = run_id(scene.rest(10_000))
    scene.rest(200)
    scene.number = 25
    for _ in range(3):
        scene.transaction(second, 1)
    (gap,) = scene.only().breaks
    assert (gap.kind, gap.range, gap.run) == (BreakKind.RESUME, "GTID domain 0, 6 to 25", second)
    # The cache is lost: the same is found again, and is the same on record.
    for path in (tmp_path / "ledger").rglob("*"):
        if path.is_file():
            path.unlink()
    for _ in range(3):
        # Whose events were handed over to the lost ledger is not judged, now or later.
        (again,) = scene.only().breaks
        assert again.id == gap.id
    # What comes after that is.
    scene.rest(120_000)
    scene.transaction(second, 1)
    bad = scene.transaction(second, 2, lost=1)
    scene.commit(bad)
    scene.only()
    assert [one.kind for one in scene.only().breaks] == [BreakKind.RESUME, BreakKind.TRANSACTION]


def test_ledger_of_a_connector_that_cannot_be_asked_leaves_its_transactions_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(tmp_path)
    scene.transaction(run_id(scene.events.at), 2, lost=1)
    scene.commit(1)
    scene.only()

    def broken(name: str) -> list[Any]:
        raise ConnectRejected("HTTP 500: no leader file.")

    with monkeypatch.context() as patch:
        patch.setattr(scene.connect, "offsets", broken)
        found = scene.only()
        assert (found.open, found.breaks) == (1, ())
    assert len(scene.only().breaks) == 1


def test_ledger_asks_what_is_committed_before_it_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(tmp_path)
    run = run_id(scene.events.at)
    scene.transaction(run, 2, lost=1)  # its second event is under way in another partition
    assert scene.only().open == 1
    ends, calls = scene.events.bounds, []

    def late() -> TopicBounds:
        # It arrives, and is committed, just after the ends up to which it is read were asked for.
        found = ends()
        calls.append(found)
        if len(calls) == 2:
            scene.events.send(run, 1, 1, place=101)
            scene.commit(1)
        return found

    monkeypatch.setattr(scene.events, "bounds", late)
    assert scene.only().breaks == ()
    assert (scene.only().checked, scene.only().breaks) == (1, ())


def test_ledger_of_numbers_missing_in_a_shared_servers_stream_has_no_break(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    first = run_id(scene.events.at)
    for number in (1, 2, 50, 51, 900):
        scene.transaction(first, 1, number=number)
    scene.commit(900)
    scene.only()
    second = run_id(scene.rest(5_000))
    scene.rest(100)
    for number in (2_000, 3_000):
        scene.transaction(second, 1, number=number)
    found = scene.only()
    assert (found.checked, found.breaks, found.resumed) == (7, (), 1)


def test_ledger_of_a_shard_bootstrapped_anew_has_no_break(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    first = run_id(scene.events.at)
    scene.transaction(first, 1)
    scene.commit(1)
    scene.only()
    anew = datetime.fromtimestamp(scene.rest(20_000) / 1000, UTC)
    scene.connect.once.append(WrittenOffset(scene.events.at, None))
    scene.store.write(
        {
            "watermark/pins/pins/00000": {
                "mode": "latest", "run": "r", "position": "0-1-40", "offset": {}, "since": anew.isoformat(),
                "complete": None, "rows": None, "hole": None, "backfilled": None,
            }
        }
    )  # fmt: skip
    second = run_id(scene.rest(5_000))
    scene.rest(100)
    scene.transaction(second, 1, number=41)
    assert scene.only().breaks == ()


def test_ledger_without_transaction_metadata_says_so(tmp_path: Path) -> None:
    scene = Scene(tmp_path, connector={"provide.transaction.metadata": "false"})
    scene.transaction(run_id(scene.events.at), 1)
    found = scene.keep()
    assert (found.shards, found.problem) == ((), "the dataset has switched transaction metadata off")


def test_ledger_without_its_topic_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(tmp_path)

    def gone() -> TopicBounds:
        raise NotFound("there is no such topic.")

    monkeypatch.setattr(scene.transactions, "bounds", gone)
    assert "no such topic" in scene.keep().problem


def test_a_break_is_over_once_the_shard_was_proven_after_it() -> None:
    gap = Break(shard="00000", kind=BreakKind.RESUME, range="LSN 0/1 to 0/2", found_at=NOW, run="r")
    assert unproven_of([gap], None) == (gap,)
    assert unproven_of([gap], NOW - timedelta(seconds=1)) == (gap,)
    assert unproven_of([gap], NOW + timedelta(seconds=1)) == ()
