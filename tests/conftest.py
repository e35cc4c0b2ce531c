"""Fixtures that all tests share.

Tests marked `stack` use one real stack, started for the session and purged at
its end. It has MySQL when a test marked `mysql` is among those that run (as is
every test with that engine for a parameter). With CDC_TEST_STACK=DIR they use
the running stack of that directory (`cdc-platform stack up --dir DIR`), and leave
it running. With CDC_TEST_SECURE=1 the stack of the session is a secure one; tests
that reach Kafka or Connect by `stack.kafka_client` and `stack.rest()` run on both,
those marked `plain` do not.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from cdc_platform.errors import StackError
from cdc_platform.local import mysql_program
from cdc_platform.local.lifecycle import down
from cdc_platform.local.stack import Stack, StackSpec
from cdc_platform.local.supervisor import LOCK_FILE
from cdc_platform.model.topology import Engine
from cdc_platform.settings import Settings
from tests import mysql_in_ci
from tests.engine_runs import note_collected, note_servers, pytest_runtest_makereport, pytest_sessionfinish

__all__ = ["pytest_runtest_makereport", "pytest_sessionfinish"]

STACK_ENV = "CDC_TEST_STACK"
SECURE_ENV = "CDC_TEST_SECURE"

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("loaded", deadline=None)
hypothesis.settings.load_profile("loaded")


def make_stack_dir() -> Path:
    """A new directory that other users may pass: as root, Postgres runs as one of them."""
    directory = Path(tempfile.mkdtemp(prefix="cdc-stack-"))
    directory.chmod(0o711)
    return directory


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    note_collected(config, items)
    for item in items:
        params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        if item.get_closest_marker("stack") and Engine.MYSQL in params.values():
            item.add_marker(pytest.mark.mysql)
        # `-k ENUM-KEY` finds the tests of a field case.
        item.extra_keyword_matches.update(str(marker.args[0]) for marker in item.iter_markers("field"))
    if os.environ.get(SECURE_ENV):
        for item in items:
            if item.get_closest_marker("plain"):
                item.add_marker(pytest.mark.skip(reason="needs a stack without TLS and passwords"))


@contextmanager
def own_stack(**spec: Any) -> Iterator[Stack]:
    """A stack that ends with the block, or with this process however it ends; `spec` as in StackSpec."""
    if spec.get("mysql"):
        require_mysql()
    directory = make_stack_dir()
    try:
        started = mysql_in_ci.up(StackSpec(directory=directory, owned=True, **spec))
        note_servers(started)
        yield started
    finally:
        if (directory / LOCK_FILE).exists():
            down(directory, purge=True)
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    """The shared real stack. A test that kills a service starts it again."""
    given = os.environ.get(STACK_ENV)
    if given:
        running = Stack.load(Path(given))
        note_servers(running)
        yield running
        return
    with own_stack(secure=bool(os.environ.get(SECURE_ENV)), mysql=wants_mysql(request.session)) as started:
        yield started


def wants_mysql(session: pytest.Session) -> bool:
    """True when a test of the session needs MySQL and a server is to be had."""
    return any(item.get_closest_marker("mysql") for item in session.items) and not _lacks_mysql()


@cache
def _lacks_mysql() -> str:
    """Why no MySQL server is to be had; empty when one is."""
    if mysql_in_ci.in_ci():
        mysql_in_ci.renewed(StackSpec().cache_dir)
    try:
        mysql_program.find(StackSpec().cache_dir, None, None)
    except StackError as error:
        return str(error)
    return ""


@pytest.fixture(autouse=True)
def has_mysql(request: pytest.FixtureRequest) -> None:
    """Tests on MySQL are skipped where no server is to be had; in CI they fail."""
    if request.node.get_closest_marker("mysql") is None or "stack" not in request.fixturenames:
        return
    stack: Stack = request.getfixturevalue("stack")
    if stack.mysql:
        return
    require_mysql("the stack given runs no MySQL")


def require_mysql(otherwise: str = "") -> None:
    """Skip where no MySQL server is to be had, or for the reason given; in CI fail."""
    reason = _lacks_mysql() or otherwise
    if reason and mysql_in_ci.in_ci():
        pytest.fail(f"no MySQL server: {reason}")
    if reason:
        pytest.skip(f"no MySQL server: {reason}")


@pytest.fixture(autouse=True)
def leaves_the_stack_whole(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test after which a service of the shared stack is gone fails itself, with the end of that service's log."""
    if "stack" not in request.fixturenames:
        yield
        return
    stack: Stack = request.getfixturevalue("stack")
    yield
    for one in stack.status():
        if one.state != "running":
            end = stack.log(one.name).read_text(errors="replace")[-4000:]
            pytest.fail(f"{one.name} is {one.state} after this test; its log ends with\n{end}")


@pytest.fixture
def settings(stack: Stack) -> Settings:
    """Settings of the shared stack, with a ZooKeeper root and a state topic of the test's own."""
    own = secrets.token_hex(4)
    return replace(stack.settings(), zookeeper_root=f"/cdc-test-{own}", state_topic=f"cdc.test-{own}.state")


@pytest.fixture
def unique_name() -> Callable[[str], str]:
    """Makes names that no other test has, fit for datasets, databases and topics."""
    return lambda prefix: f"{prefix}_{secrets.token_hex(4)}"
