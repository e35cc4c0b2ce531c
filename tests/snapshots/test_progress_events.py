"""What a snapshot run reports: sentences, a progress bar with an ETA, slices put together."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from rich.console import Console

from cdc_platform.cli import run_progress as snapshot_runs
from cdc_platform.cli.run_progress import Screen, together
from cdc_platform.clients.kafka.notifications import INCREMENTAL, Notification
from cdc_platform.snapshots.progress_events import RunProgress, ShardDone
from cdc_platform.snapshots.request import Request, RunKind
from cdc_platform.snapshots.run_records import Hole, Phase, Run, ShardState
from cdc_platform.snapshots.shard_progress import Sample, eta, rows_per_second
from cdc_platform.snapshots.slice_state import SliceState
from cdc_platform.snapshots.table_progress import lines
from tests.defs.harness import dataset, shard

RUN = Run(
    id="r1",
    request=Request(kind=RunKind.BACKFILL, dataset="pins"),
    mode=None,
    tables=("pins",),
    shards=("00000", "00001", "00002", "00003"),
    created=datetime(2026, 11, 23, tzinfo=UTC),
)


def progress(done: int, fraction: float, left: float | None) -> RunProgress:
    return RunProgress(
        shards=2,
        done=done,
        failed=0,
        active={"reading": 2 - done},
        throttled={"rows a second": 1},
        rows=1000,
        chunks=10,
        rows_per_s=50.0,
        fraction=fraction,
        eta=left,
    )


def screen(monkeypatch: pytest.MonkeyPatch, *, terminal: bool) -> tuple[Screen, StringIO]:
    written = StringIO()

    def console(**more: object) -> Console:
        return Console(file=written, force_terminal=terminal, width=160)

    monkeypatch.setattr(snapshot_runs, "SafeConsole", console)
    return Screen(RUN, quiet=False), written


def test_backfill_shows_a_progress_bar_with_an_eta_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, written = screen(monkeypatch, terminal=True)
    with shown:
        shown.listener(0).progress(progress(1, 0.5, 600.0))
        shown.listener(1).progress(progress(0, 0.25, 900.0))
    assert "1 of 4 shards, 2,000 rows, 100/s, 15 min left" in written.getvalue()
    assert "38%" in written.getvalue()


def test_backfill_tells_plain_lines_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, written = screen(monkeypatch, terminal=False)
    with shown:
        shown.listener(0).progress(progress(1, 0.5, 600.0))
    line = (
        "25%: 1 of 4 shards done, 1 reading, 1 throttled: rows a second, "
        "1,000 rows in 10 chunks, 50 rows/s, 10 min left."
    )
    assert line in written.getvalue().replace("\n", "")


def test_slices_together_weigh_by_their_shards() -> None:
    whole = together([progress(1, 0.5, 60.0), progress(2, 1.0, None)], shards=4)
    assert (whole.done, whole.rows, whole.fraction, whole.eta) == (3, 2000, 0.75, 60.0)


def test_the_eta_follows_the_pace() -> None:
    samples = [Sample(0.0, 0.0, 0), Sample(60.0, 0.25, 3000)]
    assert eta(samples) == pytest.approx(180.0)
    assert rows_per_second(samples) == pytest.approx(50.0)
    assert eta(samples[:1]) is None
    assert eta([Sample(0.0, 0.5, 0), Sample(60.0, 0.5, 0)]) is None, "no pace, no guess"


def test_the_progress_of_each_shard_and_table_has_rows_chunks_rate_and_eta() -> None:
    data = dataset("pins")
    state = SliceState(RUN, data, [shard("pins", 0), shard("pins", 1)])
    state.load_states({"00000": ShardState(phase=Phase.READING, since=RUN.created, began=RUN.created, attempt=1)})
    (table,) = state.shards["00000"].tables
    state.add_notifications(
        [
            Notification(
                id="r1/pins.00000#1",
                snapshot=INCREMENTAL,
                type="IN_PROGRESS",
                shard="pins.00000",
                at=RUN.created + timedelta(seconds=10 * number),
                table=table,
                last_key=str(1024 * number),
                max_key="10240",
            )
            for number in range(6)
        ]
    )
    assert [line.sentence() for line in lines(state)] == [
        "00000 pins: reading, 5,120 rows in 6 chunks, 50%, 102 rows/s, 50 s left",
        "00001 pins: waiting, 0 rows in 0 chunks",
    ]


def test_a_shard_that_was_cured_says_what_may_be_lost() -> None:
    done = ShardDone(
        dataset="pins", shard="00007", mode=None, seconds=75.0, rows={"pins": 1200}, start="0-1-90",
        hole=Hole(since="0-1-50", until="0-1-90"),
    )  # fmt: skip
    assert done.sentence() == (
        "pins.00007: 1,200 rows in 75 s, streams from 0-1-90; no stream has seen what changed between 0-1-50 and "
        "0-1-90: rows deleted there stay in the topic until a repair."
    )
