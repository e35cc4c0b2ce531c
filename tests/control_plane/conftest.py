"""A platform of the test's own on the shared stack."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from cdc_platform.local.stack import Stack
from cdc_platform.settings import Settings
from tests.control_plane.harness import Harness, harness_of


@pytest.fixture
def harness(stack: Stack, settings: Settings, unique_name: Callable[[str], str]) -> Iterator[Harness]:
    with harness_of(stack, settings, unique_name("cp")) as made:
        yield made
