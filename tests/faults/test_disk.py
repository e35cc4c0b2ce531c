"""Disks that are full, below the broker and below the source.

Each of the two has a tmpfs of its own in the suite's stack, and not a byte is left on it. Where mounting is
not permitted, the process may make no file longer (RLIMIT_FSIZE): the same error at the same call.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.conftest import MakeScenario
from tests.faults.disk import full, is_small, no_longer_files
from tests.faults.scenario import Scenario

pytestmark = [pytest.mark.stack, pytest.mark.slow]


def test_faults_disk_full_under_the_broker(a_scenario: MakeScenario) -> None:
    """Kafka halts by itself when its only disk takes nothing; with space again it is started."""
    with a_scenario("disk full under the broker") as run:
        with filled(run, "kafka"):
            ended = run.site.stack.control.wait_ended("kafka", 60)
            run.hold(5)
        if not ended:
            run.site.stack.kill("kafka")
        run.note = f"{run.note}; the broker {'halted by itself' if ended else 'went on, and was killed'}"
        run.site.stack.start("kafka", timeout=180)
        run.over()


def test_faults_disk_full_under_the_source(a_scenario: MakeScenario) -> None:
    """MariaDB waits for space, and looks for it once a minute."""
    with a_scenario("disk full under MariaDB") as run:
        with filled(run, run.site.stack.mariadb[0]):
            run.hold(15)
        run.over()


@contextmanager
def filled(run: Scenario, service: str) -> Iterator[None]:
    """The service's disk takes nothing in this block."""
    place: Path = run.site.directory / service
    if is_small(place):
        run.note = "on a tmpfs"
        with full(place):
            yield
    else:
        run.note = "by RLIMIT_FSIZE"
        with no_longer_files(run.site.stack.pid(service)):
            yield
