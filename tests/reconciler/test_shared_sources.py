"""What only the servers know: two addresses, one database. Told in each pass, and the newcomer gets no connector."""

from __future__ import annotations

from dataclasses import replace

from cdc_platform.model.topology import Address, Table, Topology
from cdc_platform.planning.actions import CreateConnector
from cdc_platform.planning.health.shared_sources import readers_of_one
from cdc_platform.planning.health.source_hazard_kinds import HazardKind
from cdc_platform.reconciler.report import PassReport
from cdc_platform.reconciler.source_round import when_due
from tests.reconciler.harness import cluster, dataset, shards
from tests.reconciler.test_source_round import ORDERS, WHOLE, World

PLACE = "7100/16384"


def told(report: PassReport) -> set[str]:
    kind = f"{HazardKind.SHARED_DATABASE}: its database ({PLACE})"
    return {finding.subject for finding in report.plan.findings if finding.text.startswith(kind)}


def test_captured_shards_of_one_database_are_both_named_and_go_on() -> None:
    world = World(3)
    for name in ("o.00000", "o.00001"):
        world.facts.said[name] = replace(WHOLE, place=PLACE)
    world.facts.said["o.00002"] = replace(WHOLE, place="7100/16385")
    report = world.go()
    assert told(report) == {"o.00000", "o.00001"} and not report.plan.actions
    assert not report.health["o"].down

    world.facts.said["o.00001"] = replace(WHOLE, place="7200/16384")
    assert told(world.go()) == set()


def test_a_new_shard_on_the_database_of_a_running_one_gets_no_connector() -> None:
    world = World(2)
    world.facts.said["o.00000"] = replace(WHOLE, place=PLACE)
    world.facts.said["o.00001"] = replace(WHOLE, place="7100/16385")
    world.go()
    known = shards("o", 4)
    late = replace(known[2], leader=Address("alias.internal", 5432)), known[3]
    world.facts.said |= {"o.00002": replace(WHOLE, place=PLACE), "o.00003": replace(WHOLE, place="7300/1")}
    world.put(Topology(datasets={"o": ORDERS}, shards={"o": (*known[:2], *late)}, clusters={"main": cluster("main")}))
    report = world.go(asked=when_due)
    assert [one.name for one in report.plan.actions if isinstance(one, CreateConnector)] == ["o.00003"]
    (no,) = [finding.text for finding in report.plan.findings if "get no connector" in finding.text]
    assert "o.00002" in no and "its database is also that of o.00000" in no
    assert not {down.shard for down in report.health["o"].down} & {"o.00000", "o.00001"}


def test_two_datasets_share_only_where_they_capture_one_table() -> None:
    table = dataset("p", ("main",), engine=ORDERS.engine, tables=(Table(name="t"), Table(name="x")))
    apart = dataset("q", ("main",), engine=ORDERS.engine, tables=(Table(name="t", schema="s"),))
    accepting = replace(table, name="r", accepted_hazards=("shared-database",))
    named = {one.name: one for one in (ORDERS, table, apart, accepting)}
    topology = Topology(datasets=named, shards={name: shards(name, 1) for name in named})
    places = dict.fromkeys((f"{name}.00000" for name in named), PLACE)
    assert readers_of_one(topology, places) == {"o.00000": ("p.00000",), "p.00000": ("o.00000",)}
    assert readers_of_one(topology, dict.fromkeys(places, "")) == {}
