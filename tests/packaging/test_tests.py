"""What holds for every test: it claims something that a reader can see."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]
CLAIMS = {"raises", "warns", "fail"}


def claims_something(test: ast.FunctionDef) -> bool:
    """An `assert`, a `pytest.raises`, or a call of a helper that is named `assert_...`."""
    for node in ast.walk(test):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            if name in CLAIMS or name.startswith("assert_"):
                return True
    return False


def without_a_claim(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and not claims_something(node):
            yield node.name


def test_every_test_shows_what_it_claims() -> None:
    silent = [f"{path.relative_to(TESTS)}: {name}" for path in sorted(TESTS.rglob("test_*.py"))
              for name in without_a_claim(path.read_text())]  # fmt: skip
    assert silent == []


def test_a_test_that_only_calls_something_is_found() -> None:
    source = "def test_a():\n    run()\ndef test_b():\n    x.assert_gone()\ndef test_c():\n    assert run()\n"
    assert list(without_a_claim(source)) == ["test_a"]


def modules_in_text(source: str) -> Iterator[str]:
    """Modules of ours that a program in a string imports, or that a command runs."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from re.findall(r"(?:from|-m) ((?:tests|cdc_platform|benchmarks)(?:\.\w+)+)", node.value)


def test_programs_in_strings_import_what_is_there() -> None:
    named = {module for path in TESTS.rglob("*.py") for module in modules_in_text(path.read_text())}
    assert len(named) > 5
    assert [module for module in sorted(named) if not _exists(module)] == []


def _exists(module: str) -> bool:
    path = TESTS.parent.joinpath(*module.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def test_each_room_s_harness_is_found_where_one_looks_for_it() -> None:
    classes = {
        str(path.relative_to(TESTS)): "class Harness" in path.read_text()
        for path in TESTS.rglob("*.py")
        if path.name == "harness.py" or re.search(r"^class Harness\b", path.read_text(), re.MULTILINE)
    }
    assert len(classes) > 10
    assert [path for path, has_one in classes.items() if not has_one or not path.endswith("/harness.py")] == []
