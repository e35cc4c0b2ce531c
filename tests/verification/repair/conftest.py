"""Fixtures: settings with a state topic of the test's own, and bootstrapped datasets."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import BootstrapMode, Engine
from cdc_platform.settings import Settings
from cdc_platform.snapshots import run_lifecycle
from cdc_platform.snapshots.progress_events import Listener
from cdc_platform.snapshots.request import Load, Request, RunKind
from cdc_platform.snapshots.slice_runner import work_slice
from cdc_platform.verification.repair.reemit import RepairPorts
from cdc_platform.wiring import open_platform, open_snapshots, verification_of
from tests.snapshots.harness import Harness as SnapshotHarness
from tests.verification.repair.harness import ROWS, SHARDS, Harness, MakeHarness


@pytest.fixture
def settings(stack: Stack) -> Settings:
    """Settings of the shared stack as its agents have them, with a state topic of the test's own."""
    return replace(stack.settings(), state_topic=f"cdc.test-{secrets.token_hex(4)}.state")


@pytest.fixture
def make_harness(stack: Stack, settings: Settings, tmp_path: Path) -> Iterator[MakeHarness]:
    closing: list[Callable[[], Any]] = []

    def make(engine: Engine, own: Settings, shards: int = SHARDS) -> Harness:
        opened = open_platform(own)
        platform = opened.__enter__()
        closing.append(lambda: opened.__exit__(None, None, None))
        more = open_snapshots(platform)
        snapshots = more.__enter__()
        closing.append(lambda: more.__exit__(None, None, None))
        world = SnapshotHarness(stack=stack, settings=own, engine=engine, count=shards, rows=ROWS)
        closing.append(lambda: world.clean(platform))
        world.make()
        world.put(platform)
        request = Request(
            kind=RunKind.BOOTSTRAP, dataset=world.name, mode=BootstrapMode.SNAPSHOT,
            load=Load(max_parallel_shards=8, max_parallel_per_host=8),
        )  # fmt: skip
        run = run_lifecycle.open_run(snapshots, request, "boot")
        for number in range(len(run_lifecycle.slices(run))):
            work_slice(snapshots, run, number, Listener())
        run_lifecycle.finish(snapshots, run)
        return Harness(world, RepairPorts(proof=verification_of(platform), snapshots=snapshots))

    yield make
    for close in reversed(closing):
        close()
