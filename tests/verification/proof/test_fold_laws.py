"""Laws of fold, bracket and comparison, on any history and any delivery of it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc_platform.model.positions import MariaDbPosition, MySqlPosition, PostgresPosition, furthest
from cdc_platform.verification.proof.change_events import EVENT, ORIGIN_BITS, Events
from cdc_platform.verification.proof.comparison import NOWHERE, Bracket, SourceRows, compare, stale_keys
from cdc_platform.verification.proof.fold import compact, in_order
from cdc_platform.verification.proof.raw_keys import starts_of

KEYS = range(1, 5)


@dataclass(frozen=True)
class Change:
    """What transaction `seq` made of a key, as its `step`-th event there; row 0 is a delete."""

    key: int
    seq: int
    step: int
    row: int


@st.composite
def histories(draw: st.DrawFn) -> list[Change]:
    """Transactions of one to three changes, in the source's order. Each change makes a row of its own."""
    found: list[Change] = []
    rows = itertools.count(10)
    for seq in range(1, draw(st.integers(1, 12)) + 1):
        for step in range(draw(st.integers(1, 3))):
            deleted = draw(st.booleans()) and draw(st.booleans())
            found.append(Change(draw(st.sampled_from(KEYS)), seq, step, 0 if deleted else next(rows)))
    return found


def place(file: int, step: int) -> int:
    """As decoding.py makes it: the binlog file above, the place in it below."""
    return (file << ORIGIN_BITS) | (step + 1)


def events(changes: list[Change], files: list[int] | None = None) -> Events:
    """The changes in the order in which they arrive."""
    made = np.zeros(len(changes), dtype=EVENT)
    for at, change in enumerate(changes):
        file = files[at] if files else 1
        made[at] = (0, 0, 0, change.key, change.seq, place(file, change.step), at, change.row, 0)
    return made


def at(seq: int) -> MariaDbPosition:
    return MariaDbPosition.parse(f"0-1-{seq}" if seq else "")


def state(changes: list[Change], seq: int) -> dict[int, int]:
    """Key to row as a reader sees it after transaction `seq`."""
    found: dict[int, int] = {}
    for change in changes:
        if change.seq <= seq:
            found[change.key] = change.row
    return {key: row for key, row in found.items() if row}


def judged(folded: Events, shown: dict[int, int], low: int, high: int) -> tuple[set[int], set[int], set[int]]:
    """Missing, extra and mismatched keys of a table that was read in one bracket."""
    source = SourceRows(
        np.array(list(shown), dtype=np.uint64),
        np.array(list(shown.values()), dtype=np.uint64),
        np.zeros(len(shown), dtype=np.int64),
    )
    homes = np.zeros(len(starts_of(folded)), dtype=np.int64)
    found = compare(folded, source, [Bracket(at(low), at(high))], homes, at(low))
    assert not len(found.undecided)
    return set(found.missing.tolist()), set(found.extra.tolist()), set(found.mismatched.tolist())


def folded(parts: list[Events], fence: int) -> Events:
    """Folded piece by piece, as runs are written and merged."""

    def sees(code: int, stream: np.ndarray, seq: np.ndarray) -> np.ndarray:
        return at(fence).sees(stream, seq)

    whole = np.zeros(0, dtype=EVENT)
    for part in parts:
        whole = compact(in_order(np.concatenate([whole, compact(in_order(part), sees)])), sees)
    return whole


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[list[Change], list[Events]]:
    """A history, and its events as they may arrive: ends sent again after restarts, keys' partitions interleaved."""
    changes = draw(histories())
    sent = list(changes)
    files = [1] * len(sent)
    for again in range(draw(st.integers(0, 2))):
        # From the beginning of a transaction on, as a restarted task sends; perhaps from another server.
        seq = draw(st.integers(1, changes[-1].seq))
        more = [change for change in changes if change.seq >= seq]
        sent += more
        files += [draw(st.sampled_from([1, 2 + again]))] * len(more)
    made = events(sent, files)
    cuts = sorted(draw(st.lists(st.integers(0, len(made)), max_size=4)))
    edges = [0, *cuts, len(made)]
    return changes, [made[a:b] for a, b in itertools.pairwise(edges)]


@settings(max_examples=150, deadline=None)
@given(deliveries(), st.data())
def test_a_row_read_in_its_bracket_is_right_however_its_events_came(
    delivery: tuple[list[Change], list[Events]], data: st.DataObject
) -> None:
    changes, parts = delivery
    end = changes[-1].seq
    low = data.draw(st.integers(0, end), label="low")
    seen = data.draw(st.integers(low, end), label="seen")
    high = data.draw(st.integers(seen, end), label="high")
    fence = data.draw(st.integers(0, low), label="fence")
    assert judged(folded(parts, fence), state(changes, seen), low, high) == (set(), set(), set())


@settings(max_examples=150, deadline=None)
@given(deliveries(), st.data())
def test_a_wrong_row_is_found_and_no_other(delivery: tuple[list[Change], list[Events]], data: st.DataObject) -> None:
    changes, parts = delivery
    end = changes[-1].seq
    low = data.draw(st.integers(0, end), label="low")
    high = data.draw(st.integers(low, end), label="high")
    shown = state(changes, low)
    key = data.draw(st.sampled_from(KEYS), label="key")
    versions = {change.row for change in changes if change.key == key and low < change.seq <= high}
    what = data.draw(st.sampled_from(["changed", "gone", "new"]), label="what")
    expected: tuple[set[int], set[int], set[int]] = (set(), set(), set())
    live = {change.key: change.row for change in changes}.get(key, 0) != 0
    known = any(change.key == key for change in changes)
    if what == "gone":
        if key not in shown or 0 in versions:
            return
        del shown[key]
        expected = (set(), {key}, set())
    else:
        if (what == "changed") != (key in shown):
            return
        shown[key] = 7
        expected = (set(), set(), {key}) if known and live else ({key}, set(), set())
    assert judged(folded(parts, min(low, data.draw(st.integers(0, end), label="fence"))), shown, low, high) == expected


@settings(max_examples=100, deadline=None)
@given(deliveries(), st.data())
def test_the_fold_is_the_same_by_pieces_and_at_once(
    delivery: tuple[list[Change], list[Events]], data: st.DataObject
) -> None:
    changes, parts = delivery
    fence = data.draw(st.integers(0, changes[-1].seq))
    once, pieces = folded([np.concatenate(parts)], fence), folded(parts, fence)
    for seq in range(fence, changes[-1].seq + 1):
        for found in (once, pieces):
            assert judged(found, state(changes, seq), seq, seq) == (set(), set(), set())
    # Of what the fence sees one event a key is left.
    settled = pieces[at(fence).sees(pieces["stream"], pieces["seq"])]
    assert len(starts_of(settled)) == len(settled)


@settings(max_examples=150, deadline=None)
@given(deliveries(), st.data())
def test_a_key_is_behind_when_an_older_row_was_sent_after_its_newest_and_else_never(
    delivery: tuple[list[Change], list[Events]], data: st.DataObject
) -> None:
    """However the topic was cut into pieces, and whichever fences they were folded at."""
    changes, parts = delivery
    end = changes[-1].seq
    fence = data.draw(st.integers(0, end), label="fence")
    for seq in range(fence, end + 1):
        assert not len(stale_keys(folded(parts, fence), at(seq)))
    latest = {change.key: change for change in changes}
    # Not of the newest's own transaction: a part of it from another server is taken for its going on.
    old = [change for change in changes if change.seq < latest[change.key].seq or change == latest[change.key]]
    late = data.draw(st.sampled_from(old), label="late")
    copy = events([late])
    copy["offset"] = sum(map(len, parts))
    newest = latest[late.key]
    expected = {late.key} if newest.row != late.row else set()
    assert set(stale_keys(folded([*parts, copy], fence), at(end)).tolist()) == expected
    healed = events([newest])
    healed["offset"] = copy["offset"] + 1
    assert not len(stale_keys(folded([*parts, copy, healed], fence), at(end)))


@settings(max_examples=100, deadline=None)
@given(histories(), st.data())
def test_a_lost_last_event_is_found_by_its_key(changes: list[Change], data: st.DataObject) -> None:
    end = changes[-1].seq
    lost = data.draw(st.sampled_from(changes))
    if any(change.key == lost.key and (change.seq, change.step) > (lost.seq, lost.step) for change in changes):
        return  # A later one heals it: a state proof does not see it.
    before = [change for change in changes if change != lost]
    missing, extra, mismatched = judged(folded([events(before)], 0), state(changes, end), end, end)
    same = state(before, end).get(lost.key, 0) == lost.row
    assert missing | extra | mismatched == (set() if same else {lost.key})


def test_a_key_that_no_chunk_had_is_judged_only_when_its_place_is_known() -> None:
    made = in_order(events([Change(1, 1, 0, 10), Change(2, 1, 1, 0)]))
    nothing = SourceRows(np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int64))
    found = compare(made, nothing, [], np.full(2, NOWHERE, dtype=np.int64), at(0))
    # Key 2 never was a row: it is right wherever it would have been.
    assert found.undecided.tolist() == [1]
    assert found.topics == 1


@settings(max_examples=150, deadline=None)
@given(histories(), st.data())
def test_a_key_of_unknown_place_is_judged_by_all_the_brackets(changes: list[Change], data: st.DataObject) -> None:
    """Text keys: what was deleted before the first bracket needs no second look, however much of it there is."""
    end = changes[-1].seq
    first = data.draw(st.integers(0, end))
    made = folded([events(changes)], 0)
    nothing = SourceRows(np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int64))
    brackets = [Bracket(at(first), at(first)), Bracket(at(end), at(end))]
    found = compare(made, nothing, brackets, np.full(len(starts_of(made)), NOWHERE, dtype=np.int64), at(first))
    there = {change.key for change in changes if change.row and change.seq > first} | set(state(changes, first))
    assert set(found.undecided.tolist()) == there


GTIDS = st.dictionaries(st.integers(0, 3), st.tuples(st.integers(1, 9), st.integers(1, 10**12)), max_size=3)


@given(GTIDS, GTIDS)
def test_mariadb_positions_cover_what_they_see(
    one: dict[int, tuple[int, int]], other: dict[int, tuple[int, int]]
) -> None:
    first, second = (
        MariaDbPosition.parse(",".join(f"{d}-{s}-{n}" for d, (s, n) in gtids.items())) for gtids in (one, other)
    )
    assert MariaDbPosition.parse(str(first)) == first
    assert first.covers(first)
    streams = np.array(list(other), dtype=np.uint32)
    seqs = np.array([number for _, number in other.values()], dtype=np.uint64)
    assert first.covers(second) == bool(first.sees(streams, seqs).all())


INTERVALS = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 9)), min_size=1, max_size=4)


@given(INTERVALS, st.integers(1, 80))
def test_mysql_positions_see_what_was_executed(intervals: list[tuple[int, int]], number: int) -> None:
    uuid = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
    position = MySqlPosition.parse(uuid + ":" + ":".join(f"{a}-{a + n}" for a, n in intervals))
    assert MySqlPosition.parse(str(position)) == position
    executed = {number for a, n in intervals for number in range(a, a + n + 1)}
    stream = np.array([int(uuid[:8], 16)], dtype=np.uint32)
    assert bool(position.sees(stream, np.array([number], dtype=np.uint64))[0]) == (number in executed)
    assert position.covers(MySqlPosition.parse(f"{uuid}:{number}")) == (number in executed)


@settings(max_examples=150)
@given(st.integers(3, 2**34), st.lists(st.integers(1, 2**16), max_size=5), st.integers(-(2**18), 2**18), st.data())
def test_postgres_positions_see_what_had_ended_also_across_the_32_bit_circle(
    xmax: int, back: list[int], away: int, data: st.DataObject
) -> None:
    running = sorted({xmax - steps for steps in back if xmax - steps > 2})
    before = 10**9
    position = PostgresPosition(min(running, default=xmax), xmax, tuple(running), before, before + 100)
    assert PostgresPosition.parse(str(position)) == position
    xid = xmax + away
    if xid < 3:
        return
    # What a transaction of the future writes lies behind what had been written.
    lsn = data.draw(st.integers(1, before)) if xid < xmax else data.draw(st.integers(before + 1, before + 10**6))
    sees = bool(position.sees(np.array([xid & 0xFFFFFFFF], dtype=np.uint32), np.array([lsn], dtype=np.uint64))[0])
    assert sees == (xid < xmax and xid not in running)


SNAPSHOTS = st.tuples(st.integers(10, 20), st.sets(st.integers(10, 19), max_size=4))


def _snapshot(xmax: int, listed: set[int]) -> PostgresPosition:
    running = tuple(sorted(xid for xid in listed if xid < xmax))
    return PostgresPosition(min(running, default=xmax), xmax, running, 0, 100)


@given(SNAPSHOTS, SNAPSHOTS)
def test_postgres_snapshots_cover_what_they_see(one: tuple[int, set[int]], other: tuple[int, set[int]]) -> None:
    first, second = _snapshot(*one), _snapshot(*other)
    xids = np.arange(5, 25, dtype=np.uint32)
    seqs = np.full(len(xids), 50, dtype=np.uint64)
    assert first.covers(first)
    if first.covers(second):
        assert (first.sees(xids, seqs) | ~second.sees(xids, seqs)).all()
    else:  # what had ended there is to come or runs here, or may: a snapshot does not list subtransactions
        assert first.xmax < second.xmax or (second.sees(xids, seqs) & ~first.sees(xids, seqs)).any()


@given(st.permutations(range(1, 8)))
def test_the_furthest_position_covers_all_in_whatever_order_they_came(order: list[int]) -> None:
    assert furthest([at(seq) for seq in order]) == at(7)
    snapshots = [_snapshot(10 + seq, {9 + seq}) for seq in order]
    assert all(furthest(snapshots).covers(snapshot) for snapshot in snapshots)
