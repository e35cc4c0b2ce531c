"""The floors of pyproject.toml name every room; lint-imports then holds the imports to them."""

from __future__ import annotations

import pkgutil
import tomllib
from pathlib import Path
from typing import Any

import cdc_platform

ROOT = Path(__file__).parents[2]
ROOMS = {module.name for module in pkgutil.iter_modules(cdc_platform.__path__)}


def contract(kind: str) -> dict[str, Any]:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (found,) = [contract for contract in contracts if contract["type"] == kind]
    return dict(found)


def test_every_room_but_defs_and_definitions_is_kept_from_dagster() -> None:
    kept_from_it = {name.removeprefix("cdc_platform.") for name in contract("forbidden")["source_modules"]}
    assert kept_from_it == ROOMS - {"defs", "definitions"}


def test_every_room_has_one_floor_and_siblings_do_not_import_each_other() -> None:
    floors = contract("layers")["layers"]
    assert not any(":" in floor for floor in floors)  # `a : b` would let them
    named = [room.strip() for floor in floors for room in floor.split("|")]
    assert sorted(named) == sorted(ROOMS)


def test_no_file_of_the_package_passes_400_lines() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in (ROOT / "cdc_platform").rglob("*.py")}
    assert len(lengths) > 300
    assert {str(path): lines for path, lines in lengths.items() if lines > 400} == {}
