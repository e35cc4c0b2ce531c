"""A Postgres COPY of many rows, all of one LSN's transaction, with a kill in its middle."""

from __future__ import annotations

import pytest

from cdc_platform.model.topology import Engine
from tests.faults.conftest import MakeScenario
from tests.faults.scenario import Scenario
from tests.waiting import assert_eventually

pytestmark = [pytest.mark.stack, pytest.mark.slow]

# Rows of one COPY share LSNs; a task that resumed in their middle lost the rest before 3.7.0 (dbz#1554).
ROWS = 60_000
FIRST = 2_000_000_000


@pytest.mark.parametrize("victim", ["worker", "postgres"])
def test_faults_copy_with_a_kill_in_the_middle(assert_recovery: MakeScenario, victim: str) -> None:
    """The kill comes once some, and not all, of the rows are in the topic."""
    name = f"Postgres: COPY of {ROWS:,} rows, {victim} killed in its middle"
    with assert_recovery(name, count=1, engine=Engine.POSTGRES, pause=0.1) as run:
        (shard,) = run.harness.shards
        worker = assert_eventually(lambda: run.harness.home(shard), "a worker runs the task")
        copy(run)
        assert_eventually(lambda: arrived(run) > 1000, "the COPY's first rows are in the topic")
        at = arrived(run)
        run.begin()
        service = worker if victim == "worker" else run.harness.stack.postgres[0]
        run.harness.stack.kill(service)
        if victim == "postgres":
            run.harness.stack.start(service)
            run.over()
        run.recovered()
        assert at < ROWS, "the kill came after the last row"
        run.note = f"{at:,} of its rows had arrived"
        if victim == "worker":
            run.harness.stack.start(service, timeout=180)


def copy(run: Scenario) -> None:
    """One COPY, one transaction; its rows are recorded as committed once it is."""
    (shard,) = run.harness.shards
    connection = run.harness.sources.connect(shard.database)
    try:
        with connection.cursor() as cursor, cursor.copy("COPY items (id, v, pad) FROM STDIN") as stream:
            for key in range(FIRST, FIRST + ROWS):
                stream.write_row((key, key, "copied"))
    finally:
        connection.close()
    run.writers.note(shard, "c", {key: key for key in range(FIRST, FIRST + ROWS)})


def arrived(run: Scenario) -> int:
    """How many of its rows a consumer has seen."""
    return sum(change.key >= FIRST for change in run.tap.arrived.copy())
