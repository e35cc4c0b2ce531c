"""A connector is neither made nor given tables that its source's publication must not hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from cdc_platform.connectors.identity import Identity
from cdc_platform.errors import SourceRejected
from cdc_platform.model.topology import Dataset, Engine, Shard, Table, Topology
from cdc_platform.reconciler import run_pass as reconciler
from cdc_platform.reconciler.report import ActionStatus, PassReport
from tests.reconciler.harness import Harness, cluster, dataset, shards

ORDERS = dataset("o", ("main",), engine=Engine.POSTGRES, tables=(Table(name="t"),))


@dataclass
class Sources:
    """Servers of which some shards refuse some tables; `asked` are the tables of each question."""

    refused: Mapping[str, str] = field(default_factory=dict)
    asked: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    def publish(self, dataset: Dataset, shard: Shard, own: Identity) -> None:
        names = tuple(table.name for table in dataset.tables)
        self.asked.append((shard.id, names))
        if self.refused.get(shard.id) in names:
            raise SourceRejected(f"public.{self.refused[shard.id]} cannot be captured.", where=f"shard {shard.name}")

    def drop_slot(self, dataset: Dataset, shard: Shard, own: Identity) -> None:
        self.dropped.append(shard.id)

    def check(self, dataset: Dataset, shard: Shard) -> None: ...


@pytest.fixture
def harness() -> Harness:
    made = Harness("main")
    made.put(Topology(datasets={"o": ORDERS}, shards={"o": shards("o", 2)}, clusters={"main": cluster("main")}))
    return made


def reconcile(harness: Harness, sources: Sources) -> PassReport:
    platform: Any = replace(harness.control_plane(), sources=sources)  # type: ignore[arg-type]
    return reconciler.reconcile(platform, owner="test")


def failures(report: PassReport) -> list[str]:
    return [str(outcome.error) for outcome in report.outcomes if outcome.status is ActionStatus.FAILED]


def test_a_shard_with_a_refused_table_gets_no_connector_and_the_others_do(harness: Harness) -> None:
    said = failures(reconcile(harness, Sources({"00001": "t"})))
    assert len(said) == 1 and "o.00001" in said[0] and "public.t cannot be captured" in said[0]
    assert set(harness.connect["main"].connectors()) == {"o.00000"}
    assert failures(reconcile(harness, Sources())) == []
    assert set(harness.connect["main"].connectors()) == {"o.00000", "o.00001"}


@pytest.mark.parametrize("tables", [(Table(name="t"), Table(name="u")), (Table(name="t", key=("a",)),)])
def test_a_running_connector_keeps_its_configuration_when_new_tables_or_keys_are_refused(
    harness: Harness, tables: tuple[Table, ...]
) -> None:
    reconcile(harness, Sources())
    before = harness.connect["main"].connector("o.00001").config
    harness.control_plane().topology.put_dataset(replace(ORDERS, tables=tables))
    sources = Sources({"00001": tables[-1].name})
    said = failures(reconcile(harness, sources))
    assert len(said) == 1 and "o.00001" in said[0]
    assert {shard for shard, _ in sources.asked} == {"00000", "00001"}
    assert harness.connect["main"].connector("o.00001").config == before
    assert harness.connect["main"].connector("o.00000").config != before
    assert harness.running("o.00001") == ["main"]
