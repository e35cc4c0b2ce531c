"""SIGKILL to the run, to a worker or to Dagster in mid-backfill: the rerun brings every row, and asks for none twice.

Ten points, drawn with a seed: which part dies, on which engine, after which part of all chunks. A backfill that is
complete sends every row again, so the topic from its begin on, folded, must equal the table; and the history
of the connectors' committed offsets shows how often a snapshot was asked for.
"""

from __future__ import annotations

import json
import random
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition

from cdc_platform.clients.kafka.notifications import INCREMENTAL
from cdc_platform.clients.secrets import resolve_all
from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import BootstrapMode, Engine
from cdc_platform.settings import Settings
from cdc_platform.snapshots.ports import SnapshotPorts
from cdc_platform.snapshots.request import Load
from cdc_platform.snapshots.run_records import Run, runs, watermarks
from cdc_platform.snapshots.shard_steps import running_signal, signal_id
from tests.snapshots.conftest import MakeHarness, bootstrap, go
from tests.snapshots.dagster_outside import OutsideDagster
from tests.snapshots.harness import Harness, TopicCheck, Writers
from tests.waiting import assert_eventually

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(1800)]

ROWS = 8000
LOAD = Load(max_parallel_shards=2, max_parallel_per_host=2, max_rows_per_s=500)
CHUNKS = 2 * 2 * ROWS // 2  # two shards, two tables, 2 rows a chunk at this rate
WORKER = "w0"
PATIENCE = 600.0


@dataclass(frozen=True, kw_only=True)
class Point:
    """What dies, and when: `after` is the part of all chunks; `family` spares no process of a run."""

    number: int
    victim: str
    engine: Engine
    after: float
    family: bool

    def __str__(self) -> str:
        return f"{self.number}-{self.victim}-{self.engine}-at-{self.after:.2f}"


def points(count: int = 10, seed: int = 5) -> list[Point]:
    dice = random.Random(seed)
    return [
        Point(
            number=number,
            victim=("run", "worker", "dagster")[number % 3],
            engine=list(Engine)[(number + number // 3) % 3],
            after=dice.uniform(0.0, 0.9),
            family=dice.random() < 0.5,
        )
        for number in range(count)
    ]


@pytest.fixture
def dagster(settings: Settings, tmp_path: Path) -> Iterator[OutsideDagster]:
    found = OutsideDagster(home=tmp_path / "dagster", settings=settings)
    yield found
    found.end()


@pytest.mark.parametrize("point", points(), ids=str)
def test_backfill_goes_on_after_a_kill(
    point: Point, make_harness: MakeHarness, outside: SnapshotPorts, dagster: OutsideDagster, stack: Stack
) -> None:
    harness = make_harness(point.engine, rows=ROWS)
    go(outside, bootstrap(harness, mode=BootstrapMode.LATEST), "first")
    check = TopicCheck(harness, since=TopicCheck(harness).ends())
    began = datetime.now(UTC)
    with Writers(harness, pause=0.02):
        kill = _start(point, harness, dagster, stack)
        run = _open_run(outside, harness, dagster)
        chunks = _Chunks(outside, run, began)
        assert_eventually(lambda: chunks.read() >= point.after * CHUNKS, what="chunks read", seconds=PATIENCE)
        again = kill()
        again()
        assert_eventually(lambda: _finished(outside, run) is not None, what="the run is finished", seconds=PATIENCE)
    check.assert_agrees(seconds=120)
    assert _finished(outside, run).failed == 0  # type: ignore[union-attr]
    marks = watermarks(outside.platform.state.read(), harness.name)
    assert all(mark.complete and mark.backfilled == run.id for mark in marks.values())
    assert _times_asked(outside, harness, run) == {
        shard.name: {signal_id(run.id, shard.name, 1): 1} for shard in harness.shards
    }


def _start(point: Point, harness: Harness, dagster: OutsideDagster, stack: Stack) -> Callable[[], Callable[[], Any]]:
    """Launch the backfill; returns what kills, which returns what a person or supervisor does after it."""
    config = {
        "dataset": harness.name,
        **{name: getattr(LOAD, name) for name in ("max_parallel_shards", "max_parallel_per_host", "max_rows_per_s")},
    }
    if point.victim == "dagster":
        daemon = dagster.daemon()
        dagster.launch("backfill", config)

        def kill_dagster() -> Callable[[], Any]:
            dagster.kill(daemon, family=True)

            def again() -> None:
                dagster.daemon()
                dagster.launch("backfill", config)

            return again

        return kill_dagster
    process = dagster.execute("backfill", config)
    if point.victim == "run":

        def kill_run() -> Callable[[], Any]:
            # Without its family the steps' processes live on, beside the rerun's.
            dagster.kill(process, family=point.family)
            return lambda: dagster.execute("backfill", config)

        return kill_run

    def kill_worker() -> Callable[[], Any]:
        stack.kill(WORKER)
        return lambda: stack.start(WORKER)

    return kill_worker


def _open_run(outside: SnapshotPorts, harness: Harness, dagster: OutsideDagster) -> Run:
    found: list[Run] = []

    def opened() -> bool:
        found[:] = [
            run
            for run in runs(outside.platform.state.read()).values()
            if run.dataset == harness.name and run.finished is None
        ]
        return bool(found)

    try:
        assert_eventually(opened, what="a run on record", seconds=PATIENCE)
    except AssertionError:
        print(dagster.log())
        raise
    return found[0]


def _finished(outside: SnapshotPorts, run: Run) -> Run | None:
    found = runs(outside.platform.state.read())[run.id]
    return found if found.finished is not None else None


class _Chunks:
    """Counts the chunks that the run's shards have read."""

    def __init__(self, outside: SnapshotPorts, run: Run, since: datetime) -> None:
        self._run = run
        self._topic = outside.notifications(since)
        self._count = 0

    def read(self) -> int:
        self._count += sum(
            said.snapshot == INCREMENTAL and said.type == "IN_PROGRESS" and said.id.startswith(f"{self._run.id}/")
            for said in self._topic.read()
        )
        return self._count


def _times_asked(outside: SnapshotPorts, harness: Harness, run: Run) -> dict[str, dict[str, int]]:
    """Shard to signal to how often an offset without that snapshot was followed by one with it, as Connect keeps it."""
    names = {shard.name for shard in harness.shards}
    before: dict[str, str | None] = {}
    found: dict[str, dict[str, int]] = {}
    topic = f"cdc-connect-{harness.stack.cluster().name}-offsets"
    for key, value in _records(outside, topic):
        name = json.loads(key)[0]
        if name not in names:
            continue
        signal = running_signal(json.loads(value)) if value else None
        if signal is not None and signal != before.get(name) and signal.startswith(f"{run.id}/"):
            found.setdefault(name, {}).setdefault(signal, 0)
            found[name][signal] += 1
        before[name] = signal
    return found


def _records(outside: SnapshotPorts, topic: str) -> Iterator[tuple[bytes, bytes | None]]:
    consumer = Consumer(
        {
            **resolve_all(outside.platform.settings.kafka),
            "group.id": f"offsets-{secrets.token_hex(4)}",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
        }
    )
    try:
        parts = list(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, part, 0) for part in parts])
        waiting = set(parts)
        while waiting:
            for message in consumer.consume(5000, timeout=0.5):
                error = message.error()
                if error is not None:
                    assert error.code() == KafkaError._PARTITION_EOF, error
                    waiting.discard(message.partition())
                    continue
                key = message.key()
                assert key is not None
                yield (key if isinstance(key, bytes) else key.encode(), message.value())
    finally:
        consumer.close()
