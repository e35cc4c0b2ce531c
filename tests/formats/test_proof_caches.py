"""The caches of the proof, the duplicates' check and the ledger of an earlier release, read by the code of now."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from cdc_platform.clients.kafka.murmur2 import murmur2
from cdc_platform.model.positions import MariaDbPosition
from cdc_platform.verification.continuity.handovers import ShardSent, Silence
from cdc_platform.verification.continuity.ledger_store import LedgerState, LedgerStore, ShardLedger
from cdc_platform.verification.continuity.transaction_balance import END, SEEN
from cdc_platform.verification.continuity.transaction_counts import TRANSACTION_COUNT
from cdc_platform.verification.duplicates.copies import Pair, Span
from cdc_platform.verification.duplicates.delivery_batches import PartitionState
from cdc_platform.verification.duplicates.delivery_store import PartitionDeliveries
from cdc_platform.verification.proof.change_events import OFFSET_BITS, OWN, UnreadableRecord, spread
from cdc_platform.verification.proof.fold_files import FoldState
from cdc_platform.verification.proof.scan import Scan
from cdc_platform.verification.storage.state_directory import StateDirectory
from tests.formats.proof import SCAN, append_more, extend, scan, sent_topic, source_table, table_topic
from tests.formats.releases import NEWEST, RELEASES
from tests.verification.proof.memory import SHAPE, MemoryTopic, key_json


@pytest.fixture(params=RELEASES, ids=lambda path: path.name)
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copytree(request.param / "proof", tmp_path / "cache"))


# Of these, hashes are still those of now.
SAME_FORM = [path for path in RELEASES if path.name not in ("fbb8d40", "proven-from-to")]


@pytest.fixture(params=SAME_FORM, ids=lambda path: path.name)
def same_form(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copytree(request.param / "proof", tmp_path / "cache"))


@pytest.fixture
def same_fold(tmp_path: Path) -> Path:
    """A release whose folds are gone on with."""
    return Path(shutil.copytree(NEWEST / "proof", tmp_path / "cache"))


def whole_topic() -> MemoryTopic:
    topic = table_topic()
    append_more(topic)
    return topic


def of_version(cache: Path, part: str, version: int) -> None:
    """Make all states below a part of the cache say that they are of this version."""
    found = list((cache / part).rglob("state.json"))
    assert found
    for path in found:
        path.write_text(json.dumps(json.loads(path.read_text()) | {"version": version}))


# Folds

FOLDS = [
    FoldState(
        next_offset=8,
        begin=0,
        shards=("00000", "00001"),
        files=("run-1-0", "run-2-1"),
        deletes=((0, int(spread(np.array([4], dtype=np.uint64))[0]), murmur2(key_json(4)) & 0x7FFFFFFF),),
        unreadable=(),
        events=8,
        serial=2,
        last=(7, "0e04c132a3d92966"),
        version=7,
    ),
    FoldState(
        next_offset=9,
        begin=0,
        shards=("00000",),
        files=("run-1-0", "run-2-1"),
        deletes=(),
        unreadable=(UnreadableRecord(1, 7, "00000", "not readable: JSON is malformed: invalid character (byte 4)"),),
        unreadable_counts={"00000": 1},
        events=8,
        serial=2,
        last=(8, "e758ff929e16809b"),
        version=7,
    ),
]
OWN_PLACE = int(OWN)
SECOND = 1 << OFFSET_BITS

# By shard: key, epoch, seq, place in the source, offset with its partition, digest of the row.
EVENTS = {
    "00000": [
        (2, 1, 0, OWN_PLACE, 0, 12049311571148251619),
        (2, 1, 2, 5332261959016382464, 2, 12805290914070083119),
        (2, 1, 10, 5332261959855243264, 7, 15519301906487094397),
        (4, 1, 0, OWN_PLACE + 1, 1, 11549237939935196628),
        (4, 1, 8, 5332261959645528064, 5, 0),
        (1, 1, 0, OWN_PLACE, SECOND, 15399501353069546720),
        (1, 1, 1, 5332261958911524864, SECOND + 2, 803209086459963501),
        (1, 1, 4, 5332261959226097664, SECOND + 4, 8408455121036942133),
        (1, 1, 7, OWN_PLACE + 7, SECOND + 7, 2),
        (1, 1, 9, 5332261959750385664, SECOND + 8, 8679952645639936608),
        (6, 1, 5, 5332261959330955264, 3, 13872746765794456697),
        (3, 1, 0, OWN_PLACE + 1, SECOND + 1, 11773408486101337358),
        (3, 1, 3, 5332261959121240064, SECOND + 3, 1153819156419652615),
        (3, 1, 7, 5332261959540670464, SECOND + 5, 0),
        (8, 1, 6, 5332261959435812864, 4, 15875626889842247613),
    ],
    "00001": [(2, 0, 5, 5332261959330955264, 6, 3956993530895001941)],
}


def test_folds_are_gone_on_with(same_fold: Path) -> None:
    topic = whole_topic()
    fold = extend(topic, same_fold)
    assert topic.taken == 0
    assert fold.states() == FOLDS
    for shard, expected in EVENTS.items():
        found = fold.events(shard, 0, 1 << 64)
        assert found["stream"].tolist() == [0] * len(expected)
        keys = spread(np.array([key for key, *_ in expected], dtype=np.uint64)).tolist()
        assert found["key"].tolist() == keys
        columns = [found[name].tolist() for name in ("epoch", "seq", "sub", "offset", "row")]
        assert list(zip(*columns, strict=True)) == [tuple(rest) for _, *rest in expected]
    topic.append(2, None)
    topic.append(4, None)  # the tombstone of the delete that was still to come
    extend(topic, same_fold)
    assert topic.taken == 2
    assert FOLDS[0].deletes and not fold.states()[0].deletes
    assert (fold.states()[0].events, fold.states()[0].next_offset) == (9, 10)


@pytest.mark.parametrize("release", ["form-2", "deliveries-6"])
def test_folds_that_know_less_of_keys_and_unreadable_records_are_begun_from_scratch(
    tmp_path: Path, release: str
) -> None:
    topic = whole_topic()
    fold = extend(topic, Path(shutil.copytree(NEWEST.parent / release / "proof", tmp_path / "cache")))
    assert topic.taken == 17
    assert fold.events("00000", 0, 1 << 64)["row"].tolist() == [row for *_, row in EVENTS["00000"]]


def test_folds_of_another_version_are_begun_anew(same_form: Path) -> None:
    of_version(same_form, "folds", 8)
    topic = whole_topic()
    fold = extend(topic, same_form)
    assert topic.taken == 17
    assert [state.version for state in fold.states()] == [7, 7]
    assert fold.events("00000", 0, 1 << 64)["row"].tolist() == [row for *_, row in EVENTS["00000"]]


# Scans


def test_a_scan_is_read_back(same_form: Path) -> None:
    found = Scan(same_form / "whole", SCAN, SHAPE)
    assert (found.complete, found.rows, str(found.start)) == (True, 5, "0-1-5")
    assert [(chunk.after, chunk.until) for chunk in found.chunks] == [
        (None, ("1",)), (("1",), ("3",)), (("3",), None),
    ]  # fmt: skip
    at = MariaDbPosition.parse("0-1-5")
    assert [(one.low, one.high) for one in found.brackets()] == [(at, at)] * 3
    rows = found.source_rows(0, 1 << 64)
    assert rows.keys.tolist() == spread(np.array([0, 2, 4, 1, 3], dtype=np.uint64)).tolist()
    assert rows.chunks.tolist() == [0, 1, 2, 0, 1]
    assert rows.rows.tolist() == [
        15846265922346743701, 12049311571148251619, 11549237939935196628, 15399501353069546720, 11773408486101337358,
    ]  # fmt: skip


def test_a_scan_that_was_broken_off_is_gone_on_with(same_form: Path) -> None:
    begun = Scan(same_form / "begun", SCAN, SHAPE)
    assert (begun.complete, begun.rows, len(begun.chunks)) == (False, 100, 100)
    assert begun.chunks[-1].until == ("99",)
    table = source_table(120)
    found = scan(same_form / "begun", table, chunk_rows=20)
    assert table.chunks_read == [("99",), ("119",)]
    assert (found.complete, found.rows, len(found.source_rows(0, 1 << 64).keys)) == (True, 120, 120)


def test_a_scan_of_a_table_of_another_shape_is_begun_anew(cache: Path) -> None:
    (path,) = (cache / "whole").rglob("scan.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fingerprint": "0" * 16}))
    found = Scan(cache / "whole", SCAN, SHAPE)
    assert (found.complete, found.rows, found.chunks, found.start) == (False, 0, [], None)


def test_a_scan_of_another_version_is_begun_again(cache: Path) -> None:
    """Those of fbb8d40 carry none, and are of the first."""
    (path,) = (cache / "whole").rglob("scan.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 2}))
    found = Scan(cache / "whole", SCAN, SHAPE)
    assert (found.complete, found.rows, found.chunks, found.start) == (False, 0, [], None)


def test_folds_and_scans_with_other_hashes_are_begun_from_scratch(tmp_path: Path) -> None:
    """MariaDB's strings were escaped otherwise: a fold of then would call rows with line feeds different."""
    old = Path(shutil.copytree(RELEASES[0] / "proof", tmp_path / "cache"))
    topic = whole_topic()
    fold = extend(topic, old)
    assert topic.taken == 17
    assert fold.events("00000", 0, 1 << 64)["row"].tolist() == [row for *_, row in EVENTS["00000"]]
    assert not Scan(old / "whole", SCAN, SHAPE).complete


# Sightings

FIRST, SECOND_RUN = "019b6968-4600-7000-8000-000000000000", "019b6969-3060-7000-8000-000000000000"
SENT = PartitionState(
    next_offset=8,
    files=("run-1-0",),
    serial=1,
    events=7,
    unreadable=1,
    newest=1_767_000_060_503,
    spans=(
        Span("00000", FIRST, "w0", first=0, last=3, begun=1_767_000_000_001, ended=1_767_000_000_004, events=4),
        Span("00000", SECOND_RUN, "w1", first=4, last=6, begun=1_767_000_060_501, ended=1_767_000_060_503, events=3),
    ),
    pairs=(Pair(before=0, after=1, how=0, count=2, first=4, last=5, begun=1_767_000_060_501, ended=1_767_000_060_502),),
    high={"00000": {0: 4}},
    transaction_counts=("run-1-0-t1767000060503",),
    version=5,
)
TRANSACTION_COUNTS = [
    (3069472533636442495, 0, 1, 1, 1_767_000_000_002),
    (9405607414650848140, 1, 1, 4, 1_767_000_060_501),
    (17996121457536601210, 0, 1, 3, 1_767_000_000_004),
    (17996121457536601210, 1, 1, 5, 1_767_000_060_502),
    (9405607414650848140, 0, 1, 2, 1_767_000_000_003),
    (6829236559324631798, 1, 1, 6, 1_767_000_060_503),
]


def test_sightings_are_gone_on_with(cache: Path) -> None:
    part = PartitionDeliveries(cache / "sent", 0)
    assert replace(part.state(), version=5) == SENT
    ((name, rows),) = part.transaction_counts()
    assert name == "run-1-0-t1767000060503"
    assert rows.dtype == TRANSACTION_COUNT
    assert rows.tolist() == TRANSACTION_COUNTS
    # What was seen before is known by its identity: sent once more, it is a copy again.
    topic = sent_topic()
    topic.send(SECOND_RUN, 3, 3, worker="w1", order=1)
    counts = topic.counts(cache / "sent")
    assert [(pair.before, pair.after, pair.count) for pair in counts.pairs] == [(0, 1, 2), (1, 1, 1)]
    assert part.state().events == 8
    assert part.state().version == 6, "what is written has the version of now"


def test_sightings_of_another_version_are_begun_anew(cache: Path) -> None:
    of_version(cache, "sent", 7)
    part = PartitionDeliveries(cache / "sent", 0)
    assert part.state() == PartitionState()
    counts = sent_topic().counts(cache / "sent")
    assert (counts.spans, counts.pairs) == (SENT.spans, SENT.pairs)


def test_a_release_before_6_begins_sightings_anew_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its number of a task run would be one with a bit that it does not know."""
    newest = Path(shutil.copytree(NEWEST / "proof" / "sent", tmp_path / "sent"))
    (directory,) = (path.parent for path in newest.rglob("state.json"))
    assert StateDirectory(directory, version=5).load(PartitionState) is None
    assert "was written by a newer release (version 6, this one reads 5)" in caplog.text


# The ledger

RUNS = ["019b6968-4600-7000-8000-000000000000", "019b6968-5994-7000-8000-000000000001"]
LEDGER = LedgerState(
    topic_id="tx",
    next={0: 6},
    taken={0: ["run-2-0-t1767000005117"]},
    shards=["00000"],
    runs=[f"00000 {run}" for run in RUNS],
    ledgers={
        "00000": ShardLedger(
            sent=ShardSent(
                sent={0: 6},
                last=1_767_000_005_118,
                quiet=[Silence(after=1_767_000_000_012, until=1_767_000_005_115, sent={0: 4})],
            ),
            checked=4,
            runs=RUNS,
        )
    },
    newest=1_767_000_005_118,
    file="open-2",
    serial=2,
    version=1,
)


def ledger(cache: Path) -> LedgerStore:
    return LedgerStore(cache / "kept", "cdc", "cdc.pins.pins", "id")


def test_the_ledger_is_gone_on_with(cache: Path) -> None:
    store = ledger(cache)
    with store.lock():
        assert store.state == LEDGER
        ends, seen = store.open_rows()
        assert (ends.dtype, seen.dtype) == (END, SEEN)
        assert ends.tolist() == [(17666034860148366723, 0, 4, 0, 6, 5, 1_767_000_005_118)]
        assert seen.tolist() == [
            (6829236559324631798, 0, 0, 2, 6, 1_767_000_000_011),
            (17666034860148366723, 0, 1, 2, 10, 1_767_000_005_117),
        ]
        # A transaction that was whole is known: events of it that come again open nothing.
        again = np.zeros(1, dtype=SEEN)
        again["transaction"], again["count"] = TRANSACTION_COUNTS[0][0], 2  # GTID 0-1-1
        store.begin()
        store.write_down("seen", again)
        assert len(store.balanced().seen) == 2


def test_a_ledger_of_another_version_is_begun_anew(cache: Path) -> None:
    of_version(cache, "kept/ledger", 2)
    store = ledger(cache)
    with store.lock():
        assert store.state == LedgerState()
        assert [len(rows) for rows in store.open_rows()] == [0, 0]
