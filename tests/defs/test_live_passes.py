"""Which runs are alive: busy means that the lock is held."""

from __future__ import annotations

import time
from dataclasses import replace

import dagster as dg
import pytest

from cdc_platform.defs.live_passes import PassRun, Traffic, fail_dead, judge, unfinished_passes, wait_for_the_dead
from cdc_platform.defs.reconcile_job import build_cdc_jobs, run_tags
from cdc_platform.defs.run_kinds import RunOf

Status = dg.DagsterRunStatus


def run(status: Status, silent: float, run_id: str = "r1") -> PassRun:
    return PassRun(run_id=run_id, status=status, silent=silent)


def test_nothing_unfinished_and_a_free_lock_let_a_pass_start() -> None:
    assert judge([], holder=None).busy is None


def test_the_holder_of_the_lock_is_never_dead_however_silent() -> None:
    traffic = judge([run(Status.STARTED, 10_000)], holder="r1")
    assert traffic.dead == ()
    assert traffic.busy is not None and "r1" in traffic.busy


def test_a_lock_held_by_the_command_line_is_busy_too() -> None:
    assert "apply@host" in (judge([], holder="apply@host").busy or "")


def test_a_started_run_without_the_lock_that_went_silent_is_dead_and_blocks_nothing() -> None:
    traffic = judge([run(Status.STARTED, 60)], holder=None)
    assert [run_id for run_id, _ in traffic.dead] == ["r1"]
    assert traffic.busy is None
    assert "did not hold the lock" in traffic.dead[0][1]


def test_a_run_that_said_it_holds_the_lock_and_does_not_is_dead_after_a_moment() -> None:
    held = PassRun(run_id="r1", status=Status.STARTED, silent=11, held=True)
    assert [run_id for run_id, _ in judge([held], holder=None).dead] == ["r1"]
    ending = judge([replace(held, silent=1)], holder=None)
    assert ending.dead == ()
    assert ending.again is not None and ending.again < 10


def test_a_holder_and_a_silent_run_are_looked_at_again_others_are_not() -> None:
    assert judge([run(Status.STARTED, 10)], holder="r1").again is not None
    assert judge([run(Status.STARTED, 20)], holder=None).again == pytest.approx(15.1)
    assert judge([], holder="apply@host").again is None
    assert judge([run(Status.QUEUED, 20)], holder=None).again is None


def test_a_tick_waits_for_a_run_that_dies_within_its_time_and_no_longer() -> None:
    found = iter([Traffic(busy="silent", again=0.05), Traffic(busy="silent", again=0.05), Traffic(busy=None)])
    assert wait_for_the_dead(lambda: next(found), longest=5.0) == Traffic(busy=None)
    asked: list[int] = []

    def never() -> Traffic:
        asked.append(1)
        return Traffic(busy="silent", again=30.0)

    assert wait_for_the_dead(never, longest=5.0).busy == "silent"
    assert len(asked) == 1
    spoken = iter([Traffic(busy="holds", again=0.05, silent=7.0), Traffic(busy="holds", again=0.05, silent=0.5)])
    assert wait_for_the_dead(lambda: next(spoken), longest=5.0).silent == 0.5


def test_a_run_that_just_started_and_has_not_taken_the_lock_yet_is_alive() -> None:
    traffic = judge([run(Status.STARTED, 5)], holder=None)
    assert traffic.dead == ()
    assert traffic.busy == "Run r1 is STARTED."


@pytest.mark.parametrize("status", [Status.NOT_STARTED, Status.STARTING])
def test_a_run_may_wait_minutes_for_its_process(status: Status) -> None:
    assert judge([run(status, 200)], holder=None).dead == ()
    assert judge([run(status, 400)], holder=None).dead != ()


def test_a_queued_run_waits_however_long() -> None:
    traffic = judge([run(Status.QUEUED, 100_000)], holder=None)
    assert traffic.dead == ()
    assert traffic.busy is not None


def test_a_dead_run_beside_a_live_holder_is_failed_without_a_second_pass() -> None:
    traffic = judge([run(Status.STARTED, 100, "old"), run(Status.STARTED, 1, "new")], holder="new")
    assert [run_id for run_id, _ in traffic.dead] == ["old"]
    assert traffic.busy is not None and "new" in traffic.busy


def _unfinished(instance: dg.DagsterInstance, status: Status, platform: str = "cdc") -> str:
    job = build_cdc_jobs(platform=platform).reconcile
    return instance.create_run_for_job(job, status=status, tags=run_tags(platform)).run_id


def test_a_run_left_started_by_kill_9_is_failed_with_the_reason(instance: dg.DagsterInstance) -> None:
    run_id = _unfinished(instance, Status.STARTED)
    found = unfinished_passes(instance, kind=RunOf.RECONCILE, platform="cdc", now=time.time() + 60)
    assert [(one.run_id, one.status) for one in found] == [(run_id, Status.STARTED)]
    traffic = judge(found, holder=None)
    fail_dead(instance, traffic.dead)
    ended = instance.get_run_by_id(run_id)
    assert ended is not None and ended.status is Status.FAILURE
    assert any("its process died" in (event.message or "") for event in instance.all_logs(run_id))
    assert unfinished_passes(instance, kind=RunOf.RECONCILE, platform="cdc") == ()


def test_a_run_that_was_being_cancelled_ends_cancelled(instance: dg.DagsterInstance) -> None:
    run_id = _unfinished(instance, Status.CANCELING)
    found = unfinished_passes(instance, kind=RunOf.RECONCILE, platform="cdc", now=time.time() + 60)
    fail_dead(instance, judge(found, holder=None).dead)
    ended = instance.get_run_by_id(run_id)
    assert ended is not None and ended.status is Status.CANCELED


def test_events_keep_a_run_alive(instance: dg.DagsterInstance) -> None:
    run_id = _unfinished(instance, Status.STARTED)
    run_of = instance.get_run_by_id(run_id)
    assert run_of is not None
    instance.report_engine_event("still here", run_of)
    found = unfinished_passes(instance, kind=RunOf.RECONCILE, platform="cdc")
    assert found[0].silent < 5


def test_passes_of_another_platform_are_not_ours(instance: dg.DagsterInstance) -> None:
    _unfinished(instance, Status.STARTED, platform="eu")
    assert unfinished_passes(instance, kind=RunOf.RECONCILE, platform="cdc") == ()
