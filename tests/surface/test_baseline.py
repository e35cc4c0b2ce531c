"""Every test of the baseline is still there, under the name that baseline/moves.json says, or says there why not."""

from __future__ import annotations

import ast
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.surface.packaging import ROOT
from tests.surface.room_coverage import baseline, shares

FOLDER = Path(__file__).parent / "baseline"
TESTS: dict[str, dict[str, Any]] = json.loads((FOLDER / "tests.json").read_text())
MOVES: dict[str, dict[str, str]] = json.loads((FOLDER / "moves.json").read_text())


@functools.cache
def functions(file: str) -> frozenset[str]:
    """The test functions of a file, by parsing it: to collect all tests takes too long for each run."""
    path = ROOT / file
    if not path.exists():
        return frozenset()
    return frozenset(node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef))


def of_now(file: str, function: str) -> str:
    """Where a test of then is now, as `file::function`."""
    old = f"{file}::{function}"
    return MOVES["functions"].get(old) or f"{MOVES['files'].get(file, file)}::{function}"


def lost(file: str) -> Iterator[str]:
    for function in TESTS[file]:
        if f"{file}::{function}" in MOVES["gone"] or file in MOVES["gone"]:
            continue
        new_file, _, new_function = of_now(file, function).partition("::")
        if new_function not in functions(new_file):
            yield f"{file}::{function} is not in {new_file} as {new_function}"


@pytest.mark.parametrize("file", TESTS)
def test_each_test_of_then_is_there_or_says_why_it_went(file: str) -> None:
    missing = list(lost(file))
    if missing:
        pytest.fail("\n".join([*missing, "Add a line to tests/surface/baseline/moves.json."]), pytrace=False)


def test_moves_speak_of_tests_that_there_were() -> None:
    old = {f"{file}::{function}" for file, found in TESTS.items() for function in found}
    assert set(MOVES) == {"files", "functions", "gone", "parameters"}
    assert set(MOVES["files"]) <= set(TESTS)
    assert set(MOVES["functions"]) <= old
    assert set(MOVES["gone"]) <= old | set(TESTS)
    assert set(MOVES["parameters"]) <= old
    assert not set(MOVES["gone"]) & set(MOVES["functions"])
    assert all(len(why) > 20 for why in (*MOVES["gone"].values(), *MOVES["parameters"].values()))


def test_no_id_was_lost_in_the_recording() -> None:
    ends: dict[str, int] = {}
    for found in TESTS.values():
        for outcome in found.values():
            by = {outcome: None} if isinstance(outcome, str) else outcome
            for end, parameters in by.items():
                ends[end] = ends.get(end, 0) + len(parameters or [None])
    assert ends == {"passed": 1772, "slow": 250, "error": 3, "skipped": 1, "failure": 1}


def test_rooms_are_compared_by_lines_and_branches() -> None:
    assert shares([("a", 1, 2), ("a", 2, 2), ("b", 0, 0), ("c", 1, 3)]) == {"a": 75.0, "c": 33.3}
    assert baseline()["reconciler"] == 91.6
