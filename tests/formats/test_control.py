"""What an earlier release left in ZooKeeper, on workers, in Dagster and of a local stack, read by the code of now."""

from __future__ import annotations

import json
import shutil
from contextlib import chdir
from dataclasses import replace
from pathlib import Path

import dagster as dg
import msgspec
import pytest

from cdc_platform.agent.journal import Journal, Remembered
from cdc_platform.agent.leader_directory import LeaderDirectory
from cdc_platform.connectors.leader_files import parse
from cdc_platform.defs.check_sensor import build_check_job, build_check_sensor
from cdc_platform.defs.checks import build_cdc_asset_checks
from cdc_platform.defs.sensor_cursor import SensorCursor
from cdc_platform.defs.table_inventory import Inventory
from cdc_platform.documents.topology_file import load_yaml
from cdc_platform.errors import BadInput, StackError, TopologyError
from cdc_platform.local.stack import Stack
from cdc_platform.model.agent_report import AgentReport
from cdc_platform.model.topology import Address, Problem, Topology
from cdc_platform.testing import InMemoryTopologyStore, InMemoryZooKeeper
from tests.formats import values
from tests.formats.control import REPORT, TABLES, YAML, ZNODES
from tests.formats.releases import RELEASES
from tests.formats.values import NOW


@pytest.fixture(params=RELEASES, ids=lambda path: path.name)
def release(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return Path(shutil.copytree(request.param, tmp_path / "release"))


# Topology


def stored() -> Topology:
    """The topology after a change of leader and a deleted shard."""
    first, second = values.TOPOLOGY.shards["pins"]
    moved = replace(first, leader=Address("db-0b.internal", 3307), generation=1)
    return replace(values.TOPOLOGY, shards={"pins": (moved, second), "users": values.TOPOLOGY.shards["users"][:1]})


def zookeeper(release: Path) -> InMemoryZooKeeper:
    found = InMemoryZooKeeper()
    for line in (release / "topology" / ZNODES).read_bytes().splitlines():
        path, _, data = line.partition(b"\t")
        found.write(path.decode(), data)
    return found


def test_znodes(release: Path) -> None:
    store = InMemoryTopologyStore(zookeeper(release))
    assert store.load() == stored()
    # A shard that is made again does not begin below the one that was deleted.
    store.put_shard(replace(values.TOPOLOGY.shards["users"][1], generation=0))
    assert {shard.id: shard.generation for shard in store.load().shards["users"]} == {"eu": 3, "us": 9}


def test_fields_of_a_later_release_survive_in_znodes(release: Path) -> None:
    """Documents carry no version: an unknown field is kept, one that is broken switches off what it is about."""
    nodes = zookeeper(release)
    path = "/cdc/datasets/pins/shards/00001"
    document = json.loads(nodes.read(path) or b"")
    nodes.write(path, json.dumps(document | {"weight": 3}).encode())
    store = InMemoryTopologyStore(nodes)
    store.set_leader("pins", "00001", Address("db-1b.internal", 3307))
    assert json.loads(nodes.read(path) or b"")["weight"] == 3
    nodes.write(path, json.dumps(document | {"leader": {"host": "db-1"}}).encode())
    (problem,) = store.load().problems
    assert isinstance(problem, Problem)
    assert (problem.kind, problem.name) == ("shard", "pins.00001")
    assert "Cure:" in problem.message


def test_the_topology_file(release: Path) -> None:
    path = release / "topology" / YAML
    assert load_yaml(path) == stored()
    path.write_text(path.read_text().replace("    capacity: 500\n", "    capacity: 500\n    weight: 3\n"))
    with pytest.raises(TopologyError) as refused:
        load_yaml(path)
    assert refused.value.field == "clusters.main.weight"
    assert refused.value.where == f"{path}:6"
    assert refused.value.cure


# Agents


def test_leader_files(release: Path) -> None:
    directory = release / "agent" / "leaders"
    assert LeaderDirectory(directory, owner="w0:8083").read() == values.LEADER_FILES
    text = (directory / "users.eu.properties").read_text()
    assert parse(f"{text}zone=a\n", where="x") == values.LEADER_FILES["users.eu"]
    with pytest.raises(BadInput, match="incomplete") as refused:
        parse(text.replace("generation", "epoch"), where="x")
    assert refused.value.cure == "Remove it: the agent writes it again."


def test_the_journal_of_an_agent(release: Path) -> None:
    journal = Journal(release / "agent" / "leaders", "w0:8083")
    assert journal.read() == values.REMEMBERED
    document = json.loads(journal.path.read_text())
    journal.path.write_text(json.dumps(document | {"version": 2, "seen": []}))
    assert journal.read() == values.REMEMBERED
    journal.path.write_text(json.dumps(document | {"applied": []}))
    assert journal.read() == Remembered()


def test_the_report_of_an_agent(release: Path) -> None:
    document = json.loads((release / "agent" / REPORT).read_text())
    assert AgentReport.from_document(document) == values.REPORT
    assert AgentReport.from_document(document | {"version": 2}) == values.REPORT
    assert AgentReport.from_document({**document, "synced": "all"}) is None  # counts as absent


# Dagster


def test_the_cursor_of_the_reconcile_sensor(release: Path) -> None:
    text = (release / "dagster" / "reconcile_sensor.cursor").read_text()
    assert SensorCursor.parse(text) == values.CURSOR
    assert SensorCursor.parse(json.dumps(json.loads(text) | {"later": 1})) == values.CURSOR
    assert SensorCursor.parse(json.dumps(json.loads(text) | {"health": 1})) == SensorCursor()


def test_the_cursor_of_the_checks_sensor_which_needs_none_any_more(release: Path) -> None:
    path = release / "dagster" / "checks_sensor.cursor"
    checks = build_cdc_asset_checks(tables=values.TABLES)
    sensor = build_check_sensor(job=build_check_job(checks=checks), checks=checks)
    with dg.DagsterInstance.ephemeral() as instance:
        cursor = path.read_text() if path.exists() else None
        found = sensor.evaluate_tick(dg.build_sensor_context(instance=instance, cursor=cursor))
    assert "No verification since" in str(found.skip_message)


def test_the_list_of_tables(release: Path) -> None:
    text = (release / "dagster" / TABLES).read_bytes()
    expected = Inventory(platform="cdc", tables=values.TABLES, read_at=NOW)
    assert Inventory.decode(text) == expected
    document = json.loads(text)
    assert Inventory.decode(json.dumps(document | {"later": 1}).encode()) == expected
    with pytest.raises(msgspec.DecodeError, match="Expected `array`"):
        Inventory.decode(json.dumps(document | {"tables": {}}).encode())


# The local stack


def test_the_local_stack(release: Path) -> None:
    with chdir(release / "stack"):
        assert Stack.load(Path()) == values.STACK
    path = release / "stack" / "stack.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"launches": []}))
    with pytest.raises(StackError, match="not a state file of this version") as refused:
        Stack.load(release / "stack")
    assert refused.value.cure == "Remove the directory with `cdc-platform stack down --purge`."
