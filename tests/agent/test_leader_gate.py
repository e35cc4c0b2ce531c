"""The gate before a restart, and the watch on old leaders, over fakes of worker and servers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cdc_platform.agent import (
    agent_loop as runner,
)
from cdc_platform.agent import (
    leader_gate,
)
from cdc_platform.agent import (
    split_brain_watch as old_leaders,
)
from cdc_platform.agent import (
    task_restarter as restarter,
)
from cdc_platform.agent.agent_loop import Agent, Identity
from cdc_platform.agent.journal import Journal, OldLeader
from cdc_platform.agent.leader_directory import LeaderDirectory
from cdc_platform.agent.leader_gate import UNREACHABLE_SECONDS, LeaderCheck, LeaderGate
from cdc_platform.agent.split_brain_watch import OldLeaders
from cdc_platform.clients.protocols import Plugin
from cdc_platform.clients.sources.leader_servers import LeaderServers
from cdc_platform.connectors.leader_files import LeaderFile
from cdc_platform.errors import (
    BadInput,
    ConnectRebalancing,
    ConnectUnavailable,
    LoginRefused,
    NotFound,
    SourceRejected,
    SourceUnavailable,
)
from cdc_platform.failover.promotion import ObstacleKind
from cdc_platform.model.agent_report import AgentReport
from cdc_platform.model.observed import ObservedConnector, ObservedTask
from cdc_platform.model.servers import ServerView
from cdc_platform.model.topology import Address, Dataset, Engine, Shard
from cdc_platform.testing import InMemoryTopologyStore, InMemoryZooKeeper
from tests.documents.test_edits import NEW, OLD, shard, topology
from tests.waiting import assert_eventually

ID = "127.0.0.1:8083"


class Servers(LeaderServers):
    """Servers by address: a view, or the error of asking."""

    def __init__(self) -> None:
        super().__init__()
        self.views: dict[Address, ServerView | Exception] = {}
        self.asked: list[Address] = []

    def view(self, dataset: Dataset, shard: Shard, server: Address, *, saved: str | None = None) -> ServerView:
        self.asked.append(server)
        found = self.views[server]
        if isinstance(found, Exception):
            raise found
        return found


class Worker:
    """A worker with one task of each of its shards, and saved positions."""

    def __init__(self) -> None:
        self.restarted: list[str] = []
        self.gtids = "0-1-50"
        self.version = "3.5.0.Final"
        self.down: Exception | None = None

    def tasks(self) -> Mapping[str, tuple[ObservedTask, ...]]:
        return {f"pins.{n:05d}": (ObservedTask(id=0, state="RUNNING", worker=ID),) for n in range(3)}

    def restart_task(self, name: str, task: int) -> None:
        self.restarted.append(name)

    def offsets(self, name: str) -> Sequence[Mapping[str, Any]]:
        if self.down:
            raise self.down
        return [{"partition": {"server": name}, "offset": {"gtids": self.gtids}}]

    def connector(self, name: str) -> ObservedConnector:
        raise NotImplementedError(name)

    def plugins(self) -> Sequence[Plugin]:
        kinds = ("mariadb.MariaDbConnector", "mysql.MySqlConnector")
        return [
            Plugin(class_name=f"io.debezium.connector.{kind}", type="source", version=self.version) for kind in kinds
        ]


def view(address: Address, **changes: Any) -> ServerView:
    made = ServerView(
        address=address,
        engine=Engine.MARIADB,
        identity=str(address),
        writable=True,
        following=False,
        position="0-1-60",
        server_id=1,
    )
    return replace(made, **changes)


@pytest.fixture
def servers() -> Servers:
    made = Servers()
    made.views = {NEW: view(NEW), OLD: SourceUnavailable("gone")}
    return made


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
def check(worker: Worker, servers: Servers) -> LeaderCheck:
    made = LeaderCheck(worker, servers)
    made.learn(topology(shard(0), shard(1)))
    return made


FILE = LeaderFile(leader=NEW, generation=1)


def test_a_fit_leader_passes(check: LeaderCheck) -> None:
    assert check.obstacle("pins.00000", FILE, 0.0) is None
    assert check.obstacle("unknown.00000", FILE, 0.0) is None


def test_a_fixed_connector_goes_on_whatever_the_server_id(check: LeaderCheck, servers: Servers, worker: Worker) -> None:
    servers.views[NEW] = view(NEW, server_id=2, position="0-2-60")
    found = check.obstacle("pins.00000", FILE, 0.0)
    assert found is not None and found.kind is ObstacleKind.SERVER_ID
    worker.version = "3.6.1.Final"
    fresh = LeaderCheck(worker, servers)
    fresh.learn(topology(shard(0)))
    assert fresh.obstacle("pins.00000", FILE, 0.0) is None


def test_a_leader_that_does_not_answer_is_waited_for_and_then_left_to_the_worker(
    check: LeaderCheck, servers: Servers
) -> None:
    servers.views[NEW] = SourceUnavailable("refused")
    found = check.obstacle("pins.00000", FILE, 1.0)
    assert found is not None and found.kind is ObstacleKind.UNREACHABLE
    assert check.obstacle("pins.00000", FILE, UNREACHABLE_SECONDS + 1) is None


def test_a_missing_right_holds_nothing_up(check: LeaderCheck, servers: Servers) -> None:
    servers.views[NEW] = SourceRejected("the source refused: no right to ask")
    assert check.obstacle("pins.00000", FILE, 0.0) is None


def test_a_refused_login_is_an_obstacle_for_as_long_as_it_is_refused(check: LeaderCheck, servers: Servers) -> None:
    servers.views[NEW] = LoginRefused("access denied", cure="See the rights.")
    found = check.obstacle("pins.00000", FILE, UNREACHABLE_SECONDS + 1)
    assert found is not None and found.kind is ObstacleKind.LOGIN_REFUSED
    assert "--no-check-leaders" in found.cure


def test_a_worker_that_does_not_answer_is_an_error_not_a_pass(check: LeaderCheck, worker: Worker) -> None:
    worker.down = ConnectUnavailable("down")
    with pytest.raises(ConnectUnavailable):
        check.obstacle("pins.00000", FILE, 0.0)


def test_a_diverged_leader_stays_so_though_its_own_writes_pass_the_saved_position(
    check: LeaderCheck, servers: Servers
) -> None:
    servers.views[NEW] = view(NEW, position="0-1-40")
    found = check.obstacle("pins.00000", FILE, 0.0)
    assert found is not None and found.kind is ObstacleKind.DIVERGED
    servers.views[NEW] = view(NEW, position="0-1-90")
    assert check.obstacle("pins.00000", FILE, 5.0) == found
    assert check.obstacle("pins.00001", FILE, 5.0) is None
    assert check.obstacle("pins.00000", LeaderFile(leader=NEW, generation=2), 0.0) is None, "a person moved it again"


class GatedAgent:
    """One agent with gate and watch."""

    def __init__(self, path: Path, worker: Worker, servers: Servers) -> None:
        self.path, self.worker, self.servers = path, worker, servers
        self.store = InMemoryTopologyStore(InMemoryZooKeeper())
        self.store.import_topology(topology(shard(0), shard(1), shard(2)))
        self.start()

    def start(self) -> None:
        self.agent = Agent(
            Identity(worker="w0", connect_worker=ID, connect_url=f"http://{ID}"),
            self.store,
            LeaderDirectory(self.path, owner="w0"),
            Journal(self.path, "w0"),
            self.worker,
            check=LeaderCheck(self.worker, self.servers),
            old_leaders=OldLeaders(self.servers),
        )
        self.thread = threading.Thread(target=self.agent.run)
        self.thread.start()
        assert_eventually(lambda: "w0" in self.store.agents(), "the registration")

    def leader(self, name: str) -> Address:
        """What a task that starts now would read."""
        found = LeaderDirectory(self.path, owner="test").read()[name]
        assert found is not None
        return found.leader

    def stop(self) -> None:
        self.agent.stop()
        self.thread.join(20)
        assert not self.thread.is_alive()

    def report(self) -> AgentReport:
        found = AgentReport.from_document(self.store.agents()["w0"])
        assert found is not None
        return found


@pytest.fixture
def gated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worker: Worker, servers: Servers) -> Iterator[GatedAgent]:
    for module, name, value in (
        (runner, "_RETRY_SECONDS", 0.1),
        (runner, "_REPORT_SECONDS", 0.05),
        (runner, "_ROUND_SECONDS", 0.2),
        (restarter, "_POLL_SECONDS", 0.1),
        (leader_gate, "_FIRST_SECONDS", 0.05),
        (old_leaders, "_EVERY_SECONDS", 0.05),
    ):
        monkeypatch.setattr(module, name, value)
    made = GatedAgent(tmp_path / "leaders", worker, servers)
    yield made
    made.stop()


def test_one_shard_that_is_held_does_not_hold_up_the_others(
    gated: GatedAgent, worker: Worker, servers: Servers
) -> None:
    third = Address("third", 3306)
    servers.views[third] = view(third, server_id=3)
    gated.store.set_leader("pins", "00000", third)
    assert_eventually(lambda: "SET GLOBAL server_id = 1" in gated.report().blocked.get("pins.00000", ""), "held")
    gated.store.set_leader("pins", "00001", NEW)
    assert_eventually(lambda: worker.restarted == ["pins.00001"], "the other is restarted")
    assert "pins.00000" in gated.report().moving
    assert (gated.leader("pins.00000"), gated.leader("pins.00001")) == (OLD, NEW), "whatever starts a task meanwhile"
    assert not gated.report().has_written(gated.store.load(), shard(0)), "no connector is made for it meanwhile"
    servers.views[third] = view(third)
    assert_eventually(lambda: worker.restarted == ["pins.00001", "pins.00000"], "the promotion was finished")
    assert_eventually(lambda: not gated.report().blocked and not gated.report().moving, "nothing is held any more")
    assert gated.leader("pins.00000") == third


def test_a_leader_file_of_a_shard_without_a_task_here_is_asked_about_too(
    gated: GatedAgent, worker: Worker, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "tasks", dict)
    servers.views[NEW] = view(NEW, server_id=2)
    gated.store.set_leader("pins", "00000", NEW)
    assert_eventually(lambda: "pins.00000" in gated.report().blocked, "held")
    assert gated.leader("pins.00000") == OLD
    servers.views[NEW] = view(NEW)
    assert_eventually(lambda: gated.leader("pins.00000") == NEW, "written")
    assert worker.restarted == []


def test_an_agent_that_is_started_anew_asks_again(gated: GatedAgent, worker: Worker, servers: Servers) -> None:
    servers.views[NEW] = view(NEW, server_id=2)
    gated.store.set_leader("pins", "00000", NEW)
    assert_eventually(lambda: "pins.00000" in gated.report().blocked, "held")
    gated.stop()
    gated.start()
    assert_eventually(lambda: "pins.00000" in gated.report().blocked, "held by the next life")
    assert (gated.leader("pins.00000"), worker.restarted) == (OLD, [])


def test_a_new_leader_ends_the_wait_for_one_that_was_not_fit(
    gated: GatedAgent, worker: Worker, servers: Servers
) -> None:
    third = Address("third", 3306)
    servers.views[third] = view(third, writable=False, position="0-1-1")
    gated.store.set_leader("pins", "00000", third)
    assert_eventually(lambda: "has not reached" in gated.report().blocked.get("pins.00000", ""), "held")
    gated.store.set_leader("pins", "00000", NEW)
    assert_eventually(lambda: worker.restarted == ["pins.00000"], "restarted with the newest")
    assert_eventually(lambda: not gated.report().blocked, "nothing is held")


class Answers:
    """What a check answers, one after another, the last for ever; and what the gate then does."""

    def __init__(self, *answers: Exception | None) -> None:
        self.answers = list(answers)
        self.opened: list[str] = []
        self.quiet = threading.Event()
        self.keeper = LeaderGate(self.obstacle, opened=lambda name, _: self.opened.append(name), quiet=self.quiet.set)

    def obstacle(self, name: str, leader: LeaderFile, waited: float) -> None:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is not None:
            raise answer


@pytest.mark.parametrize(
    ("answers", "patience"),
    [
        ((NotFound("no such connector"),), 60.0),
        ((ConnectUnavailable("down"),), 0.3),
        ((ConnectUnavailable("down"), ConnectRebalancing("busy"), None), 60.0),
        ((ZeroDivisionError(), None), 60.0),
    ],
)
def test_what_cannot_be_asked_is_asked_again_and_a_worker_that_is_down_holds_nothing_for_long(
    answers: tuple[Exception | None, ...], patience: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leader_gate, "UNREACHABLE_SECONDS", patience)
    found = Answers(*answers)
    found.keeper.start()
    assert found.keeper.ask({"pins.00000": FILE}) == frozenset()
    assert found.quiet.wait(20)
    assert (found.opened, found.keeper.waiting()) == (["pins.00000"], {})
    assert found.keeper.ask({"pins.00000": FILE}) == {"pins.00000"}
    assert found.keeper.ask({}) == frozenset(), "what is not asked for is forgotten"
    found.keeper.stop()


def test_what_stays_unanswered_is_not_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leader_gate, "UNREACHABLE_SECONDS", 0.0)
    found = Answers(BadInput("an offset that is none"))
    found.keeper.start()
    found.keeper.ask({"pins.00000": FILE})
    time.sleep(0.5)
    assert (found.opened, found.keeper.waiting()) == ([], {"pins.00000": FILE})
    found.keeper.stop()


def test_thousands_of_leaders_are_asked_about_once_each_though_one_hangs() -> None:
    hangs = threading.Event()
    asked: list[str] = []

    def obstacle(name: str, leader: LeaderFile, waited: float) -> None:
        asked.append(name)
        if name == "pins.00007":
            hangs.wait(60)

    opened: set[str] = set()
    keeper = LeaderGate(obstacle, opened=lambda name, _: opened.add(name), quiet=lambda: None)
    keeper.start()
    leaders = {f"pins.{number:05d}": FILE for number in range(3000)}
    keeper.ask(leaders)
    assert_eventually(lambda: len(opened) == 2999, seconds=60, what="all but one")
    assert keeper.waiting() == {"pins.00007": FILE}
    hangs.set()
    assert_eventually(lambda: opened == leaders.keys(), seconds=20, what="all")
    assert sorted(asked) == sorted(leaders)
    keeper.stop()


def test_split_brain_is_reported_until_the_old_leader_is_fenced(gated: GatedAgent, servers: Servers) -> None:
    servers.views[OLD] = view(OLD)
    gated.store.set_leader("pins", "00000", NEW)
    assert_eventually(lambda: "still takes writes" in gated.report().split.get("pins.00000", ""), "seen")
    servers.views[OLD] = view(OLD, position="0-1-61")
    assert_eventually(lambda: "0-1-60 to 0-1-61" in gated.report().split["pins.00000"], "its writes are seen")
    servers.views[OLD] = view(OLD, writable=False)
    assert_eventually(lambda: not gated.report().split, "over")


def test_split_brain_is_seen_by_the_agents_next_life_too(gated: GatedAgent, servers: Servers) -> None:
    servers.views[OLD] = SourceUnavailable("cut off")
    gated.store.set_leader("pins", "00000", NEW)
    assert_eventually(lambda: Journal(gated.path, "w0").read().old.keys() == {"pins.00000"}, "the watch is remembered")
    gated.stop()
    servers.views[OLD] = view(OLD)
    gated.start()
    assert_eventually(lambda: "still takes writes" in gated.report().split.get("pins.00000", ""), "seen")
    servers.views[OLD] = view(OLD, identity=str(NEW))
    assert_eventually(lambda: not Journal(gated.path, "w0").read().old, "what is over is forgotten")


def test_an_old_leader_is_looked_at_once_more_however_long_the_agent_was_away(
    gated: GatedAgent, servers: Servers
) -> None:
    gated.store.set_leader("pins", "00000", NEW)
    gated.stop()
    journal = Journal(gated.path, "w0")
    long_ago = datetime.now(UTC) - 2 * old_leaders.WATCH
    journal.write(replace(journal.read(), old={"pins.00000": OldLeader(leader=OLD, since=long_ago)}))
    servers.views[OLD] = view(OLD)
    gated.start()
    assert_eventually(lambda: "pins.00000" in gated.report().split, "seen")
    servers.views[OLD] = view(OLD, writable=False)
    assert_eventually(lambda: not gated.report().split and not Journal(gated.path, "w0").read().old, "over")


def test_an_old_leader_that_is_the_same_server_or_silent_is_no_split_brain(gated: GatedAgent, servers: Servers) -> None:
    servers.views[OLD] = view(OLD, identity=str(NEW))
    gated.store.set_leader("pins", "00000", NEW)
    assert_eventually(lambda: OLD in servers.asked, "it was asked")
    servers.views[OLD] = SourceUnavailable("gone")
    gated.store.set_leader("pins", "00001", NEW)
    asked = len(servers.asked)
    assert_eventually(lambda: len(servers.asked) > asked + 2, "it was asked again")
    time.sleep(0.2)
    assert gated.report().split == {}


class Slow(LeaderServers):
    """Counts how often a server was really asked."""

    def __init__(self) -> None:
        super().__init__(fresh=5.0)
        self.questions = 0
        self.error: SourceUnavailable | None = None

    def _ask(self, dataset: Dataset, shard: Shard, server: Address, saved: str | None) -> ServerView:
        self.questions += 1
        time.sleep(0.05)
        if self.error:
            raise self.error
        return view(server)


@pytest.mark.parametrize("silent", [False, True])
def test_a_hundred_shards_of_one_server_are_one_question(silent: bool) -> None:
    servers = Slow()
    servers.error = SourceUnavailable("silent") if silent else None
    found = topology(*(shard(number) for number in range(100)))
    dataset = found.dataset("pins")
    errors: list[Exception] = []

    def ask(each: Shard) -> None:
        try:
            servers.view(dataset, each, NEW)
        except SourceUnavailable as error:
            errors.append(error)

    threads = [threading.Thread(target=ask, args=(each,)) for each in found.shards["pins"]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert servers.questions == 1
    assert len(errors) == (100 if silent else 0)
