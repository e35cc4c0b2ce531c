"""Backfills of just some rows, on idle shards, paused, resumed, stopped, held to a rate, and from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cdc_platform.clients.kafka.quotas import ClientQuotas
from cdc_platform.model.topology import BootstrapMode, Engine
from cdc_platform.settings import CONFIG_ENV, Settings
from cdc_platform.snapshots import run_lifecycle
from cdc_platform.snapshots.connector_waves import committed, wait_idle
from cdc_platform.snapshots.executor import producer_client_id
from cdc_platform.snapshots.ports import SnapshotPorts
from cdc_platform.snapshots.request import KeyRange, Load
from cdc_platform.snapshots.run_lifecycle import RequestedState
from cdc_platform.snapshots.run_records import hold_key
from cdc_platform.snapshots.shard_steps import running_signal
from tests.engines import EACH_ENGINE
from tests.snapshots.conftest import BackgroundRun, MakeHarness, backfill, bootstrap, go
from tests.snapshots.dagster_outside import settings_file
from tests.snapshots.harness import Harness, TopicCheck, Writers
from tests.waiting import assert_eventually

pytestmark = [pytest.mark.stack, pytest.mark.slow]


def slow(rows_per_s: int) -> Load:
    return Load(max_parallel_shards=2, max_parallel_per_host=2, max_rows_per_s=rows_per_s)


@EACH_ENGINE
def test_backfill_by_key_range_and_condition_sends_just_those_rows(
    engine: Engine, make_harness: MakeHarness, outside: SnapshotPorts
) -> None:
    harness = make_harness(engine, rows=1000)
    go(outside, bootstrap(harness, mode=BootstrapMode.LATEST), "first")
    with harness.admin(harness.shards[0].database) as run:
        run("UPDATE items SET v = 5 WHERE id BETWEEN 140 AND 149")
    TopicCheck(harness).assert_agrees(only={("00000", "items"): set(range(140, 150))})
    check = TopicCheck(harness, since=TopicCheck(harness).ends())
    wanted = backfill(
        harness,
        tables=("items",),
        shards=("00000",),
        key_range=KeyRange(column="id", low="100", high="200"),
        condition="v = 0 OR id = 145",
    )
    go(outside, wanted, "b1")
    rows = check.fold("items")
    assert rows == {"00000": {i: 5 if i == 145 else 0 for i in range(100, 200) if not 140 <= i < 150 or i == 145}}
    assert check.fold("notes") == {}


@EACH_ENGINE
def test_a_shard_that_a_killed_process_left_stopped_goes_on(
    engine: Engine, make_harness: MakeHarness, outside: SnapshotPorts
) -> None:
    """Killed between stop and resume: the connector is stopped, and a hold keeps passes away from it."""
    harness = make_harness(engine, count=1, rows=200)
    go(outside, bootstrap(harness, mode=BootstrapMode.LATEST), "first")
    asked, shard = backfill(harness), harness.shards[0]
    run = run_lifecycle.open_run(outside, asked, "half")
    held = {"run": run.id, "reason": "begins", "since": datetime.now(UTC).isoformat()}
    outside.writer("killed").write({hold_key(shard.name): held})
    connect = outside.platform.connect(harness.stack.cluster())
    connect.stop(shard.name)
    wait_idle(connect, shard.name)
    closed, notes = go(outside, asked, "half")
    assert closed.finished and [done.error for done in notes.done] == [None]
    assert connect.connector(shard.name).running
    assert hold_key(shard.name) not in outside.platform.state.read()
    TopicCheck(harness).assert_agrees()


@EACH_ENGINE
def test_backfill_of_a_few_rows_of_the_only_shard_and_nobody_writes(
    engine: Engine, make_harness: MakeHarness, outside: SnapshotPorts
) -> None:
    """Its chunk is closed by a heartbeat or by a start anew, not by a change that may not come for days."""
    harness = make_harness(engine, count=1, rows=500)
    go(outside, bootstrap(harness), "first")
    for number in range(3):
        began = time.monotonic()
        check = TopicCheck(harness, since=TopicCheck(harness).ends())
        part = KeyRange(column="id", low=str(number * 10 + 1), high=str(number * 10 + 11))
        _, notes = go(outside, backfill(harness, tables=("items",), key_range=part), f"b{number}")
        assert [done.error for done in notes.done] == [None]
        assert check.fold("items") == {"00000": dict.fromkeys(range(number * 10 + 1, number * 10 + 11), 0)}
        assert time.monotonic() - began < 120


def test_backfill_of_an_idle_shard_while_a_transaction_is_open_elsewhere(
    make_harness: MakeHarness, outside: SnapshotPorts
) -> None:
    """In another database of the server, for longer than a heartbeat: no transaction of the shard is older then."""
    harness = make_harness(Engine.POSTGRES, count=1, rows=500)
    go(outside, bootstrap(harness, mode=BootstrapMode.LATEST), "first")
    with harness.admin() as run:
        run("BEGIN")
        run("SELECT pg_current_xact_id()")
        assert_eventually(lambda: _seen_since(outside, harness, run), what="a heartbeat that is younger", seconds=60)
        for number in range(2):
            check = TopicCheck(harness, since=TopicCheck(harness).ends())
            part = KeyRange(column="id", low=str(number * 10 + 1), high=str(number * 10 + 11))
            _, notes = go(outside, backfill(harness, tables=("items",), key_range=part), f"b{number}")
            assert [done.error for done in notes.done] == [None]
            assert check.fold("items") == {"00000": dict.fromkeys(range(number * 10 + 1, number * 10 + 11), 0)}
            assert not [text for text in notes.said if "stood still" in text], notes.said
        run("ROLLBACK")


def _seen_since(outside: SnapshotPorts, harness: Harness, run: Callable[..., list[Any]]) -> bool:
    """True when the stream has committed a transaction that is younger than the one open in this session."""
    offset = committed(outside.platform.connect(harness.stack.cluster()), harness.shards[0].name) or {}
    mine = int(run("SELECT pg_current_xact_id()::text")[0][0])
    return int(offset.get("txId") or 0) > mine


@EACH_ENGINE
def test_backfill_can_be_paused_and_resumed(engine: Engine, make_harness: MakeHarness, outside: SnapshotPorts) -> None:
    harness = make_harness(engine, rows=10_000)
    go(outside, bootstrap(harness, mode=BootstrapMode.LATEST), "first")
    check = TopicCheck(harness, since=TopicCheck(harness).ends())
    with Writers(harness, pause=0.02) as writers:
        working = BackgroundRun(outside, backfill(harness, load=slow(500)), "b1")
        assert_eventually(lambda: working.chunks() > 5, what="chunks were read", seconds=120)
        run_lifecycle.order(outside, "b1", RequestedState.PAUSED)
        assert_eventually(lambda: "paused by hand" in working.throttled(), what="told as paused", seconds=60)
        before = writers.writes
        working.reads_nothing(25)
        assert writers.writes > before + 100
        run_lifecycle.order(outside, "b1", RequestedState.RUNNING)
        assert not working.end().failed
    check.assert_agrees()


@EACH_ENGINE
def test_backfill_can_be_stopped_and_the_stream_goes_on(
    engine: Engine, make_harness: MakeHarness, outside: SnapshotPorts
) -> None:
    harness = make_harness(engine, rows=4000)
    go(outside, bootstrap(harness, mode=BootstrapMode.LATEST), "first")
    with Writers(harness, pause=0.02) as writers:
        working = BackgroundRun(outside, backfill(harness, load=slow(250)), "b1")
        assert_eventually(lambda: working.chunks() > 5, what="chunks were read", seconds=120)
        run_lifecycle.order(outside, "b1", RequestedState.STOPPED)
        ended = working.end()
    assert {done.error for done in working.notes.done} == {"stopped by hand"}
    assert ended.failed == 2
    TopicCheck(harness).assert_agrees(only=writers.changed)
    connect = outside.platform.connect(harness.stack.cluster())
    for shard in harness.shards:
        assert running_signal(committed(connect, shard.name) or {}) is None
    # Nothing is in its way.
    go(outside, backfill(harness), "b2")
    TopicCheck(harness).assert_agrees()


def test_backfill_is_held_to_rows_and_bytes_a_second(make_harness: MakeHarness, outside: SnapshotPorts) -> None:
    harness = make_harness(Engine.MARIADB, rows=10_000)
    go(outside, bootstrap(harness, mode=BootstrapMode.LATEST), "first")
    began = time.monotonic()
    load = Load(max_parallel_shards=2, max_parallel_per_host=2, max_rows_per_s=500, max_bytes_per_s=4_000_000)
    with Writers(harness, pause=0.05):
        working = BackgroundRun(outside, backfill(harness, load=load), "b1")
        assert_eventually(lambda: working.chunks() > 3, what="chunks were read", seconds=120)
        clients = [producer_client_id(shard.name) for shard in harness.shards]
        assert _rates(outside, clients) == dict.fromkeys(clients, 2_000_000)
        assert not working.end().failed
    seconds = time.monotonic() - began
    assert 40_000 / seconds < 500 * 1.5, f"40,000 rows in {seconds:.0f} s"
    assert _rates(outside, clients) == {}, "its own rate, which is none"


def _rates(outside: SnapshotPorts, clients: list[str]) -> dict[str, int]:
    with closing(ClientQuotas(outside.platform.settings.kafka)) as quotas:
        return {client: rate for client, rate in quotas.rates().items() if client in clients}


@pytest.fixture
def config(settings: Settings, tmp_path: Path) -> Iterator[Path]:
    yield settings_file(settings, tmp_path)


def _command(config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).parent / "cdc-platform"), *arguments],
        env={"PATH": "/usr/bin:/bin", CONFIG_ENV: str(config)},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_bootstrap_and_backfill_from_the_command_line(
    make_harness: MakeHarness, outside: SnapshotPorts, config: Path
) -> None:
    harness = make_harness(Engine.MARIADB, rows=500)
    first = _command(config, "bootstrap", harness.name)
    assert first.returncode == 0, first.stderr
    assert "2 shards done, 0 failed, 2,000 rows" in first.stdout
    assert "2 of 2 shards done" in first.stderr, "plain lines where there is no terminal"
    TopicCheck(harness).assert_agrees()
    again = _command(config, "bootstrap", harness.name)
    assert again.returncode == 1
    assert "bootstrapped already" in again.stderr
    second = _command(config, "backfill", harness.name, "00001", "--key", "id", "--to", "11", "--json")
    told = json.loads(second.stdout)
    assert (second.returncode, told["rows"], list(told["shards"])) == (0, 20, ["00001"])
    runs = json.loads(_command(config, "snapshot", "list", "--json").stdout)["runs"]
    assert [(run["kind"], run["phases"]) for run in runs] == [("backfill", {"done": 1}), ("bootstrap", {"done": 2})]
    lines = json.loads(_command(config, "snapshot", "show", told["run"], "--json").stdout)["tables"]
    assert [(line["shard"], line["table"], line["phase"], line["rows"], line["chunks"]) for line in lines] == [
        ("00001", "items", "read", 10, 1),
        ("00001", "notes", "read", 10, 1),
    ]
    unknown = _command(config, "backfill", "--continue", told["run"])
    assert unknown.returncode == 1
    assert "is finished" in unknown.stderr
