"""Disks that are full, below the broker and below the source.

Each of the two has a tmpfs of its own in the suite's stack, and not a byte is left on it. Where mounting is
not permitted, the process may make no file longer (RLIMIT_FSIZE): the same error at the same call.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.conftest import MakeScenario
from tests.faults.disk import full, is_small, no_longer_files
from tests.faults.scenario import Scenario

pytestmark = [pytest.mark.stack, pytest.mark.slow]

# MariaDB says that it does once a minute, seconds.
LOOKS_AGAIN = 75.0


def test_faults_disk_full_under_the_broker(assert_recovery: MakeScenario) -> None:
    """Kafka halts by itself when its only disk takes nothing; with space again it is started."""
    with assert_recovery("disk full under the broker") as run:
        with filled(run, "kafka"):
            ended = run.harness.stack.control.wait_ended("kafka", 60)
            run.hold(5)
        if not ended:
            run.harness.stack.kill("kafka")
        run.note = f"{run.note}; the broker {'halted by itself' if ended else 'went on, and was killed'}"
        run.harness.stack.start("kafka", timeout=180)
        run.over()


def test_faults_disk_full_under_the_source(assert_recovery: MakeScenario) -> None:
    """MariaDB waits for space and looks for it once a minute; 11.4.5 was seen to wait on, holding its binlog's lock.

    Where it may make no file longer it ends: InnoDB cannot go on without its log.
    """
    with assert_recovery("disk full under MariaDB") as run:
        service = run.harness.stack.mariadb[0]
        with filled(run, service):
            ended = run.harness.stack.control.wait_ended(service, 15)
        if ended:
            run.note += "; the server ended by itself, and was started"
            run.harness.stack.start(service, timeout=120)
        at, end = len(run.writers.committed), time.monotonic() + LOOKS_AGAIN
        while len(run.writers.committed) < at + 5 and time.monotonic() < end:
            time.sleep(0.5)
        if len(run.writers.committed) < at + 5:
            run.note += f"; writes hung for {LOOKS_AGAIN:.0f} s more, and the server was killed and started"
            run.harness.stack.kill(service)
            run.harness.stack.start(service, timeout=120)
        run.over()


@contextmanager
def filled(run: Scenario, service: str) -> Iterator[None]:
    """The service's disk takes nothing in this block."""
    place: Path = run.harness.directory / service
    if is_small(place):
        run.note = "on a tmpfs"
        with full(place):
            yield
    else:
        run.note = "by RLIMIT_FSIZE"
        with no_longer_files(run.harness.stack.pid(service)):
            yield
