"""The cache's files stay in the cache, and nothing else is ever removed."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cdc_platform.verification.storage.cache import cache_path, remove, remove_others

ids = st.binary(min_size=16, max_size=16).map(lambda raw: base64.b64encode(raw).decode().rstrip("="))
names = st.one_of(ids, st.text(max_size=300), st.sampled_from(["", ".", "..", "/", "//", "/etc", "a/../../b", "%2e"]))
CACHE = Path("/nowhere/cache")


@given(st.lists(names, min_size=1, max_size=5))
@example(["/ag0KwkHRpCjR8BOrx+i4Q"])
@example(["folds", "..", "..", ".."])
def test_any_names_are_a_place_in_the_cache_one_part_each(parts: list[str]) -> None:
    found = cache_path(CACHE, *parts)
    assert len(found.parts) == len(CACHE.parts) + len(parts)
    assert os.path.normpath(found) == str(found)
    assert CACHE in found.parents
    assert all(len(os.fsencode(part)) <= 255 for part in found.parts)


@given(names, names)
@example("a/b", "a_b")
@example("a/b", "a%2fb")
@example("", ".")
def test_different_names_have_different_places(one: str, other: str) -> None:
    assert (cache_path(CACHE, one) == cache_path(CACHE, other)) == (one == other)


def test_an_ordinary_name_stays_readable() -> None:
    assert cache_path(CACHE, "folds", "cdc.pins.pins") == CACHE / "folds" / "cdc.pins.pins"


def test_nothing_outside_the_cache_is_removed(tmp_path: Path) -> None:
    cache, outside = tmp_path / "cache", tmp_path / "outside"
    for directory in (cache / "folds" / "t", outside):
        directory.mkdir(parents=True)
        (directory / "file").write_text("x")
    (cache / "link").symlink_to(outside, target_is_directory=True)
    for path in (tmp_path, cache, outside, cache / ".." / "outside", cache / "link", Path("/nowhere")):
        with pytest.raises(ValueError, match="is not in the cache"):
            remove(cache, path)
    with pytest.raises(ValueError, match="is not in the cache"):
        remove_others(cache, cache)  # its neighbours are somebody else's
    assert (outside / "file").read_text() == "x"
    assert (cache / "folds" / "t" / "file").read_text() == "x"
    remove(cache, cache / "folds" / "t")
    remove(cache, cache / "folds" / "t")
    assert list((cache / "folds").iterdir()) == []


def test_only_idle_neighbours_are_removed(tmp_path: Path) -> None:
    kept, fresh, idle = (tmp_path / "folds" / name for name in ("kept", "fresh", "idle"))
    for directory in (kept, fresh, idle):
        directory.mkdir(parents=True)
    os.utime(idle, (0, 0))
    remove_others(tmp_path, kept, idle_s=3600)
    assert kept.exists() and fresh.exists() and not idle.exists()
    remove_others(tmp_path, kept)
    assert kept.exists() and not fresh.exists()
