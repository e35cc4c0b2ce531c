"""Fixtures of the proof."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import Engine, Table
from tests.verification.proof.harness import Harness as ProofHarness


@pytest.fixture
def make_harness(
    stack: Stack, tmp_path: Path, unique_name: Callable[[str], str]
) -> Iterator[Callable[..., ProofHarness]]:
    """Makes datasets on the stack; what they made is removed at the end."""
    made: list[ProofHarness] = []

    def make(engine: Engine, *tables: Table, **more: Any) -> ProofHarness:
        harness = ProofHarness(
            stack=stack,
            engine=engine,
            name=unique_name("v"),
            cache=tmp_path / f"cache{len(made)}",
            tables=tables or (Table(name="t"),),
            more=more,
        )
        made.append(harness)
        return harness

    yield make
    for harness in made:
        harness.close()
