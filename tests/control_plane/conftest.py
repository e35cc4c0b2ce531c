"""A platform of the test's own on the shared stack."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import Engine
from cdc_platform.settings import Settings
from tests.control_plane.harness import Harness, harness_of


@pytest.fixture
def engine() -> Engine:
    """What passes ask of Connect, Kafka and ZooKeeper is the same for all: tests that ask sources name theirs."""
    return Engine.MARIADB


@pytest.fixture
def harness(stack: Stack, settings: Settings, unique_name: Callable[[str], str], engine: Engine) -> Iterator[Harness]:
    with harness_of(stack, settings, unique_name("cp"), engine) as made:
        yield made
