"""The agent's loop over fakes: files follow ZooKeeper, tasks follow their files, outages change nothing."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from cdc_platform.agent import agent_loop as runner
from cdc_platform.agent import task_restarter as restarter
from cdc_platform.agent.agent_loop import Agent, Identity
from cdc_platform.agent.journal import Journal
from cdc_platform.agent.leader_directory import LeaderDirectory
from cdc_platform.connectors.leader_files import LeaderFile
from cdc_platform.errors import ConnectRebalancing, ConnectUnavailable, LockHeld, NotFound
from cdc_platform.model.agent_report import AgentReport, reports_by_worker, workers_without
from cdc_platform.model.observed import ObservedTask
from cdc_platform.model.topology import Address
from cdc_platform.testing import InMemoryTopologyStore, InMemoryZooKeeper
from tests.documents.test_edits import NEW, OLD, shard, topology
from tests.waiting import assert_eventually

ID = "127.0.0.1:8083"


class Worker:
    """A Connect worker: which tasks it shows, and with which file content each was last started."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.shown: dict[str, tuple[ObservedTask, ...]] = {}
        self.restarted: list[tuple[str, str]] = []
        self.failures: list[Exception] = []
        self.down: Exception | None = None

    def show(self, name: str, worker: str = ID, state: str = "RUNNING") -> None:
        self.shown[name] = (ObservedTask(id=0, state=state, worker=worker),)

    def tasks(self) -> Mapping[str, tuple[ObservedTask, ...]]:
        if self.down:
            raise self.down
        return dict(self.shown)

    def restart_task(self, name: str, task: int) -> None:
        if self.failures:
            raise self.failures.pop(0)
        text = (self.directory / f"{name}.properties").read_text()
        self.restarted.append((name, text.split("\n")[0].removeprefix("host=")))


class Bench:
    """A ZooKeeper, a worker and as many lives of the agent as a test wants."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.zookeeper = InMemoryZooKeeper()
        self.store = InMemoryTopologyStore(self.zookeeper)
        self.worker = Worker(path)
        self.agents: list[tuple[Agent, threading.Thread, InMemoryTopologyStore]] = []
        self.errors: list[Exception] = []

    def start(self, name: str = "w0", connect_worker: str = ID, worker: Worker | None = None) -> Agent:
        session = InMemoryTopologyStore(self.zookeeper)
        identity = Identity(worker=name, connect_worker=connect_worker, connect_url=f"http://{connect_worker}")
        directory = LeaderDirectory(self.path, owner=name)
        agent = Agent(identity, session, directory, Journal(self.path, name), worker or self.worker)

        def run() -> None:
            try:
                agent.run()
            except LockHeld as error:
                self.errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        self.agents.append((agent, thread, session))
        return agent

    def stop(self) -> None:
        for agent, thread, session in self.agents:
            agent.stop()
            thread.join(20)
            assert not thread.is_alive()
            session.close()
        self.agents.clear()

    def files(self) -> dict[str, LeaderFile | None]:
        return LeaderDirectory(self.path, owner="test").read()

    def report(self, name: str = "w0") -> AgentReport | None:
        document = self.store.agents().get(name)
        return AgentReport.from_document(document) if document else None

    def synced(self) -> bool:
        report = self.report()
        return report is not None and report.synced >= self.store.load().zxid and not report.moving


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(runner, "_RETRY_SECONDS", 0.1)
    monkeypatch.setattr(runner, "_REPORT_SECONDS", 0.05)
    monkeypatch.setattr(runner, "_ROUND_SECONDS", 0.3)
    monkeypatch.setattr(restarter, "_POLL_SECONDS", 0.1)
    made = Bench(tmp_path / "leaders")
    yield made
    made.stop()


def at(leader: Address, generation: int) -> LeaderFile:
    return LeaderFile(leader=leader, generation=generation)


def test_the_first_sync_writes_all_and_then_registers(bench: Bench) -> None:
    bench.store.import_topology(topology(*(shard(number) for number in range(50))))
    bench.start()
    assert_eventually(bench.synced, "the registration")
    assert bench.files() == {f"pins.{number:05d}": at(OLD, 0) for number in range(50)}
    report = bench.report()
    assert report is not None and (report.files, report.connect_worker) == (50, ID)
    found = bench.store.load()
    assert workers_without(found, found.shard("pins", "00000"), [ID], reports_by_worker(bench.store.agents())) == {}
    assert bench.worker.restarted == []


def test_a_leader_change_rewrites_the_file_and_restarts_this_workers_tasks_only(bench: Bench) -> None:
    bench.store.import_topology(topology(*(shard(number) for number in range(4))))
    bench.worker.show("pins.00000")
    bench.worker.show("pins.00001", worker="10.0.0.9:8083")
    bench.worker.show("pins.00002")
    bench.start()
    assert_eventually(bench.synced, "the first sync")
    for number in (0, 1):
        bench.store.set_leader("pins", f"{number:05d}", NEW)
    assert_eventually(lambda: bench.worker.restarted == [("pins.00000", "new")], "the restart")
    assert_eventually(lambda: bench.files().get("pins.00001") == at(NEW, 1), "the other file")
    bench.store.set_leader("pins", "00000", OLD)
    assert_eventually(lambda: bench.worker.restarted[1:] == [("pins.00000", "old")], "the restart back")


def test_an_outage_of_zookeeper_keeps_the_files(bench: Bench) -> None:
    bench.store.import_topology(topology(shard(0)))
    bench.start()
    assert_eventually(bench.synced, "the first sync")
    bench.zookeeper.down = True
    before = bench.files()
    bench.agents[0][2].expire()
    assert bench.files() == before
    bench.zookeeper.down = False
    assert_eventually(bench.synced, "the registration again")


def test_an_emptied_or_garbage_zookeeper_removes_nothing(bench: Bench) -> None:
    bench.store.import_topology(topology(shard(0), shard(1)))
    bench.start()
    assert_eventually(bench.synced, "the first sync")
    bench.zookeeper.write("/cdc/datasets/pins/shards/00001", b"garbage")
    bench.zookeeper.write("/cdc/datasets/pins", b"garbage")
    bench.store.set_leader("pins", "00000", NEW)
    assert_eventually(lambda: bench.files()["pins.00000"] == at(NEW, 1), "failover below a garbage dataset")
    bench.zookeeper.delete("/cdc")
    assert_eventually(lambda: (report := bench.report()) is not None and report.files == 0, "a round over nothing")
    assert bench.files() == {"pins.00000": at(NEW, 1), "pins.00001": at(OLD, 0)}


def test_a_removed_shards_file_goes_once_its_connector_is_gone(bench: Bench) -> None:
    bench.store.import_topology(topology(shard(0), shard(1), shard(2)))
    bench.worker.show("pins.00001")
    bench.start()
    assert_eventually(bench.synced, "the first sync")
    bench.worker.down = ConnectUnavailable("down")
    bench.store.delete_shard("pins", "00001")
    bench.store.delete_shard("pins", "00002")
    assert_eventually(lambda: (report := bench.report()) is not None and report.files == 1, "a round")
    assert len(bench.files()) == 3, "not known whether their connectors are there"
    bench.worker.down = None
    assert_eventually(lambda: bench.files().keys() == {"pins.00000", "pins.00001"}, "the removal of one")
    bench.worker.shown.clear()
    assert_eventually(lambda: bench.files().keys() == {"pins.00000"}, "the removal of the other")


def test_a_restart_is_tried_until_it_works(bench: Bench) -> None:
    bench.store.import_topology(topology(shard(0)))
    bench.worker.show("pins.00000")
    bench.worker.failures = [ConnectRebalancing("409"), ConnectUnavailable("timeout"), ConnectUnavailable("500")]
    bench.start()
    assert_eventually(bench.synced, "the first sync")
    bench.worker.down = ConnectUnavailable("starting")
    bench.store.set_leader("pins", "00000", NEW)
    assert_eventually(lambda: (report := bench.report()) is not None and bool(report.moving), "the move in the report")
    assert_eventually(
        lambda: "starting" in str((bench.report() or pytest.fail("no report")).problem), "the reason in the report"
    )
    bench.worker.down = None
    assert_eventually(lambda: bench.worker.restarted == [("pins.00000", "new")], "the restart")
    assert_eventually(bench.synced, "the end of the move")
    assert not bench.worker.failures


def test_a_task_that_is_gone_needs_no_restart(bench: Bench) -> None:
    bench.store.import_topology(topology(shard(0)))
    bench.worker.show("pins.00000")
    bench.worker.failures = [NotFound("gone")]
    bench.start()
    assert_eventually(bench.synced, "the first sync")
    bench.store.set_leader("pins", "00000", NEW)
    assert_eventually(lambda: not bench.worker.failures and bench.synced(), "the end of the move")
    assert bench.worker.restarted == []


def test_a_task_that_turns_up_here_in_the_middle_of_a_move_is_restarted_too(bench: Bench) -> None:
    bench.store.import_topology(topology(shard(0)))
    bench.worker.show("pins.00000", worker="10.0.0.9:8083")
    bench.start()
    assert_eventually(bench.synced, "the first sync")
    bench.store.set_leader("pins", "00000", NEW)
    assert_eventually(lambda: bench.files()["pins.00000"] == at(NEW, 1), "the file")
    bench.worker.show("pins.00000")  # it started with whatever the file said then
    assert_eventually(lambda: bench.worker.restarted == [("pins.00000", "new")], "the restart")


@pytest.mark.parametrize("file_written", [False, True])
def test_a_move_while_the_agent_was_down_is_followed(bench: Bench, file_written: bool) -> None:
    bench.store.import_topology(topology(shard(0), shard(1)))
    bench.worker.show("pins.00000")
    bench.worker.show("pins.00001")
    bench.start()
    assert_eventually(bench.synced, "the first sync")
    assert_eventually(
        lambda: Journal(bench.path, "w0").read().applied.keys() == {"pins.00000", "pins.00001"}, "the journal"
    )
    bench.stop()
    bench.store.set_leader("pins", "00000", NEW)
    if file_written:  # killed between the file and the restart
        LeaderDirectory(bench.path, owner="w0").write({"pins.00000": at(NEW, 1)})
    bench.start()
    assert_eventually(lambda: bench.worker.restarted == [("pins.00000", "new")], "the restart")
    assert_eventually(bench.synced, "the end of the move")
    bench.stop()
    bench.start()
    assert_eventually(bench.synced, "a start without news")
    assert bench.worker.restarted == [("pins.00000", "new")]


def test_agents_that_share_a_directory_each_restart_their_own(bench: Bench) -> None:
    other_id, other = "127.0.0.1:8084", Worker(bench.path)
    bench.store.import_topology(topology(shard(0), shard(1)))
    for worker in (bench.worker, other):
        worker.show("pins.00000")
        worker.show("pins.00001", worker=other_id)
    bench.start()
    bench.start("w1", other_id, other)
    assert_eventually(lambda: bench.store.agents().keys() == {"w0", "w1"}, "both")
    for number in range(2):
        bench.store.set_leader("pins", f"{number:05d}", NEW)
    assert_eventually(lambda: bench.worker.restarted == [("pins.00000", "new")], "the restart on w0")
    assert_eventually(lambda: other.restarted == [("pins.00001", "new")], "the restart on w1")


def test_a_file_that_is_newer_than_zookeeper_is_kept_and_reported(bench: Bench) -> None:
    bench.store.import_topology(topology(shard(0), shard(1)))
    LeaderDirectory(bench.path, owner="w0").write({"pins.00000": at(NEW, 9)})
    bench.start()
    assert_eventually(lambda: bench.report() is not None, "the report")
    report = bench.report()
    assert report is not None and report.ahead == report.unsynced == {"pins.00000"}
    assert bench.files() == {"pins.00000": at(NEW, 9), "pins.00001": at(OLD, 0)}
    (bench.path / "pins.00000.properties").unlink()
    assert_eventually(lambda: bench.files().get("pins.00000") == at(OLD, 0), "the file as ZooKeeper has it")
    assert_eventually(lambda: (now := bench.report()) is not None and not now.ahead, "the report without it")


def test_a_shard_made_again_gets_its_new_leader(bench: Bench) -> None:
    bench.store.import_topology(topology(shard(0), shard(1)))
    bench.worker.show("pins.00000")
    bench.start()
    assert_eventually(bench.synced, "the first sync")
    bench.store.set_leader("pins", "00000", NEW)
    assert_eventually(lambda: len(bench.worker.restarted) == 1, "the restart")
    bench.store.delete_shard("pins", "00000")
    assert_eventually(lambda: (report := bench.report()) is not None and report.files == 1, "a round without it")
    bench.store.put_shard(shard(0, leader=OLD))
    assert_eventually(
        lambda: bench.worker.restarted[1:] == [("pins.00000", "old")], "the restart with the leader it has now"
    )


def test_a_file_or_directory_deleted_by_hand_comes_back(bench: Bench) -> None:
    bench.store.import_topology(topology(shard(0), shard(1)))
    bench.start()
    assert_eventually(bench.synced, "the first sync")
    (bench.path / "pins.00001.properties").unlink()
    assert_eventually(lambda: bench.files().keys() == {"pins.00000", "pins.00001"}, "the file")
    # At one stroke: the agent may be writing into it.
    gone = bench.path.rename(bench.path.with_name("gone"))
    shutil.rmtree(gone)
    assert_eventually(
        lambda: bench.path.exists() and bench.files().keys() == {"pins.00000", "pins.00001"}, "the directory"
    )


def test_a_second_agent_of_a_worker_ends_the_first(bench: Bench) -> None:
    bench.store.import_topology(topology(shard(0)))
    bench.start()
    assert_eventually(bench.synced, "the first sync")
    bench.start()
    assert_eventually(lambda: len(bench.errors) == 1, "the end of the first")
    assert "another agent" in str(bench.errors[0])


def test_thousands_of_shards_move_at_once(bench: Bench) -> None:
    count = 600
    bench.store.import_topology(topology(*(shard(number) for number in range(count))))
    for number in range(count):
        bench.worker.show(f"pins.{number:05d}", worker=ID if number % 3 == 0 else "10.0.0.9:8083")
    bench.start()
    assert_eventually(bench.synced, "the first sync")
    bench.store.import_topology(topology(*(shard(number, leader=NEW, generation=1) for number in range(count))))
    assert_eventually(lambda: len(bench.worker.restarted) == count // 3, seconds=30, what="all restarts")
    assert {host for _, host in bench.worker.restarted} == {"new"}
    assert len(set(bench.worker.restarted)) == count // 3, "each once"
