"""Fixtures that all tests share.

Tests marked `stack` use one real stack, started for the session and purged at
its end. With CDC_TEST_STACK=DIR they use the running stack of that directory
(`cdc-platform stack up --dir DIR`), and leave it running.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cdc_platform.local.lifecycle import down, up
from cdc_platform.local.stack import Stack, StackSpec
from cdc_platform.settings import Settings

STACK_ENV = "CDC_TEST_STACK"


def make_stack_dir() -> Path:
    """A new directory that other users may pass: as root, Postgres runs as one of them."""
    directory = Path(tempfile.mkdtemp(prefix="cdc-stack-"))
    directory.chmod(0o711)
    return directory


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The shared real stack. A test that kills a service starts it again."""
    given = os.environ.get(STACK_ENV)
    if given:
        yield Stack.load(Path(given))
        return
    directory = make_stack_dir()
    started = up(StackSpec(directory=directory, owned=True))
    yield started
    down(directory, purge=True)


@pytest.fixture
def settings(stack: Stack) -> Settings:
    """Settings of the shared stack, with a ZooKeeper root and a state topic of the test's own."""
    own = secrets.token_hex(4)
    return replace(stack.settings(), zookeeper_root=f"/cdc-test-{own}", state_topic=f"cdc.test-{own}.state")


@pytest.fixture
def unique_name() -> Callable[[str], str]:
    """Makes names that no other test has, fit for datasets, databases and topics."""
    return lambda prefix: f"{prefix}_{secrets.token_hex(4)}"
