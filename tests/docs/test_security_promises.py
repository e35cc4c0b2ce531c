"""Each promise of docs/security.md names tests, and they are there."""

from __future__ import annotations

import ast
import re

from tests.surface.packaging import ROOT

TEXT = (ROOT / "docs" / "security.md").read_text()
PROMISES = TEXT.partition("## Promises and their tests")[2].partition("\n## ")[0]


def test_the_roles_come_first() -> None:
    assert re.findall(r"^## (.+)", TEXT, re.MULTILINE)[0] == "Who may do what"


def test_each_promise_names_tests_that_are_there() -> None:
    rows = [line.split("|") for line in PROMISES.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 20
    for _, promise, tests, _ in rows:
        named = re.findall(r"`([^`]+)::(\w+)`", tests)
        assert named, promise
        for file, function in named:
            tree = ast.parse((ROOT / file).read_text())
            assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (
                promise,
                function,
            )
