"""Fixtures that all tests share.

Tests marked `stack` use one real stack, started for the session and purged at
its end. With CDC_TEST_STACK=DIR they use the running stack of that directory
(`cdc-platform stack up --dir DIR`), and leave it running. With CDC_TEST_SECURE=1
the stack of the session is a secure one; tests that reach Kafka or Connect by
`stack.kafka_client` and `stack.rest()` run on both, those marked `plain` do not.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from cdc_platform.local.lifecycle import down, up
from cdc_platform.local.stack import Stack, StackSpec
from cdc_platform.local.supervisor import LOCK_FILE
from cdc_platform.settings import Settings

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get(SECURE_ENV):
        for item in items:
            if item.get_closest_marker("plain"):
                item.add_marker(pytest.mark.skip(reason="needs a stack without TLS and passwords"))


@contextmanager
def own_stack(**spec: Any) -> Iterator[Stack]:
    """A stack that ends with the block, or with this process however it ends; `spec` as in StackSpec."""
    directory = make_stack_dir()
    try:
        yield up(StackSpec(directory=directory, owned=True, **spec))
    finally:
        if (directory / LOCK_FILE).exists():
            down(directory, purge=True)
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The shared real stack. A test that kills a service starts it again."""
    given = os.environ.get(STACK_ENV)
    if given:
        yield Stack.load(Path(given))
        return
    with own_stack(secure=bool(os.environ.get(SECURE_ENV))) as started:
        yield started


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
