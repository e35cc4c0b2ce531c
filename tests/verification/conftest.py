"""Fixtures of the proof."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import Engine, Table
from tests.verification.proof.ground import Ground


@pytest.fixture
def make_ground(stack: Stack, tmp_path: Path, unique_name: Callable[[str], str]) -> Iterator[Callable[..., Ground]]:
    """Makes datasets on the stack; what they made is removed at the end."""
    made: list[Ground] = []

    def make(engine: Engine, *tables: Table, **more: Any) -> Ground:
        ground = Ground(
            stack=stack,
            engine=engine,
            name=unique_name("v"),
            cache=tmp_path / f"cache{len(made)}",
            tables=tables or (Table(name="t"),),
            more=more,
        )
        made.append(ground)
        return ground

    yield make
    for ground in made:
        ground.close()
