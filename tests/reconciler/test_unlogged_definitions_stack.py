"""A definition that changed without the log is named; one that the log holds is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from cdc_platform.clients.kafka.topic_records import TopicRecords
from cdc_platform.clients.sources.source_facts import RealSourceFacts
from cdc_platform.connectors.identity import identity, schema_history_topic
from cdc_platform.model.source_facts import SourceFacts
from cdc_platform.model.topology import Engine, Table
from cdc_platform.reconciler.unlogged_definitions import Suspect, compared, fingerprint
from tests.verification.conftest import make_harness
from tests.verification.proof.harness import Harness

__all__ = ["make_harness"]


@pytest.mark.stack
@pytest.mark.parametrize("engine", [Engine.MARIADB, pytest.param(Engine.MYSQL, marks=pytest.mark.mysql)])
@pytest.mark.field("NOLOG-DDL", Engine.MARIADB, Engine.MYSQL)
def test_definitions_are_compared_with_what_the_connector_knows(
    make_harness: Callable[..., Harness], engine: Engine
) -> None:
    harness = make_harness(engine, Table(name="t"), Table(name="w"))
    made = "(id INT PRIMARY KEY, a INT, b INT, v VARCHAR(9))"
    shard = harness.add_shard("00000", f"CREATE TABLE t {made}", f"CREATE TABLE w {made}")
    harness.deploy()
    harness.settle(shard)
    read = RealSourceFacts(secrets_dirs=harness.settings.secrets_dirs)
    own = identity(harness.settings, harness.dataset, shard)
    suspect = Suspect(
        topic=schema_history_topic(harness.settings, shard), database=shard.database, facts=SourceFacts(tables={})
    )

    def look() -> SourceFacts:
        nonlocal suspect
        facts = read.read(harness.dataset, [(shard, own)])[shard.name]
        assert isinstance(facts, SourceFacts), facts
        suspect = replace(suspect, facts=facts)
        found = compared(
            {"s": suspect}, lambda topic: TopicRecords(harness.settings.kafka, topic), lambda seconds: None
        )
        suspect = replace(suspect, agreed=found["s"].agreed)
        return found["s"]

    def unlogged(*statements: str) -> None:
        for statement in ("SET sql_log_bin = 0", *statements, "SET sql_log_bin = 1"):
            harness.execute(shard, statement)

    first = look()
    assert first.unlogged == {} and first.agreed.keys() == {"t", "w"} and suspect.tables == set()
    for statement in ("ADD COLUMN c INT AFTER id", "MODIFY a INT AFTER b", "RENAME COLUMN v TO z", "MODIFY z TEXT"):
        harness.execute(shard, f"ALTER TABLE t {statement}")
    harness.execute(shard, "INSERT INTO t (id) VALUES (1)")
    harness.settle(shard)
    assert look().unlogged == {}
    unlogged("ALTER TABLE t MODIFY a INT AFTER id", "ALTER TABLE w ADD COLUMN x INT, DROP COLUMN b")
    found = look().unlogged
    assert found.keys() == {"t", "w"} and "order" in found["t"] and "has x and lacks b" in found["w"]
    unlogged("ALTER TABLE t MODIFY a INT AFTER b", "ALTER TABLE w DROP COLUMN x, ADD COLUMN b INT AFTER a")
    assert look().unlogged == {}
    unlogged("ALTER TABLE w MODIFY v VARCHAR(90)")
    assert "types" in look().unlogged["w"] and fingerprint(suspect.facts.tables["t"]) == suspect.agreed["t"][0]
