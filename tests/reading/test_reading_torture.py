"""Every column type of each engine, read from the topic, against the source as its own driver shows it."""

from __future__ import annotations

import random

import pytest

from cdc_platform.model.topology import Engine, Shard
from cdc_platform.reading.topic_reader import TopicReader
from tests.canonical.test_torture import ROWS, SEED, BinlogTable, PostgresTable, _work
from tests.canonical.torture import POSTGRES_TYPES
from tests.reading.source_values import differences, python_rows
from tests.verification.proof.harness import Harness, MakeHarness

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(900)]


def tortured(make_harness: MakeHarness, engine: Engine) -> tuple[Harness, Shard, BinlogTable | PostgresTable]:
    """A table of every type that has been worked on, and whose topic has all of it."""
    rng = random.Random(SEED)
    harness = make_harness(engine)
    table: BinlogTable | PostgresTable
    if engine.reads_binlog:
        shard = harness.add_shard("00000", "SET SESSION sql_mode = ''", BinlogTable.ddl(engine))
        table = BinlogTable(harness, shard, rng)
    else:
        shard = harness.add_shard("00000", *POSTGRES_TYPES, PostgresTable.ddl(), "ALTER TABLE t REPLICA IDENTITY FULL")
        harness.own(shard, "t")
        table = PostgresTable(harness, shard, rng)
    table.insert(ROWS // 2)
    harness.deploy()
    table.insert(ROWS // 2)
    _work(table, min(3000, ROWS))
    harness.verify()  # waits until the topic has all of it
    return harness, shard, table


@pytest.mark.parametrize("engine", list(Engine))
def test_reading_of_every_type_is_the_source_as_its_driver_shows_it(make_harness: MakeHarness, engine: Engine) -> None:
    harness, shard, table = tortured(make_harness, engine)
    found = TopicReader(harness.outside(), harness.topology, harness.name, "t").state().read_all()
    assert found.num_rows == len(table.live)
    wrong = differences(harness, shard, python_rows(found))
    assert not wrong, "\n".join([f"{len(wrong)} differences", *wrong[:40]])
