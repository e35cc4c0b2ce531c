"""A platform in memory and a Dagster instance for each test."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from cdc_platform.settings import Settings
from tests.defs.harness import WORLDS, Harness, HarnessResource, topology


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    """Three shards of `pins`, two of `orders`, nothing captured yet."""
    name = secrets.token_hex(4)
    WORLDS[name] = found = Harness(
        settings=Settings(cache_dir=str(tmp_path / "cache"), audit_dir=str(tmp_path / "audit"))
    )
    found.put(topology())
    found.name = name
    yield found
    del WORLDS[name]


@pytest.fixture
def resource(harness: Harness) -> HarnessResource:
    return HarnessResource(config_file=harness.name)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance
