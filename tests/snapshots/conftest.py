"""Real worlds for the stack tests of bootstraps and backfills."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import Engine
from cdc_platform.settings import Settings
from cdc_platform.snapshots import run_lifecycle
from cdc_platform.snapshots.executor import Intervals
from cdc_platform.snapshots.ports import SnapshotPorts
from cdc_platform.snapshots.progress_events import Listener, RunProgress, ShardDone
from cdc_platform.snapshots.request import Load, Request, RunKind
from cdc_platform.snapshots.run_records import Run
from cdc_platform.snapshots.slice_runner import work_slice
from cdc_platform.wiring import open_platform, open_snapshots
from tests.snapshots.harness import Harness

MakeHarness = Callable[..., Harness]
WIDE = Load(max_parallel_shards=8, max_parallel_per_host=8)


class Notes(Listener):
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.done: list[ShardDone] = []
        self.said: list[str] = []
        self.reports: list[RunProgress] = []

    def message(self, text: str) -> None:
        self.said.append(text)
        print(text)

    def progress(self, progress: RunProgress) -> None:
        self.reports.append(progress)
        print(progress.sentence())

    def over(self, shards: tuple[ShardDone, ...]) -> None:
        self.done += shards
        for shard in shards:
            print(shard.sentence())


@pytest.fixture
def settings(stack: Stack) -> Settings:
    """Settings of the shared stack as its agents have them, with a state topic of the test's own."""
    return replace(stack.settings(), state_topic=f"cdc.test-{secrets.token_hex(4)}.state")


@pytest.fixture
def outside(stack: Stack, settings: Settings) -> Iterator[SnapshotPorts]:
    with open_platform(settings) as platform, open_snapshots(platform) as found:
        yield found


@pytest.fixture
def make_harness(stack: Stack, settings: Settings, outside: SnapshotPorts) -> Iterator[MakeHarness]:
    with ExitStack() as cleanup:

        def make(engine: Engine, *, count: int = 2, rows: int = 3000, **more: Any) -> Harness:
            harness = Harness(stack=stack, settings=settings, engine=engine, count=count, rows=rows, **more)
            cleanup.callback(harness.clean, outside.platform)
            harness.make()
            harness.put(outside.platform)
            return harness

        yield make


def go(
    outside: SnapshotPorts, request: Request, run_id: str = "r1", *, notes: Notes | None = None, **more: Any
) -> tuple[Run, Notes]:
    """Work on the request until it is over."""
    notes = notes or Notes()
    run = run_lifecycle.open_run(outside, request, run_id)
    for number in range(len(run_lifecycle.slices(run))):
        work_slice(outside, run, number, notes, **more)
    return run_lifecycle.finish(outside, run), notes


def bootstrap(harness: Harness, **more: Any) -> Request:
    return Request(kind=RunKind.BOOTSTRAP, dataset=harness.name, **{"load": WIDE, **more})


def backfill(harness: Harness, **more: Any) -> Request:
    return Request(kind=RunKind.BACKFILL, dataset=harness.name, **{"load": WIDE, **more})


class BackgroundRun:
    """A run that goes on in a thread."""

    def __init__(self, outside: SnapshotPorts, request: Request, run_id: str, **more: Any) -> None:
        self.notes = Notes()
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._future = self._pool.submit(
            go, outside, request, run_id, notes=self.notes, intervals=Intervals(report=1.0), **more
        )
        self._pool.shutdown(wait=False)

    def chunks(self) -> int:
        return self.notes.reports[-1].chunks if self.notes.reports else 0

    def throttled(self) -> set[str]:
        """Why shards were throttled when it reported last."""
        return set(self.notes.reports[-1].throttled) if self.notes.reports else set()

    def reads_nothing(self, seconds: float) -> None:
        """Raises AssertionError unless it reads no chunk for so long, from when a pause has reached all it must."""
        still, since = self.chunks(), time.monotonic()
        end = since + 60
        while time.monotonic() - since < seconds:
            assert time.monotonic() < end, "it reads on"
            time.sleep(1)
            if self.chunks() != still:
                still, since = self.chunks(), time.monotonic()

    def end(self) -> Run:
        return self._future.result(timeout=540)[0]
