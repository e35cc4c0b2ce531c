"""A table whose name differs from a captured one's in case only is not captured, and stops nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cdc_platform.model.topology import Engine, Table
from cdc_platform.verification.proof.verdicts import Verdict
from tests.verification.conftest import make_harness
from tests.verification.proof.harness import Harness

__all__ = ["make_harness"]

ENGINES = [Engine.MARIADB, Engine.POSTGRES, pytest.param(Engine.MYSQL, marks=pytest.mark.mysql)]


@pytest.mark.stack
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.field("CASE-TWIN", Engine.MARIADB, Engine.MYSQL, Engine.POSTGRES)
def test_a_twin_in_another_case_is_left_alone(make_harness: Callable[..., Harness], engine: Engine) -> None:
    harness = make_harness(engine, Table(name="orders"), Table(name="a$b"))
    quote = '"' if engine is Engine.POSTGRES else "`"

    def name(table: str) -> str:
        return f"{quote}{table}{quote}"

    made = [f"CREATE TABLE {name(table)} (id INT PRIMARY KEY, v INT)" for table in ("orders", "Orders", "a$b", "aXb")]
    shard = harness.add_shard("00000", *made, f"INSERT INTO {name('orders')} VALUES (1, 1)")
    if engine is Engine.POSTGRES:
        for table in ("orders", "a$b"):
            harness.own(shard, name(table))
    harness.execute(shard, f"INSERT INTO {name('Orders')} VALUES (1, 10)")
    harness.deploy()
    harness.settle(shard)
    for table in ("Orders", "aXb", "a$b", "orders"):
        harness.execute(shard, f"INSERT INTO {name(table)} VALUES (2, 2)")
    harness.settle(shard)
    harness.execute(shard, f"UPDATE {name('orders')} SET v = 3 WHERE id = 2")
    harness.settle(shard)
    for table, rows in (("orders", 2), ("a$b", 1)):
        verdict = harness.verify(table)["00000"]
        assert (verdict.verdict, verdict.source_rows, verdict.topic_rows) == (Verdict.PROVEN, rows, rows), (
            verdict.reason
        )
    if engine is Engine.POSTGRES:
        published = harness.execute(shard, "SELECT tablename FROM pg_publication_tables ORDER BY 1")
        assert published == [("a$b",), ("orders",)]
