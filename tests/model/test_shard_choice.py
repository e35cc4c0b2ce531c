"""Shards as people type them: ids, short ids, ranges, commas; nothing that does not exist is dropped."""

from __future__ import annotations

import pytest

from cdc_platform.errors import TopologyError
from cdc_platform.model.shard_choice import choose_ids

IDS = ("00000", "00001", "00002", "00009", "00010", "eu-000", "eu-001", "main")


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["00009"], ("00009",)),
        (["9"], ("00009",)),
        (["10", "00000"], ("00000", "00010")),
        (["0-2"], ("00000", "00001", "00002")),
        (["00000-00002"], ("00000", "00001", "00002")),
        (["9-00010"], ("00009", "00010")),
        (["0,2", "main"], ("00000", "00002", "main")),
        (["0,2,", "0"], ("00000", "00002")),
        (["eu-1"], ("eu-001",)),
        (["eu-0-eu-1"], ("eu-000", "eu-001")),
        (["eu-000-eu-001"], ("eu-000", "eu-001")),
        (["eu-001-main"], ("eu-001", "main")),
    ],
)
def test_ids_and_ranges_are_taken_as_typed(texts: list[str], found: tuple[str, ...]) -> None:
    assert choose_ids("pins", IDS, texts) == found


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("00003", ["'00003'", "topology show pins"]),
        ("00001-00004", ["'00003'", "'00004'"]),
        ("9-12", ["'00011'", "'00012'"]),
        ("10-9", ["'10-9'"]),
        ("eu-000-eu-002", ["'eu-002'"]),
        ("mian", ["'mian'", "Did you mean 'main'?"]),
        ("0,1,77", ["'77'"]),
        ("eu", ["'eu'"]),
        ("", ["''"]),
        (",", ["','"]),
    ],
)
def test_what_does_not_exist_is_named(text: str, named: list[str]) -> None:
    with pytest.raises(TopologyError) as refused:
        choose_ids("pins", IDS, [text])
    assert [part for part in named if part not in str(refused.value)] == []


def test_a_number_that_two_ids_end_in_is_none() -> None:
    assert choose_ids("pins", ["7", "007"], ["7"]) == ("7",)
    with pytest.raises(TopologyError, match="no shard '07'"):
        choose_ids("pins", ["7", "007"], ["07"])
