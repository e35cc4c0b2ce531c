"""Workers lost, restarted and paused."""

from __future__ import annotations

import signal
import time
from datetime import UTC, datetime

import pytest

from cdc_platform.model.topology import Engine
from cdc_platform.verification.continuity.breaks import BreakKind
from cdc_platform.verification.duplicates.causes import Cause
from tests.engines import EACH_ENGINE
from tests.faults.conftest import MakeScenario
from tests.waiting import assert_eventually

pytestmark = [pytest.mark.stack, pytest.mark.slow]

# What the older task of two may go on for once its worker is awake again, seconds.
OVERLAP = 30.0


def test_faults_worker_killed_and_with_it_an_availability_zone(assert_recovery: MakeScenario) -> None:
    """One of three workers, each in a zone of its own; nobody starts it again before all events flow."""
    with assert_recovery("worker kill -9, an AZ (1 of 3 workers) gone", count=9, pause=0.05) as run:
        homes = [run.harness.home(shard) for shard in run.harness.shards]
        worker = max(set(homes), key=homes.count)
        assert worker is not None
        run.begin()
        run.harness.stack.kill(worker)
        begun = time.monotonic()
        assert_eventually(
            lambda: all(run.harness.home(shard) not in (None, worker) for shard in run.harness.shards),
            "all run elsewhere",
        )
        took = time.monotonic() - begun
        run.note = f"{homes.count(worker)} of {len(homes)} shards were on it; all tasks ran after {took:.1f} s"
        run.recovered()
        run.harness.stack.start(worker, timeout=180)


def test_faults_rolling_restart_of_all_workers(assert_recovery: MakeScenario) -> None:
    with assert_recovery("all workers restarted, one after another", count=6, pause=0.05) as run:
        stack = run.harness.stack
        for worker in stack.workers:
            stack.stop(worker)
            stack.start(worker, timeout=180)
        begun = time.monotonic()
        assert_eventually(lambda: all(run.harness.home(shard) for shard in run.harness.shards), "all tasks run")
        run.note = f"all tasks ran {time.monotonic() - begun:.1f} s after the last start"
        run.over()


def test_faults_worker_paused_and_woken(assert_recovery: MakeScenario) -> None:
    """Its tasks move away; when it wakes, it may write on for a moment: bounded, seen and blamed."""
    with assert_recovery("worker paused until its tasks moved, then woken") as run:
        shard = run.harness.shards[0]
        worker = assert_eventually(lambda: run.harness.home(shard), "a worker runs the task")
        run.begin()
        run.signal(worker, signal.SIGSTOP)
        try:
            assert_eventually(lambda: run.harness.home(shard) not in (None, worker), "another worker runs the task")
            run.recovered()
            run.hold(5)
        finally:
            woken = datetime.now(UTC)
            run.signal(worker, signal.SIGCONT)
        run.over()
        run.recovered()
        run.hold(10)
        zombies = [
            item
            for item in run.harness.blames(run.moved)
            if item.until >= woken and worker in (item.worker, item.worker_before)
        ]
        late = max(((item.until - woken).total_seconds() for item in zombies), default=0.0)
        assert late < OVERLAP, [item.sentence() for item in zombies]
        causes = sorted({str(item.cause) for item in zombies})
        run.note = f"after it woke: {sum(i.count for i in zombies)} copies within {late:.1f} s {causes}"
        assert {item.cause for item in zombies} <= {Cause.ZOMBIE, Cause.REDELIVERY}


@EACH_ENGINE
def test_faults_worker_killed_before_the_first_commit(assert_recovery: MakeScenario, engine: Engine) -> None:
    """Its task has sent events of the stream, and begins with a snapshot again: the ledger names what that skipped."""
    name = f"{engine}: worker killed before its task's first commit"
    with assert_recovery(name, engine=engine, count=1, early=True) as run:
        (shard,) = run.harness.shards
        worker = assert_eventually(lambda: run.harness.home(shard), "a worker runs the task")
        assert run.harness.offset(shard) == {}, "the kill comes too late to try anything"
        run.harness.stack.kill(worker)
        run.hold(5)
        run.over()
        run.recovered()
        run.harness.stack.start(worker, timeout=180)
        assert_eventually(lambda: run.harness.streams_from(shard), "an offset of the stream is committed")
        gaps = assert_eventually(lambda: run.harness.continuity().breaks, "the ledger names a break", 60)
        assert [gap.kind for gap in gaps] == [BreakKind.FROM_SCRATCH], gaps
        run.note = gaps[0].sentence()


def test_faults_control_plane_and_worker_lost_together(assert_recovery: MakeScenario) -> None:
    """The workers put it right by themselves; nobody passes meanwhile."""
    with assert_recovery("control plane and worker: kill -9 at once") as run:
        worker = assert_eventually(lambda: run.harness.home(run.harness.shards[0]), "a worker runs the task")
        run.begin()
        run.control_plane.kill()
        run.harness.stack.kill(worker)
        begun = time.monotonic()
        run.recovered()
        print(f"flowing again after {time.monotonic() - begun:.1f} s, without a control plane")
        run.harness.stack.start(worker, timeout=180)
        run.control_plane.start()
