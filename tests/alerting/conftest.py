"""A Dagster instance for each test."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import pytest


@pytest.fixture(params=["one log", "a file a run"])
def instance(request: pytest.FixtureRequest) -> Iterator[dg.DagsterInstance]:
    """Both kinds of event log: ordered by id as on Postgres, and SQLite's, which is `dagster dev`'s default."""
    made = dg.DagsterInstance.ephemeral() if request.param == "one log" else dg.instance_for_test()
    with made as instance:
        yield instance
