"""Names of shards and lists of names."""

from __future__ import annotations

import pytest

from cdc_platform.model.naming import ShardName, some_of


@pytest.mark.parametrize(
    ("names", "most", "text"),
    [([], 2, ""), (["a"], 2, "a"), (["a", "b"], 2, "a, b"), (["a", "b", "c", "d"], 2, "a, b and 2 more")],
)
def test_a_long_list_ends_with_how_many_are_left_out(names: list[str], most: int, text: str) -> None:
    assert some_of(names, most) == text


def test_a_list_that_is_cut_already_counts_the_whole() -> None:
    assert some_of(["a", "b"], 2, total=9) == "a, b and 7 more"
    assert some_of(["a", "b"], 5, total=2) == "a, b"


@pytest.mark.parametrize(("text", "parts"), [("pins.0007", ("pins", "0007")), ("pins.a.b", ("pins", "a.b"))])
def test_a_shard_name_is_read_up_to_its_first_dot(text: str, parts: tuple[str, str]) -> None:
    name = ShardName.parse(text)
    assert name == parts
    assert str(name) == text
