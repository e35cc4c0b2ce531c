"""Duplicates in transactions that a task run took over in their middle: numbered anew, and counted all the same."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc_platform.clients.kafka.offset_history import WrittenOffset
from cdc_platform.model.topology import Cluster, Engine
from cdc_platform.verification.duplicates.causes import DuplicatePolicy, blame, judge, unsure_runs
from cdc_platform.verification.duplicates.copies import PartitionCounts
from cdc_platform.verification.duplicates.deliveries import counts_on
from cdc_platform.verification.duplicates.transaction_takeovers import OffsetTakeovers, StartedRun, Takeover, taken_over
from tests.defs.harness import topology
from tests.verification.duplicates.topics import Topic, run_id

BORN = 1_700_000_000_000


def offset(at: int, gtid: str | None, *counts: int) -> WrittenOffset:
    """As Debezium stores it: in the middle of that transaction, so many events of each table behind it."""
    inside = {} if gtid is None else {"transaction_id": gtid, "event": 90, "row": 14}
    tables = {f"transaction_data_collection_order_db.t{n}": count for n, count in enumerate(counts)}
    return WrittenOffset(at, {"gtids": "0-1-4", **inside, **tables})


class History:
    """`OffsetHistories` in memory; remembers what it was asked."""

    def __init__(self, offsets: Mapping[str, Sequence[WrittenOffset]]) -> None:
        self.offsets = offsets
        self.asked: list[Mapping[str, tuple[int, int]]] = []

    def read(self, cluster: Cluster, windows: Mapping[str, tuple[int, int]]) -> Mapping[str, Sequence[WrittenOffset]]:
        self.asked.append(windows)
        return {
            name: [one for one in self.offsets.get(name, ()) if begin <= one.at <= until]
            for name, (begin, until) in windows.items()
        }


def takeovers(offsets: Sequence[WrittenOffset]) -> tuple[OffsetTakeovers, History]:
    world = topology()
    history = History({"pins.00000": offsets})
    return OffsetTakeovers(history, world, world.dataset("pins")), history


def word(gtid: str) -> int:
    found = taken_over(Engine.MARIADB, [offset(0, gtid, 1)], 0)
    assert found is not None
    return found.transaction


def total(counts: PartitionCounts) -> int:
    return sum(item.count for item in blame([counts]))


def test_duplicates_of_a_run_that_began_in_mid_transaction_are_found_by_where_it_began(tmp_path: Path) -> None:
    topic = Topic()
    first, second = run_id(BORN), run_id(BORN + 60_000)
    for number in range(1, 9):
        topic.send(first, number, 7, place=100, order=number)
    # It had committed five of them: 6, 7 and 8 come again, as 1, 2 and 3.
    for number in range(6, 13):
        topic.send(second, number, 7, place=100, order=number - 5)
    known, history = takeovers([offset(BORN + 5_000, "0-1-7", 2, 3)])
    counts = topic.counts(tmp_path, takeovers=known)
    assert (total(counts), unsure_runs([counts])) == (3, {})
    assert len(history.asked) == len(topology().dataset("pins").clusters)
    # What nothing tells is not passed over in silence.
    unknown, _ = takeovers([])
    blind = topic.counts(tmp_path / "blind", takeovers=unknown)
    assert unsure_runs([blind]) == {"00000": (second,)}
    (judged,) = judge(["00000"], blame([blind]), DuplicatePolicy(), unsure=unsure_runs([blind]))
    assert judged.unsure == (second,)


def test_duplicates_of_one_hot_row_are_counted_by_number_alone(tmp_path: Path) -> None:
    # Each event has the key, row and operation of the next: only the number tells them apart.
    topic = Topic()
    first, second = run_id(BORN), run_id(BORN + 60_000)
    for number in range(1, 16):
        topic.send(first, 1, 7, place=100, order=number)
    for number in range(11, 101):
        topic.send(second, 1, 7, place=100, order=number - 10)
    known, _ = takeovers([offset(BORN + 5_000, "0-1-7", 10)])
    assert total(topic.counts(tmp_path, takeovers=known)) == 5


def test_duplicates_of_a_run_that_numbers_on_in_mid_transaction_are_those_of_equal_number(tmp_path: Path) -> None:
    """Debezium from 3.6.1 on. A first run of an older one is asked for, whatever the second is."""
    topic, release = Topic(), "3.6.1.Final"
    first, second = run_id(BORN), run_id(BORN + 60_000)
    for number in range(1, 16):
        topic.send(first, 1, 7, place=100, order=number, release=release)
    for number in range(11, 101):
        topic.send(second, 1, 7, place=100, order=number, release=release)
    known, history = takeovers([offset(BORN + 5_000, "0-1-7", 10)])
    assert total(topic.counts(tmp_path, takeovers=known)) == 5
    assert history.asked == []
    # Also when what came first was read by another process.
    topic.counts(tmp_path / "again", end=40, takeovers=known)
    assert total(topic.counts(tmp_path / "again", takeovers=known)) == 5
    for number in range(96, 101):
        topic.send(run_id(BORN + 120_000), 1, 7, place=100, order=number, release=release)
    assert total(topic.counts(tmp_path / "again", takeovers=known)) == 10


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ("3.6.1.Final", True),
        ("3.7.0.Beta1", True),
        ("4.0.0.Final", True),
        ("3.6.0.Final", False),
        ("3.5.0.Final", False),
        ("", False),
    ],
)
def test_releases_that_number_on(release: str, expected: bool) -> None:
    assert counts_on(release) is expected


def test_runs_of_which_no_event_came_twice_are_not_asked_for(tmp_path: Path) -> None:
    topic = Topic()
    for number in range(1, 9):
        topic.send(run_id(BORN), number, number, order=1)
        topic.send(run_id(BORN + 60_000), number, 100 + number, order=1)
    known, history = takeovers([])
    assert total(topic.counts(tmp_path, takeovers=known)) == 0
    assert history.asked == []


def test_a_takeover_is_where_the_last_offset_before_the_birth_stands() -> None:
    commits = [offset(0, None), offset(5_000, "0-1-7", 40), offset(10_000, "0-1-7", 90), offset(31_000, "0-1-7", 12)]
    assert taken_over(Engine.MARIADB, commits, 20_000) == Takeover(word("0-1-7"), 90)
    assert taken_over(Engine.MARIADB, commits, 2_000) == Takeover(0, 0)
    assert taken_over(Engine.MARIADB, [*commits, WrittenOffset(40_000, None)], 50_000) == Takeover(0, 0)
    assert taken_over(Engine.MARIADB, [], 2_000) is None
    # A run between counted from 1, too: its count is lower, or its birth is known.
    assert taken_over(Engine.MARIADB, commits, 50_000) == Takeover(word("0-1-7"), 102)
    higher = [*commits[:3], offset(31_000, "0-1-7", 500)]
    assert taken_over(Engine.MARIADB, higher, 50_000, [20_000, 50_000]) == Takeover(word("0-1-7"), 590)
    assert taken_over(Engine.MYSQL, [offset(0, "24bc7850-2c16-11e6-a073-0242ac110002:7", 3)], 1) is not None


class Told:
    """`Takeovers` as the test has made them."""

    def __init__(self, known: Mapping[str, Takeover]) -> None:
        self.known = known

    def find(self, runs: Collection[StartedRun]) -> Mapping[str, Takeover]:
        return {run.run: self.known[run.run] for run in runs if run.run in self.known}


def shift(begin: int) -> Takeover:
    return Takeover(word("0-1-7"), begin) if begin else Takeover(0, 0)


@settings(max_examples=300)
@given(data=st.data(), keys=st.lists(st.integers(0, 5), min_size=1, max_size=40), batch=st.integers(1, 25))
def test_duplicates_of_a_transaction_taken_over_again_and_again_equal_a_plain_count(
    data: Any, keys: list[int], batch: int
) -> None:
    """Three runs send parts of one transaction. Only even keys are in this partition; rows are hot."""
    topic, sent = Topic(), Counter[int]()
    known: dict[str, Takeover] = {}
    begin = reached = 0
    for at in range(3):
        run = run_id(BORN + at * 60_000)
        known[run] = shift(begin)
        until = data.draw(st.integers(begin, len(keys)))
        for number in range(begin + 1, until + 1):
            if keys[number - 1] % 2 == 0:
                topic.send(run, keys[number - 1], 7, place=100, order=number - begin)
                sent[number] += 1
        reached = max(reached, until)
        begin = data.draw(st.integers(begin, until))  # what was committed when it died
    with tempfile.TemporaryDirectory() as root:
        for cut in sorted(data.draw(st.lists(st.integers(0, len(topic.records)), max_size=3))):
            topic.counts(Path(root), end=cut, batch=batch, takeovers=Told(known))
        counts = topic.counts(Path(root), batch=batch, takeovers=Told(known))
    assert total(counts) == sum(sent.values()) - len(sent)
