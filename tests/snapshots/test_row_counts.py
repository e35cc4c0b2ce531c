"""What arrived is held against the source's count before a table is called whole."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from cdc_platform.clients.sources.logs import SourceLogs
from cdc_platform.errors import CdcError, SourceRejected, SourceUnavailable
from cdc_platform.model.topology import BootstrapMode
from cdc_platform.snapshots.request import Request, RunKind
from cdc_platform.snapshots.row_counts import Patience, RowCounter
from cdc_platform.snapshots.run_records import Phase, RowCount, Run, ShardState, Watermark
from cdc_platform.snapshots.shard_progress import ShardProgress, TableProgress
from cdc_platform.snapshots.slice_state import SliceShard, SliceState
from cdc_platform.snapshots.watermarks import watermark_records
from tests.defs.harness import dataset, shard
from tests.waiting import assert_eventually

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
PINS = dataset("pins")
READING = ShardState(phase=Phase.READING, since=NOW, began=NOW, attempt=1)


class Source:
    """Counts rows: the next of `answers` each time, the last one for ever."""

    def __init__(self, *answers: int | CdcError) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str | None]] = []

    def count_rows(self, dataset: Any, shard: Any, table: Any, condition: str | None, seconds: float) -> int:
        self.asked.append((table.name, condition))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, CdcError):
            raise answer
        return answer


class Topics:
    """Says how many keys of a shard are in a topic, as `Source` does."""

    def __init__(self, *answers: int) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, Mapping[str, datetime]]] = []

    def live_keys(self, topic: str, since: Mapping[str, datetime]) -> Mapping[str, int]:
        self.asked.append((topic, since))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return dict.fromkeys(since, answer)


def run(**more: Any) -> Run:
    request = Request(kind=RunKind.BACKFILL, dataset="pins", tables=("pins",), **more)
    return Run(id="r1", request=request, mode=None, tables=("pins",), shards=("00000",), created=NOW)


def read(rows: int, state: ShardState = READING) -> SliceShard:
    done = TableProgress(rows=rows, scanned=rows, status="SUCCEEDED")
    progress = ShardProgress(tables={"p.pins": done})
    return SliceShard(spec=shard("pins", 0), names={"p.pins": "pins"}, state=state, progress=progress)


def counted(one: SliceShard, source: Source, topics: Topics, of: Run | None = None) -> RowCount:
    counter = RowCounter(
        run=of or run(),
        dataset=PINS,
        sources=cast(SourceLogs, source),
        live_keys=topics.live_keys,
        seconds=60,
        patience=Patience(between=0.01, standstill=0.2, silence=0.2),
    )
    found: list[Mapping[str, RowCount]] = []

    def ended() -> bool:
        counts = counter.counts(one)
        found.extend([counts] if counts is not None else [])
        return bool(found)

    assert_eventually(ended, what="counted", seconds=10)
    counter.close()
    return found[0]["pins"]


def test_a_table_of_which_just_as_many_rows_were_read_is_counted_once() -> None:
    source, topics = Source(600), Topics(0)
    assert counted(read(600), source, topics) == RowCount(read=600, low=600, high=600)
    assert source.asked == [("pins", None)]
    assert topics.asked == []


def test_rows_that_were_written_meanwhile_are_counted_in_the_topic() -> None:
    source, topics = Source(605, 607), Topics(604, 606)
    assert counted(read(600), source, topics) == RowCount(read=606, low=607, high=607) or topics.asked
    assert counted(read(600), Source(605, 607), Topics(606)) == RowCount(read=606, low=605, high=607)
    topic, since = topics.asked[0]
    assert topic == "cdc.pins.pins"
    assert NOW - timedelta(minutes=5) < since["00000"] < NOW, "what an older stream has sent does not count"


def test_rows_that_are_missing_are_missed_as_long_as_none_arrives() -> None:
    began = time.monotonic()
    assert counted(read(467), Source(600), Topics(400, 467)) == RowCount(read=467, low=600, high=600)
    assert time.monotonic() - began >= 0.2


def test_a_count_that_cannot_be_had_is_no_count() -> None:
    slow = SourceRejected("counting pins took longer than 60 s.", cure="Give it more time: count_seconds.")
    found = counted(read(600), Source(slow), Topics(0))
    assert (found.read, found.low, found.whole) == (600, None, False)
    assert found.sentence() == "600 rows read, not counted: counting pins took longer than 60 s"
    silent = SourceUnavailable("the source did not answer.")
    assert not counted(read(600), Source(silent), Topics(0)).whole
    assert counted(read(600), Source(silent, 600), Topics(0)).whole, "asked again"


def test_only_the_rows_that_were_asked_for_are_counted() -> None:
    source = Source(2)
    counted(read(2), source, Topics(0), run(conditions={"00000": "id IN (1,2)"}))
    assert source.asked == [("pins", "id IN (1,2)")]


WHOLE, SHORT = RowCount(read=600, low=600, high=600), RowCount(read=467, low=600, high=602)


@pytest.mark.parametrize("mode", [BootstrapMode.INCREMENTAL, BootstrapMode.SNAPSHOT, None], ids=str)
def test_one_table_that_lacks_rows_fails_its_shard_and_no_other_table(mode: BootstrapMode | None) -> None:
    kind = RunKind.BACKFILL if mode is None else RunKind.BOOTSTRAP
    both = Run(
        id="r1",
        request=Request(kind=kind, dataset="pins"),
        mode=mode,
        tables=("pins", "boards"),
        shards=("00000",),
        created=NOW,
    )
    one = SliceState(both, PINS, [shard("pins", 0)])
    (reading,) = one
    reading.state = replace(READING, unread={"users": "it cannot be read in chunks"})
    state = one.finished(reading, {"pins": WHOLE, "boards": SHORT}, NOW)
    assert state.phase is Phase.FAILED
    assert state.error == ("boards: read 467 of 600..602 rows; users was not read: it cannot be read in chunks")
    marks = watermark_records(both, PINS, shard("pins", 0), state, {})
    assert marks["watermark/pins/pins/00000"]["complete"] == NOW.isoformat()
    assert marks["watermark/pins/boards/00000"]["complete"] is None
    reading.state = READING
    assert one.finished(reading, {"pins": WHOLE, "boards": WHOLE}, NOW).phase is Phase.DONE


def test_what_was_whole_before_stays_whole() -> None:
    before = Watermark(
        dataset="pins", table="pins", shard="00000", mode=BootstrapMode.SNAPSHOT, run="r0", position="0-1-1", offset={},
        since=NOW, complete=NOW,
    )  # fmt: skip
    state = replace(READING, phase=Phase.FAILED, counts={"pins": SHORT})
    (mark,) = watermark_records(run(), PINS, shard("pins", 0), state, {("pins", "00000"): before}).values()
    assert (mark["complete"], mark["backfilled"]) == (NOW.isoformat(), None)
