"""The fault suite's stack, and the table at its end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from cdc_platform.clients.platform import Platform
from cdc_platform.local.lifecycle import down
from cdc_platform.local.stack import Stack, StackSpec
from cdc_platform.local.supervisor import LOCK_FILE
from tests import mysql_in_ci
from tests.conftest import STACK_ENV, make_stack_dir, wants_mysql
from tests.faults.control_plane import ControlPlane
from tests.faults.disk import small_disks
from tests.faults.far_proxy import FarProxy
from tests.faults.harness import Harness, open_site_platform
from tests.faults.scenario import Outcome, Scenario, scenario
from tests.faults.table import lines
from tests.tcp_proxy import TcpProxy

OUTCOMES = pytest.StashKey[list[Outcome | str]]()
MakeScenario = Callable[..., AbstractContextManager[Scenario]]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    found = config.stash.get(OUTCOMES, [])
    if found:
        terminalreporter.section("faults")
        for line in lines(found):
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    """A stack whose broker and MariaDB have small disks of their own, where that is permitted."""
    given = os.environ.get(STACK_ENV)
    if given:
        yield Stack.load(Path(given))
        return
    directory = make_stack_dir()
    try:
        # What a stack purges must be its own; the mounts are made before it.
        (directory / LOCK_FILE).touch()
        with small_disks(directory):
            try:
                yield mysql_in_ci.up(
                    StackSpec(directory=directory, owned=True, worker_heap_mb=768, mysql=wants_mysql(request.session))
                )
            finally:
                down(directory)
        down(directory, purge=True)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def control_plane(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    made = ControlPlane(stack, tmp_path_factory.mktemp("faults") / "control-plane.log")
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="session")
def platform(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with open_site_platform(stack, tmp_path_factory.mktemp("cache")) as made:
        yield made


@pytest.fixture
def assert_recovery(
    stack: Stack,
    platform: Platform,
    control_plane: ControlPlane,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> MakeScenario:
    return scenarios(stack, platform, control_plane, tmp_path, request)


def scenarios(
    stack: Stack, platform: Platform, control_plane: ControlPlane, tmp_path: Path, request: pytest.FixtureRequest
) -> MakeScenario:
    """Makes a scenario: its name, and what the harness is to be; `through` a proxy, which is pointed at the source."""

    def make(
        name: str,
        *,
        pause: float = 0.02,
        setup: str = "",
        early: bool = False,
        through: TcpProxy | FarProxy | None = None,
        **harness: Any,
    ) -> AbstractContextManager[Scenario]:
        made = Harness(directory=stack.directory, platform=platform, cache=tmp_path, **harness)
        if through is not None:
            made.lead_through(through)
        outcomes = request.config.stash.setdefault(OUTCOMES, [])
        return scenario(name, made, control_plane, outcomes.append, pause=pause, setup=setup, early=early)

    return make
