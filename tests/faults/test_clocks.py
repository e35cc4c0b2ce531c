"""Clocks that are wrong: a worker's, the source's, the control plane's."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from cdc_platform.local.stack import Stack
from tests.faults.clocks import skew, skewed
from tests.faults.conftest import MakeScenario

pytestmark = [pytest.mark.stack, pytest.mark.slow]

HOUR = 3600


def test_faults_clocks_are_hours_apart(assert_recovery: MakeScenario, stack: Stack, tmp_path: Path) -> None:
    """Nothing is lost, nobody is taken for stuck, and no pass undoes another's work; the proof goes by positions."""
    ahead, behind = skew(tmp_path, HOUR), skew(tmp_path, -HOUR)
    name = "clocks: worker 1 h ahead, source 2 h ahead, control plane from 1 h behind to 1 h ahead"
    with (
        skewed(stack, stack.workers[0], ahead),
        assert_recovery(name, setup=f"SET timestamp = UNIX_TIMESTAMP() + {2 * HOUR}", count=3) as run,
    ):
        date = httpx.get(f"{stack.connect_urls[0]}/", timeout=10).headers.get("Date", "")
        run.note = f"the worker's own date is {date}"
        run.control_plane.kill()
        run.control_plane.start(behind)
        run.hold(15)
        run.control_plane.kill()
        told = run.control_plane.told()
        run.control_plane.start(ahead)
        run.hold(15)
        run.over()
        later = run.control_plane.told().removeprefix(told)
        run.control_plane.kill()
        run.control_plane.start()
        assert "Restart connector" not in later, later
