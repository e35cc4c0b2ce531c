"""Preflight and discovery over fakes: what is asked of whom, what refuses, and what the command line says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cdc_platform.cli.main import main
from cdc_platform.clients.protocols import Plugin
from cdc_platform.clients.sources.leader_probes import Found, ReadOnlyProbe, load_probe
from cdc_platform.clients.sources.leader_servers import LeaderServers
from cdc_platform.errors import ConnectUnavailable, NotFound, PromotionRefused, SettingsError, SourceUnavailable
from cdc_platform.failover.change_leader import LeaderPorts, check_leader, discover, refuse_unfit
from cdc_platform.model.servers import ServerView
from cdc_platform.model.topology import Address, Dataset, Engine, Shard
from cdc_platform.settings import Settings
from cdc_platform.testing import InMemoryTopologyStore
from tests.documents.test_edits import NEW, OLD, shard, topology

THIRD = Address("third", 3306)
GOOD = {
    "log_bin": "1",
    "binlog_format": "ROW",
    "binlog_row_image": "FULL",
    "log_bin_compress": "0",
    "binlog_expire_logs_seconds": "0",
}


def view(address: Address, **changes: Any) -> ServerView:
    made = ServerView(
        address=address,
        engine=Engine.MARIADB,
        identity=str(address),
        writable=True,
        following=False,
        position="0-1-60",
        server_id=1,
        settings=GOOD,
    )
    return replace(made, **changes)


class Servers(LeaderServers):
    """Servers by address; those that are not there do not answer."""

    def __init__(self, *views: ServerView) -> None:
        super().__init__()
        self.views = {each.address: each for each in views}
        self.asked = 0
        self.rights: tuple[str, ...] = ()

    def view(self, dataset: Dataset, shard: Shard, server: Address, *, saved: str | None = None) -> ServerView:
        self.asked += 1
        if server not in self.views:
            raise SourceUnavailable("does not answer.")
        return self.views[server]

    def missing_rights(self, dataset: Dataset, shard: Shard, server: Address) -> tuple[str, ...]:
        return self.rights


class Connect:
    """A cluster with one position for every connector."""

    def __init__(self, gtids: str | None = "0-1-50", version: str = "3.5.0.Final") -> None:
        self.gtids, self.version = gtids, version
        self.error: Exception | None = None

    def plugins(self) -> Sequence[Plugin]:
        name = "io.debezium.connector.mariadb.MariaDbConnector"
        return [Plugin(class_name=name, type="source", version=self.version)]

    def offsets(self, name: str) -> Sequence[Mapping[str, Any]]:
        if self.error:
            raise self.error
        return [{"partition": {}, "offset": {"gtids": self.gtids}}]


def outside(servers: Servers, connect: Connect) -> LeaderPorts:
    return LeaderPorts(settings=Settings(), servers=servers, connect=lambda cluster: connect)  # type: ignore[arg-type,return-value]


def failing(servers: Servers, connect: Connect | None = None) -> list[str]:
    ideal = topology(shard(0))
    items = check_leader(outside(servers, connect or Connect()), ideal, ideal.shard("pins", "00000"), NEW)
    return [item.name for item in items if not item.ok]


def test_a_promoted_server_whose_predecessor_is_gone_is_fit() -> None:
    assert failing(Servers(view(NEW))) == []


def test_connectors_that_never_committed_have_nothing_to_lose() -> None:
    connect = Connect()
    connect.error = NotFound("no such connector")
    assert failing(Servers(view(NEW, server_id=2)), connect) == []


def test_a_position_that_cannot_be_read_is_not_taken_for_none() -> None:
    connect = Connect()
    connect.error = ConnectUnavailable("down")
    assert failing(Servers(view(NEW)), connect) == ["caught up"]


def test_missing_rights_and_a_living_old_leader_are_items() -> None:
    servers = Servers(view(NEW), view(OLD))
    servers.rights = ("REPLICATION SLAVE",)
    assert failing(servers) == ["old leader", "grants"]
    assert failing(Servers(view(NEW, server_id=2))) == ["gtid"]
    assert failing(Servers(view(NEW, server_id=2)), Connect(version="3.6.1.Final")) == []


def test_a_refusal_names_the_items() -> None:
    ideal = topology(shard(0))
    items = check_leader(outside(Servers(), Connect()), ideal, ideal.shard("pins", "00000"), NEW)
    with pytest.raises(PromotionRefused, match=r"new:3306 is not fit to lead: reachable\..*--force"):
        refuse_unfit(items, ideal.shard("pins", "00000"), NEW)


# Discovery


def with_replicas(number: int = 0) -> Any:
    return topology(replace(shard(number), replicas=(NEW, THIRD)))


def found_by(servers: Servers) -> Found:
    ideal = with_replicas()
    return ReadOnlyProbe(Settings(), servers).leader(ideal.dataset("pins"), ideal.shard("pins", "00000"))


def test_the_read_only_probe_names_the_one_that_takes_writes() -> None:
    replica = view(NEW, writable=False, following=True)
    assert found_by(Servers(view(OLD), replica)) == Found(leader=OLD)
    assert found_by(Servers(view(NEW))) == Found(leader=NEW)
    assert found_by(Servers(view(OLD, identity="same"), view(NEW, identity="same"))) == Found(leader=OLD)
    both = found_by(Servers(view(OLD), view(NEW)))
    assert both.leader is None and "split brain: old:3306 and new:3306" in str(both.problem)
    none = found_by(Servers(replica))
    assert none.leader is None and "no server takes writes" in str(none.problem)
    # One that takes writes but still follows is no leader yet.
    assert found_by(Servers(view(NEW, following=True))).leader is None


class Script:
    """A probe that says what it is told to, look by look."""

    def __init__(self, *looks: Found) -> None:
        self.looks = list(looks)

    def leader(self, dataset: Dataset, shard: Shard) -> Found:
        return self.looks.pop(0)


@pytest.mark.parametrize(
    ("looks", "moves"),
    [
        ([Found(leader=OLD)], {}),
        ([Found(leader=NEW), Found(leader=NEW)], {"pins.00000": NEW}),
        ([Found(leader=NEW), Found(leader=OLD)], {}),
        ([Found(leader=NEW), Found(leader=THIRD)], {}),
        ([Found(leader=NEW), Found(problem="split brain")], {}),
        ([Found(problem="nobody")], {}),
    ],
)
def test_another_leader_counts_when_two_looks_agree(looks: list[Found], moves: Mapping[str, Address]) -> None:
    waited: list[float] = []
    script = Script(*looks)
    found = discover(script, topology(shard(0)), again_after=2.0, wait=waited.append)
    assert found.moves == moves and script.looks == []
    assert waited == ([2.0] if len(looks) == 2 else [])
    assert bool(found.problems) == (looks[-1].problem is not None)


def test_a_probe_that_fails_costs_its_shard_only() -> None:
    class Failing:
        def leader(self, dataset: Dataset, shard: Shard) -> Found:
            if shard.id == "00001":
                raise SourceUnavailable("away")
            return Found(leader=shard.leader)

    found = discover(Failing(), topology(*(shard(n) for n in range(3))))
    assert found.problems.keys() == {"pins.00001"} and found.probed == 3 and not found.moves


def own_probe(settings: Settings) -> Script:
    """What `leader_probe = "tests.failover.test_change_leader:own_probe"` names."""
    return Script(Found(leader=NEW), Found(leader=NEW))


def test_a_probe_of_ones_own_is_named_by_the_settings() -> None:
    assert isinstance(load_probe(Settings()), ReadOnlyProbe)
    named = load_probe(Settings(leader_probe="tests.failover.test_change_leader:own_probe"))
    assert isinstance(named, Script)


@pytest.mark.parametrize("name", ["nothing", "no.module:x", "os:nothing", "os:getcwd", "builtins:str"])
def test_a_probe_that_is_none_is_one_clear_error(name: str) -> None:
    with pytest.raises(SettingsError, match="Cure: "):
        load_probe(Settings(leader_probe=name))


# The command line

Run = Callable[..., Result]


@pytest.fixture
def servers() -> Servers:
    return Servers(view(NEW))


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, servers: Servers) -> InMemoryTopologyStore:
    made = InMemoryTopologyStore()
    made.import_topology(with_replicas())

    @contextmanager
    def opened(settings: Settings) -> Iterator[LeaderPorts]:
        yield outside(servers, Connect())

    monkeypatch.setattr("cdc_platform.cli.set_leader.topology_store", lambda settings: made)
    monkeypatch.setattr("cdc_platform.cli.set_leader.open_leaders", opened)
    monkeypatch.setattr("cdc_platform.cli.set_leader.load_probe", lambda settings: ReadOnlyProbe(settings, servers))
    return made


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["topology", *arguments], catch_exceptions=False)


def test_set_leader_prints_its_preflight_and_moves(store: InMemoryTopologyStore) -> None:
    dry = run("set-leader", "pins", "00000", str(NEW), "--dry-run")
    assert dry.exit_code == 0 and store.load().shard("pins", "00000").leader == OLD
    done = run("set-leader", "pins", "00000", str(NEW))
    assert done.exit_code == 0 and "skipped" not in done.output
    names = ("reachable", "promoted", "old leader", "caught up", "gtid", "log format", "row image", "log retention")
    assert all(f"ok      {name}: " in done.output for name in (*names, "log compression", "grants"))
    assert store.load().shard("pins", "00000").leader == NEW
    shown = json.loads(run("set-leader", "pins", "00000", str(NEW), "--json").output)
    assert (shown["leader"], shown["generation"]) == (str(NEW), 1)


def test_set_leader_changes_nothing_when_an_item_fails(store: InMemoryTopologyStore, servers: Servers) -> None:
    servers.views[NEW] = view(NEW, server_id=2, settings={**GOOD, "binlog_format": "MIXED"})
    refused = run("set-leader", "pins", "00000", str(NEW))
    assert refused.exit_code == 2 and store.load().shard("pins", "00000").generation == 0
    lines = [line for line in refused.output.splitlines() if line.startswith("FAILS")]
    assert len(lines) == 2 and all("Cure: " in line for line in lines)
    assert "new:3306 is not fit to lead: gtid, log format." in refused.output
    assert run("set-leader", "pins", "00000", str(NEW), "--dry-run").exit_code == 2
    document = json.loads(run("set-leader", "pins", "00000", str(NEW), "--dry-run", "--json").output)
    assert [item["name"] for item in document["items"] if item["ok"] is False] == ["gtid", "log format"]
    forced = run("set-leader", "pins", "00000", str(NEW), "--force")
    assert forced.exit_code == 0 and "skipped by --force: gtid, log format" in forced.output


def test_set_leader_waits_for_what_time_cures(store: InMemoryTopologyStore, servers: Servers) -> None:
    late = view(NEW, writable=False, following=True, position="0-1-40")

    class CatchesUp(dict[Address, ServerView]):
        def __getitem__(self, key: Address) -> ServerView:
            return late if servers.asked < 4 else view(NEW)

    servers.views = CatchesUp({NEW: late})
    done = run("set-leader", "pins", "00000", str(NEW), "--wait", "30")
    assert done.exit_code == 0 and "waiting: " in done.stderr and servers.asked >= 4
    assert store.load().shard("pins", "00000").leader == NEW


def test_discover_applies_only_what_passes_the_preflight(
    store: InMemoryTopologyStore, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cdc_platform.cli.set_leader.discover", partial(discover, again_after=0.01))
    seen = run("discover")
    assert seen.exit_code == 2 and "pins.00000: new:3306 leads\n" in seen.output
    assert store.load().shard("pins", "00000").leader == OLD
    servers.views[NEW] = view(NEW, server_id=2)
    kept = run("discover", "pins", "--apply")
    assert "not moved: new:3306 is not fit to lead: gtid" in kept.output and "SET GLOBAL server_id = 1" in kept.output
    servers.views[NEW] = view(NEW)
    document = json.loads(run("discover", "pins", "--apply", "--json").output)
    assert document["done"] == {"pins.00000": "moved, generation 1"}
    assert run("discover", "pins").exit_code == 0
    assert run("discover", "nothing").exit_code == 1
