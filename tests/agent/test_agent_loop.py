"""The agent's loop over fakes: files follow ZooKeeper, tasks follow their files, outages change nothing."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cdc_platform.agent import agent_loop as runner
from cdc_platform.agent import task_restarter as restarter
from cdc_platform.agent.journal import Journal
from cdc_platform.agent.leader_directory import LeaderDirectory
from cdc_platform.connectors.leader_files import LeaderFile, file_name, render
from cdc_platform.errors import ConnectRebalancing, ConnectUnavailable, NotFound
from cdc_platform.model.agent_report import reports_by_worker, workers_without
from cdc_platform.model.topology import Address
from tests.agent.harness import ID, Harness, Worker
from tests.documents.test_edits import NEW, OLD, shard, topology
from tests.waiting import assert_eventually


@pytest.fixture
def harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Harness]:
    monkeypatch.setattr(runner, "_RETRY_SECONDS", 0.1)
    monkeypatch.setattr(runner, "_REPORT_SECONDS", 0.05)
    monkeypatch.setattr(runner, "_ROUND_SECONDS", 0.3)
    monkeypatch.setattr(restarter, "_POLL_SECONDS", 0.1)
    made = Harness(tmp_path / "leaders")
    yield made
    made.stop()


def at(leader: Address, generation: int) -> LeaderFile:
    return LeaderFile(leader=leader, generation=generation)


def test_the_first_sync_writes_all_and_then_registers(harness: Harness) -> None:
    harness.store.import_topology(topology(*(shard(number) for number in range(50))))
    harness.start()
    assert_eventually(harness.synced, "the registration")
    assert harness.files() == {f"pins.{number:05d}": at(OLD, 0) for number in range(50)}
    report = harness.report()
    assert report is not None and (report.files, report.connect_worker) == (50, ID)
    found = harness.store.load()
    assert workers_without(found, found.shard("pins", "00000"), [ID], reports_by_worker(harness.store.agents())) == {}
    assert harness.worker.restarted == []


def test_a_leader_change_rewrites_the_file_and_restarts_this_workers_tasks_only(harness: Harness) -> None:
    harness.store.import_topology(topology(*(shard(number) for number in range(4))))
    harness.worker.show("pins.00000")
    harness.worker.show("pins.00001", worker="10.0.0.9:8083")
    harness.worker.show("pins.00002")
    harness.start()
    assert_eventually(harness.synced, "the first sync")
    for number in (0, 1):
        harness.store.set_leader("pins", f"{number:05d}", NEW)
    assert_eventually(lambda: harness.worker.restarted == [("pins.00000", "new")], "the restart")
    assert_eventually(lambda: harness.files().get("pins.00001") == at(NEW, 1), "the other file")
    harness.store.set_leader("pins", "00000", OLD)
    assert_eventually(lambda: harness.worker.restarted[1:] == [("pins.00000", "old")], "the restart back")


def test_an_outage_of_zookeeper_keeps_the_files(harness: Harness) -> None:
    harness.store.import_topology(topology(shard(0)))
    harness.start()
    assert_eventually(harness.synced, "the first sync")
    harness.zookeeper.down = True
    before = harness.files()
    harness.agents[0][2].expire()
    assert harness.files() == before
    harness.zookeeper.down = False
    assert_eventually(harness.synced, "the registration again")


def test_an_emptied_or_garbage_zookeeper_removes_nothing(harness: Harness) -> None:
    harness.store.import_topology(topology(shard(0), shard(1)))
    harness.start()
    assert_eventually(harness.synced, "the first sync")
    harness.zookeeper.write("/cdc/datasets/pins/shards/00001", b"garbage")
    harness.zookeeper.write("/cdc/datasets/pins", b"garbage")
    harness.store.set_leader("pins", "00000", NEW)
    assert_eventually(lambda: harness.files()["pins.00000"] == at(NEW, 1), "failover below a garbage dataset")
    harness.zookeeper.delete("/cdc")
    assert_eventually(lambda: (report := harness.report()) is not None and report.files == 0, "a round over nothing")
    assert harness.files() == {"pins.00000": at(NEW, 1), "pins.00001": at(OLD, 0)}


def test_a_removed_shards_file_goes_once_its_connector_is_gone(harness: Harness) -> None:
    harness.store.import_topology(topology(shard(0), shard(1), shard(2)))
    harness.worker.show("pins.00001")
    harness.start()
    assert_eventually(harness.synced, "the first sync")
    harness.worker.down = ConnectUnavailable("down")
    harness.store.delete_shard("pins", "00001")
    harness.store.delete_shard("pins", "00002")
    assert_eventually(lambda: (report := harness.report()) is not None and report.files == 1, "a round")
    assert len(harness.files()) == 3, "not known whether their connectors are there"
    harness.worker.down = None
    assert_eventually(lambda: harness.files().keys() == {"pins.00000", "pins.00001"}, "the removal of one")
    harness.worker.shown.clear()
    assert_eventually(lambda: harness.files().keys() == {"pins.00000"}, "the removal of the other")


def test_a_file_that_came_after_the_connectors_were_asked_for_is_left_alone(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody writes it, and then makes the connector: the list of connectors may be older than both."""
    harness.store.import_topology(topology(shard(0), shard(1)))
    ask, answered = harness.worker.tasks, threading.Event()

    def tasks() -> Any:
        if answered.is_set():
            raise ConnectUnavailable("asked once")
        found = ask()
        (harness.path / file_name("by.hand")).write_text(render(at(OLD, 0)))
        answered.set()
        return found

    monkeypatch.setattr(harness.worker, "tasks", tasks)
    harness.start()
    assert_eventually(harness.synced, "the first sync")
    harness.store.delete_shard("pins", "00001")
    assert_eventually(lambda: "pins.00001" not in harness.files(), "the removal of the file that was asked about")
    assert answered.is_set() and harness.files().keys() == {"pins.00000", "by.hand"}


def test_a_restart_is_tried_until_it_works(harness: Harness) -> None:
    harness.store.import_topology(topology(shard(0)))
    harness.worker.show("pins.00000")
    harness.worker.failures = [ConnectRebalancing("409"), ConnectUnavailable("timeout"), ConnectUnavailable("500")]
    harness.start()
    assert_eventually(harness.synced, "the first sync")
    harness.worker.down = ConnectUnavailable("starting")
    harness.store.set_leader("pins", "00000", NEW)
    assert_eventually(
        lambda: (report := harness.report()) is not None and bool(report.moving), "the move in the report"
    )
    assert_eventually(
        lambda: "starting" in str((harness.report() or pytest.fail("no report")).problem), "the reason in the report"
    )
    harness.worker.down = None
    assert_eventually(lambda: harness.worker.restarted == [("pins.00000", "new")], "the restart")
    assert_eventually(harness.synced, "the end of the move")
    assert not harness.worker.failures


def test_a_task_that_is_gone_needs_no_restart(harness: Harness) -> None:
    harness.store.import_topology(topology(shard(0)))
    harness.worker.show("pins.00000")
    harness.worker.failures = [NotFound("gone")]
    harness.start()
    assert_eventually(harness.synced, "the first sync")
    harness.store.set_leader("pins", "00000", NEW)
    assert_eventually(lambda: not harness.worker.failures and harness.synced(), "the end of the move")
    assert harness.worker.restarted == []


def test_a_task_that_turns_up_here_in_the_middle_of_a_move_is_restarted_too(harness: Harness) -> None:
    harness.store.import_topology(topology(shard(0)))
    harness.worker.show("pins.00000", worker="10.0.0.9:8083")
    harness.start()
    assert_eventually(harness.synced, "the first sync")
    harness.store.set_leader("pins", "00000", NEW)
    assert_eventually(lambda: harness.files()["pins.00000"] == at(NEW, 1), "the file")
    harness.worker.show("pins.00000")  # it started with whatever the file said then
    assert_eventually(lambda: harness.worker.restarted == [("pins.00000", "new")], "the restart")


@pytest.mark.parametrize("file_written", [False, True])
def test_a_move_while_the_agent_was_down_is_followed(harness: Harness, file_written: bool) -> None:
    harness.store.import_topology(topology(shard(0), shard(1)))
    harness.worker.show("pins.00000")
    harness.worker.show("pins.00001")
    harness.start()
    assert_eventually(harness.synced, "the first sync")
    assert_eventually(
        lambda: Journal(harness.path, "w0").read().applied.keys() == {"pins.00000", "pins.00001"}, "the journal"
    )
    harness.stop()
    harness.store.set_leader("pins", "00000", NEW)
    if file_written:  # killed between the file and the restart
        LeaderDirectory(harness.path, owner="w0").write({"pins.00000": at(NEW, 1)})
    harness.start()
    assert_eventually(lambda: harness.worker.restarted == [("pins.00000", "new")], "the restart")
    assert_eventually(harness.synced, "the end of the move")
    harness.stop()
    harness.start()
    assert_eventually(harness.synced, "a start without news")
    assert harness.worker.restarted == [("pins.00000", "new")]


def test_agents_that_share_a_directory_each_restart_their_own(harness: Harness) -> None:
    other_id, other = "127.0.0.1:8084", Worker(harness.path)
    harness.store.import_topology(topology(shard(0), shard(1)))
    for worker in (harness.worker, other):
        worker.show("pins.00000")
        worker.show("pins.00001", worker=other_id)
    harness.start()
    harness.start("w1", other_id, other)
    assert_eventually(lambda: harness.store.agents().keys() == {"w0", "w1"}, "both")
    for number in range(2):
        harness.store.set_leader("pins", f"{number:05d}", NEW)
    assert_eventually(lambda: harness.worker.restarted == [("pins.00000", "new")], "the restart on w0")
    assert_eventually(lambda: other.restarted == [("pins.00001", "new")], "the restart on w1")


def test_a_file_that_is_newer_than_zookeeper_is_kept_and_reported(harness: Harness) -> None:
    harness.store.import_topology(topology(shard(0), shard(1)))
    LeaderDirectory(harness.path, owner="w0").write({"pins.00000": at(NEW, 9)})
    harness.start()
    assert_eventually(lambda: harness.report() is not None, "the report")
    report = harness.report()
    assert report is not None and report.ahead == report.unsynced == {"pins.00000"}
    assert harness.files() == {"pins.00000": at(NEW, 9), "pins.00001": at(OLD, 0)}
    (harness.path / "pins.00000.properties").unlink()
    assert_eventually(lambda: harness.files().get("pins.00000") == at(OLD, 0), "the file as ZooKeeper has it")
    assert_eventually(lambda: (now := harness.report()) is not None and not now.ahead, "the report without it")


def test_a_shard_made_again_gets_its_new_leader(harness: Harness) -> None:
    harness.store.import_topology(topology(shard(0), shard(1)))
    harness.worker.show("pins.00000")
    harness.start()
    assert_eventually(harness.synced, "the first sync")
    harness.store.set_leader("pins", "00000", NEW)
    assert_eventually(lambda: len(harness.worker.restarted) == 1, "the restart")
    harness.store.delete_shard("pins", "00000")
    assert_eventually(lambda: (report := harness.report()) is not None and report.files == 1, "a round without it")
    harness.store.put_shard(shard(0, leader=OLD))
    assert_eventually(
        lambda: harness.worker.restarted[1:] == [("pins.00000", "old")], "the restart with the leader it has now"
    )


def test_a_file_or_directory_deleted_by_hand_comes_back(harness: Harness) -> None:
    harness.store.import_topology(topology(shard(0), shard(1)))
    harness.start()
    assert_eventually(harness.synced, "the first sync")
    (harness.path / "pins.00001.properties").unlink()
    assert_eventually(lambda: harness.files().keys() == {"pins.00000", "pins.00001"}, "the file")
    # At one stroke: the agent may be writing into it.
    gone = harness.path.rename(harness.path.with_name("gone"))
    shutil.rmtree(gone)
    assert_eventually(
        lambda: harness.path.exists() and harness.files().keys() == {"pins.00000", "pins.00001"}, "the directory"
    )


def test_a_second_agent_of_a_worker_ends_the_first(harness: Harness) -> None:
    harness.store.import_topology(topology(shard(0)))
    harness.start()
    assert_eventually(harness.synced, "the first sync")
    harness.start()
    assert_eventually(lambda: len(harness.errors) == 1, "the end of the first")
    assert "another agent" in str(harness.errors[0])


def test_thousands_of_shards_move_at_once(harness: Harness) -> None:
    count = 600
    harness.store.import_topology(topology(*(shard(number) for number in range(count))))
    for number in range(count):
        harness.worker.show(f"pins.{number:05d}", worker=ID if number % 3 == 0 else "10.0.0.9:8083")
    harness.start()
    assert_eventually(harness.synced, "the first sync")
    harness.store.import_topology(topology(*(shard(number, leader=NEW, generation=1) for number in range(count))))
    assert_eventually(lambda: len(harness.worker.restarted) == count // 3, seconds=30, what="all restarts")
    assert {host for _, host in harness.worker.restarted} == {"new"}
    assert len(set(harness.worker.restarted)) == count // 3, "each once"
