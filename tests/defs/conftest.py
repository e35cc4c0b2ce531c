"""A platform in memory and a Dagster instance for each test."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from cdc_platform.settings import Settings
from tests.defs.worlds import WORLDS, World, WorldResource, topology


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Three shards of `pins`, two of `orders`, nothing captured yet."""
    name = secrets.token_hex(4)
    WORLDS[name] = found = World(
        settings=Settings(cache_dir=str(tmp_path / "cache"), audit_dir=str(tmp_path / "audit"))
    )
    found.put(topology())
    found.name = name
    yield found
    del WORLDS[name]


@pytest.fixture
def resource(world: World) -> WorldResource:
    return WorldResource(config_file=world.name)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance
