"""Waits grow, end at the longest, and keep within their jitter."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cdc_platform.model.backoff import Backoff


def test_each_wait_is_longer_by_the_factor_up_to_the_longest() -> None:
    waits = Backoff(first=2.0, factor=3.0, longest=50.0)
    assert [waits.wait(tries) for tries in (0, 1, 2, 3, 4, 5)] == [2.0, 2.0, 6.0, 18.0, 50.0, 50.0]


@given(tries=st.integers(0, 10**9), at=st.floats(0, 1, exclude_max=True))
def test_no_number_of_tries_leaves_the_bounds(tries: int, at: float) -> None:
    wait = Backoff(first=0.2, longest=10.0, jitter=0.5).wait(tries, at)
    assert 0.1 <= wait <= 15.0


def test_the_place_in_the_jitter_makes_a_wait_shorter_or_longer() -> None:
    waits = Backoff(first=10.0, longest=100.0, jitter=0.2)
    assert (waits.wait(1, at=0.0), waits.wait(1), waits.wait(1, at=0.75)) == (8.0, 10.0, 11.0)
