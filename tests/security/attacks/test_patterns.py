"""A dataset's regular expressions: what could take long is refused by name, and what is taken does not."""

from __future__ import annotations

import re
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc_platform.connectors.column_lists import captured_columns
from cdc_platform.connectors.overrides import check_dataset
from cdc_platform.connectors.patterns import refused_pattern
from cdc_platform.errors import OverrideRefused
from tests.connectors.cases import ORDERS, ORDERS_2, PLAIN


@pytest.mark.parametrize(
    "pattern",
    [
        "(.+)+!",
        "(a|a)*!",
        "(a*)*b",
        "((a?)+)+b",
        "(.*a){12}!",
        "a?" * 30 + "a" * 30,
        "(a|a)" * 40 + "!",
        ".*.*.*.*.*!",
        "(?:.|.)*!",
        r"(.*)\1",
        "(?i)x",
        "((",
        "[",
        "x{3,2}",
        "(" * 2000 + ")" * 2000,
        r"\Qa\E",
    ],
)
def test_patterns_that_could_take_long_are_refused(pattern: str) -> None:
    bad = replace(ORDERS, connector={"column.include.list": f"public.t.a,{pattern}"})
    with pytest.raises(OverrideRefused, match=r"column\.include\.list"):
        check_dataset(bad, PLAIN)
    with pytest.raises(OverrideRefused, match=r"column\.include\.list"):
        captured_columns(bad, ORDERS_2, bad.tables[0])


@pytest.mark.parametrize(
    "pattern",
    [
        r"inventory\.customers\.(email|phone)",
        "public.orders.secret",
        r".*\.customers\..*_(token|secret)",
        r"(db_\d+|archive)\.[a-z_]+\.name",
        r"^(?!public\.audit).*$",
        r"[^.]+\.[^.]+\.(a|b|c)?",
        "größe.*",
        "(ab)*x{2}",
    ],
)
def test_patterns_of_names_are_taken(pattern: str) -> None:
    assert refused_pattern(pattern) is None


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(["a", ".", ".*", "a+", "(", ")", "|", "?", "*", "+", "{2,9}", "[ab]", "(?:"]), max_size=14)
)
def test_what_is_taken_does_not_take_long(parts: list[str]) -> None:
    pattern = "".join(parts)
    if refused_pattern(pattern) is None:
        begun = time.process_time()
        re.compile(pattern, re.IGNORECASE).fullmatch("a" * 190 + "!")
        assert time.process_time() - begun < 5
