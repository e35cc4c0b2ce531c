"""Each bootstrap mode on both engines, while rows are written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from cdc_platform.clients.platform import Platform
from cdc_platform.local.stack import Stack
from cdc_platform.settings import Settings
from cdc_platform.snapshots import opening
from cdc_platform.snapshots.outside import Outside
from cdc_platform.snapshots.records import Phase, Run, shard_states, watermarks
from cdc_platform.snapshots.request import Kind, Load, Request
from cdc_platform.snapshots.runner import Runner
from cdc_platform.snapshots.told import RunProgress, ShardDone
from cdc_platform.topology import BootstrapMode, Engine
from cdc_platform.wiring import open_platform, open_snapshots
from tests.snapshots.live import Judge, World, Writers

pytestmark = pytest.mark.stack

ENGINES = pytest.mark.parametrize("engine", [Engine.MARIADB, Engine.POSTGRES], ids=str)


class Notes:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.done: list[ShardDone] = []
        self.said: list[str] = []
        self.reports: list[RunProgress] = []

    def say(self, text: str) -> None:
        self.said.append(text)
        print(text)

    def progress(self, progress: RunProgress) -> None:
        self.reports.append(progress)
        print(progress.sentence())

    def over(self, shards: tuple[ShardDone, ...]) -> None:
        self.done += shards


@pytest.fixture
def outside(stack: Stack, settings: Settings) -> Iterator[Outside]:
    with open_platform(settings) as platform, open_snapshots(platform) as found:
        yield found


@pytest.fixture
def make_world(stack: Stack, settings: Settings, outside: Outside) -> Iterator[object]:
    with ExitStack() as cleanup:

        def make(engine: Engine, *, count: int = 2, rows: int = 3000, **more: object) -> World:
            world = World(stack=stack, settings=settings, engine=engine, count=count, rows=rows, **more)  # type: ignore[arg-type]
            cleanup.callback(world.clean, outside.platform)
            world.make()
            world.put(outside.platform)
            return world

        yield make


def go(outside: Outside, request: Request, run_id: str = "r1") -> tuple[Run, Notes]:
    notes = Notes()
    run = opening.open_run(outside, request, run_id)
    for number, part in enumerate(opening.slices(run)):
        Runner(outside, run, part, name=f"{run.id}-{number}", listener=notes).work()
    return opening.finish(outside, run), notes


def bootstrap(world: World, **more: object) -> Request:
    return Request(kind=Kind.BOOTSTRAP, dataset=world.name, load=Load(max_parallel_shards=8, max_parallel_per_host=8), **more)  # type: ignore[arg-type]


@ENGINES
@pytest.mark.parametrize("mode", [BootstrapMode.SNAPSHOT, BootstrapMode.INCREMENTAL], ids=str)
def test_bootstrap_of_all_rows_under_live_writes(engine, mode, make_world, outside) -> None:  # type: ignore[no-untyped-def]
    world = make_world(engine)
    with Writers(world) as writers:
        run, notes = go(outside, bootstrap(world, mode=mode))
    assert writers.writes > 100
    Judge(world).agree()
    assert [done.error for done in notes.done] == [None, None]
    marks = watermarks(outside.platform.state.read(), world.name)
    assert len(marks) == 4
    assert all(mark.complete and mark.position and mark.mode is mode for mark in marks.values())
    assert run.finished and not run.failed
