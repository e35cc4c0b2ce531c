"""A pass compares definitions with schema histories, and reads one only where a definition is new."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest

from cdc_platform.clients.kafka.schema_history import KnownTable, known_tables
from cdc_platform.clients.kafka.topic_records import Batch, TopicBounds
from cdc_platform.model.source_facts import SourceFacts, SourceTable
from cdc_platform.model.topology import Topology
from cdc_platform.planning.health.source_hazard_kinds import HazardKind
from cdc_platform.reconciler import run_pass as reconciler
from cdc_platform.reconciler import unlogged_definitions
from cdc_platform.reconciler.source_round import of_dataset
from tests.reconciler.harness import Harness, cluster, dataset, shards
from tests.reconciler.test_publishing import Sources
from tests.reconciler.test_source_round import Facts

INT, BOTH = (("id", "int"),), (("id", "int"), ("v", "text"))


@dataclass
class History:
    """A schema history with these values; `readings` counts."""

    values: list[bytes] = field(default_factory=list)
    readings: int = 0

    def add(self, *columns: str, database: str = "pins_00000") -> None:
        table = {"columns": [{"name": name} for name in columns]}
        self.values.append(json.dumps({"tableChanges": [{"id": f'"{database}"."pins"', "table": table}]}).encode())

    def bounds(self) -> TopicBounds:
        return TopicBounds(topic_id="h", partitions={0: (0, len(self.values))})

    def read(self, partition: int, begin: int, end: int) -> Iterator[Batch]:
        self.readings += 1
        yield Batch(keys=[None] * end, values=self.values[:end], offsets=list(range(end)))

    def fetch(self, partition: int, offsets: Sequence[int]) -> Mapping[int, tuple[bytes | None, bytes | None]]:
        return {}

    def close(self) -> None: ...


def test_a_pass_names_what_the_log_does_not_hold_and_reads_a_history_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unlogged_definitions, "GRACE_SECONDS", 0.0)
    world, history, facts = Harness("main"), History(), Facts({})
    topology = Topology(datasets={"pins": dataset("pins", ("main",))}, shards={"pins": shards("pins", 1)})
    world.put(replace(topology, clusters={"main": cluster("main")}))

    def go(columns: tuple[tuple[str, str], ...]) -> list[str]:
        facts.said["pins.00000"] = SourceFacts(tables={"pins": SourceTable(columns=columns)})
        platform = replace(
            world.control_plane(),
            facts=facts,
            histories=lambda topic: history,
            sources=Sources(),  # type: ignore[arg-type]
        )
        report = reconciler.reconcile(platform, owner="test", asked=of_dataset(None))
        return [f.text for f in report.plan.findings if f.text.startswith(str(HazardKind.UNLOGGED))]

    history.add("id")
    for _ in range(4):
        assert go(INT) == []
    assert history.readings == 1
    (said,) = go(BOTH)
    assert "pins" in said and "it has v" in said
    history.add("id", "v")
    assert go(BOTH) == [] == go(BOTH)


def test_records_of_other_databases_and_of_no_json_are_passed_over() -> None:
    history = History([b"{", b"[]", b'{"tableChanges": [1, {"id": 5}]}'])
    history.add("id")
    history.add("x", database="other")
    assert known_tables(lambda topic: history, "h", "pins_00000", {"pins"}) == {"pins": KnownTable(("id",), 3)}
