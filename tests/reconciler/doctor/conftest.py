"""The doctor's patients on the real stack."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import Engine
from tests.reconciler.doctor.harness import Harness


@pytest.fixture
def patients(stack: Stack) -> Iterator[Callable[[Engine], Harness]]:
    """Makes a harness on an engine; what it made is removed at the end."""
    made: list[Harness] = []

    def make(engine: Engine) -> Harness:
        made.append(Harness(stack=stack, engine=engine))
        return made[-1]

    yield make
    for harness in made:
        harness.close()
