"""Which tests show which field cases: read from the sources, without importing them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cdc_platform.model.topology import Engine

TESTS = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Shown:
    """A test function that shows a case on some engines."""

    case: str
    engines: tuple[Engine, ...]
    test: str
    slow: bool


def shown() -> list[Shown]:
    """Every marker `field` of the tests, by file and place."""
    return [found for path in sorted(TESTS.rglob("test_*.py")) if "field(" in path.read_text() for found in _of(path)]


def _of(path: Path) -> Iterator[Shown]:
    tree = ast.parse(path.read_text())
    all_slow = any(
        isinstance(node, ast.Assign)
        and ast.unparse(node.targets[0]) == "pytestmark"
        and "mark.slow" in ast.unparse(node)
        for node in tree.body
    )
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef):
            continue
        decorators = [ast.unparse(one) for one in node.decorator_list]
        # A parameter that is slow does not make its test so.
        slow = all_slow or "pytest.mark.slow" in decorators
        for decorator in node.decorator_list:
            for call in ast.walk(decorator):
                if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.field":
                    case, *engines = (_text(one) for one in call.args)
                    yield Shown(case, tuple(Engine(one) for one in engines), f"{path.name}::{node.name}", slow)


def _text(node: ast.expr) -> str:
    """A literal, or a member of Engine."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    assert isinstance(node, ast.Attribute), ast.unparse(node)
    return Engine[node.attr]
