"""Two control planes, the leader killed again and again: nothing lost, at most one call repeated."""

from __future__ import annotations

import pytest

from tests.control_plane.harness import Harness
from tests.control_plane.takeover import take_over

pytestmark = [pytest.mark.stack, pytest.mark.slow]


def test_control_plane_takes_over_from_a_killed_leader(harness: Harness) -> None:
    harness.add(4)
    harness.settle()
    found = list(take_over(harness, rounds=3))
    assert len(found) == 3
    for takeover in found:
        assert takeover.lock_free < 15.0 + 5.0
        assert takeover.next_pass < 90.0
        assert len(takeover.repeated) <= 1
        assert takeover.lost == ()
    harness.settle()
