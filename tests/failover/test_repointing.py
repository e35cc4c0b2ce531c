"""The pure part of failover: which files, which tasks, and when a move is done."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from cdc_platform.connectors.leader_files import LeaderFile, parse, render
from cdc_platform.failover.repointing import (
    RETRY,
    SETTLE_SECONDS,
    LeaderMove,
    baseline,
    moved,
    next_steps,
    plan_files,
)
from cdc_platform.model.agent_report import MAX_NAMED, AgentReport, reports_by_worker, workers_without
from cdc_platform.model.observed import ObservedTask
from cdc_platform.model.topology import Address, Problem, Shard, Topology
from tests.documents.strategies import addresses

A, B = Address("a", 1), Address("b", 2)
leaders = st.builds(LeaderFile, leader=st.sampled_from([A, B]), generation=st.integers(0, 4))
names = st.sampled_from(["pins.0", "pins.1", "orders.0"])
worlds = st.dictionaries(names, leaders)


def at(leader: Address, generation: int) -> LeaderFile:
    return LeaderFile(leader=leader, generation=generation)


def task(worker: str = "w0:1", state: str = "RUNNING", number: int = 0) -> ObservedTask:
    return ObservedTask(id=number, state=state, worker=worker)


@given(addresses, st.integers(0, 2**63 - 1))
def test_a_leader_file_is_read_as_it_was_written(leader: Address, generation: int) -> None:
    assert parse(render(at(leader, generation)), where="f") == at(leader, generation)


@given(worlds, st.dictionaries(names, st.none() | leaders))
def test_writing_the_plan_gives_what_is_wanted_and_a_second_plan_is_empty(
    wanted: Mapping[str, LeaderFile], files: Mapping[str, LeaderFile | None]
) -> None:
    plan = plan_files(wanted, files, (), frozenset())
    after = {name: content for name, content in {**files, **plan.write}.items() if name not in plan.remove}
    for name, leader in wanted.items():
        now = after[name]
        assert now == leader or (name in plan.ahead and now is not None and now.generation > leader.generation)
    if wanted:
        assert after.keys() == wanted.keys()
    again = plan_files(wanted, after, (), frozenset())
    assert not again.write and not again.remove and again.ahead == plan.ahead


@given(worlds, worlds)
def test_an_older_generation_never_wins(wanted: Mapping[str, LeaderFile], files: Mapping[str, LeaderFile]) -> None:
    plan = plan_files(wanted, files)
    for name, leader in plan.write.items():
        assert name not in files or files[name].generation <= leader.generation


def test_files_are_removed_only_when_all_is_known() -> None:
    files = {"pins.0": at(A, 0), "pins.1": at(A, 0), "pins.2": at(A, 0), "orders.0": at(A, 0)}
    wanted = {"pins.0": at(A, 0)}
    assert plan_files(wanted, files).remove == (), "connectors not known"
    assert plan_files({}, files, (), frozenset()).remove == (), "an empty inventory"
    problems = (Problem("shard", "pins.1", "x"), Problem("dataset", "orders", "x"))
    assert plan_files(wanted, files, problems, frozenset()).remove == ("pins.2",)
    assert plan_files(wanted, files, (), frozenset({"pins.2", "orders.0"})).remove == ("pins.1",)


def test_only_a_changed_address_needs_a_restart() -> None:
    applied = {"a": at(A, 1), "b": at(A, 1), "c": at(A, 1), "d": at(A, 1)}
    wanted = {"a": at(A, 1), "b": at(B, 2), "c": at(A, 2), "d": at(A, 3), "new": at(A, 0)}
    assert moved(wanted, applied) == {"b": at(B, 2), "d": at(A, 3)}, "d went away and came back"


def test_the_baseline_knows_what_tasks_started_with() -> None:
    files = {"journaled": at(B, 2), "found": at(A, 1), "broken": None, "leftover": at(A, 0)}
    wanted = {"journaled": at(B, 2), "found": at(B, 2), "broken": at(B, 2), "new": at(B, 2)}
    applied = {"journaled": at(A, 1), "leftover": at(A, 0), "gone": at(A, 0)}
    assert baseline(applied, files, wanted) == {
        "journaled": at(A, 1),
        "leftover": at(A, 0),
        "found": at(A, 1),
        "broken": at(B, 2),
        "new": at(B, 2),
    }
    assert moved(wanted, baseline(applied, files, wanted)).keys() == {"journaled", "found"}


def test_only_this_workers_tasks_are_restarted() -> None:
    moves = {
        "pins.0": LeaderMove(leader=at(B, 1), written_at=0.0),
        "pins.1": LeaderMove(leader=at(B, 1), written_at=0.0),
    }
    tasks = {"pins.0": (task(),), "pins.1": (task("w1:1"),)}
    steps = next_steps(moves, tasks, "w0:1", now=1.0)
    assert (steps.restart, steps.settled) == ((("pins.0", 0),), ())


def test_a_failed_task_is_restarted_and_an_unassigned_one_is_waited_for() -> None:
    moves = {"a": LeaderMove(leader=at(B, 1), written_at=0.0), "b": LeaderMove(leader=at(B, 1), written_at=0.0)}
    tasks = {"a": (task(state="FAILED"),), "b": (task(state="UNASSIGNED"),)}
    assert next_steps(moves, tasks, "w0:1", now=1.0).restart == (("a", 0),)


def test_a_move_without_a_task_here_is_settled_when_none_can_turn_up_any_more() -> None:
    moves = {"a": LeaderMove(leader=at(B, 1), written_at=10.0)}
    assert next_steps(moves, {}, "w0:1", now=10.0 + SETTLE_SECONDS - 1).settled == ()
    assert next_steps(moves, {}, "w0:1", now=10.0 + SETTLE_SECONDS).settled == ("a",)


def test_a_task_waits_for_its_next_try() -> None:
    moves = {"a": LeaderMove(leader=at(B, 1), written_at=0.0, tries=1, not_before=5.0)}
    assert next_steps(moves, {"a": (task(),)}, "w0:1", now=4.9).restart == ()
    assert next_steps(moves, {"a": (task(),)}, "w0:1", now=5.0).restart == (("a", 0),)


@given(st.integers(1, 10_000), st.floats(0, 0.999))
def test_retries_back_off_within_bounds(tries: int, jitter: float) -> None:
    assert 0.1 <= RETRY.wait(tries, jitter) <= 15.0
    assert RETRY.wait(tries) <= RETRY.wait(tries + 1)


def report(**more: object) -> AgentReport:
    fields: dict[str, object] = {
        "connect_worker": "w0:1",
        "connect_url": "http://w0:1",
        "leader_dir": "/l",
        "pid": 1,
        "host": "h",
        "started": datetime(2030, 1, 1, tzinfo=UTC),
        "reported": datetime(2030, 1, 1, tzinfo=UTC),
        "synced": 7,
        "files": 1,
    }
    return AgentReport(**(fields | more))  # type: ignore[arg-type]


def test_a_report_survives_its_document() -> None:
    full = report(unsynced=frozenset({"pins.1"}), ahead=frozenset({"pins.2"}), moving={"pins.3": 4}, problem="x")
    assert AgentReport.from_document(full.to_document()) == full
    for garbage in ({}, {"synced": "x"}, full.to_document() | {"moving": [1]}, full.to_document() | {"started": "x"}):
        assert AgentReport.from_document(garbage) is None


def test_one_number_says_which_shards_are_written_on_a_worker() -> None:
    shards = tuple(Shard(dataset="pins", id=str(number), leader=A, database="p") for number in range(2))
    topology = Topology(shards={"pins": shards}, zxid=7)
    agents = {
        "w0": report(unsynced=frozenset({"pins.1"})).to_document(),
        "w1": report(connect_worker="w1:1", synced=6).to_document(),
        "w2": report(connect_worker="w2:1", ahead=frozenset({"pins.0"}), unsynced=frozenset({"pins.0"})).to_document(),
        "garbage": {"x": 1},
    }
    reports = reports_by_worker(agents)
    workers = ["w0:1", "w1:1", "w2:1", "w3:1"]
    assert workers_without(topology, shards[0], workers, reports) == {
        "w1:1": "its agent has not written the leader file yet",
        "w2:1": "its leader file is newer than ZooKeeper",
        "w3:1": "no live agent",
    }
    assert workers_without(topology, shards[1], workers, reports).keys() == {"w0:1", "w1:1", "w3:1"}


def test_names_that_do_not_fit_do_not_pass_for_written() -> None:
    many = frozenset(f"pins.{number}" for number in range(MAX_NAMED + 1))
    cut = AgentReport.from_document(report(unsynced=many).to_document())
    assert cut is not None and cut.synced == 0
    assert len(str(cut.to_document())) < 100_000
