"""What the installed package offers: commands, entry points, extras, modules that are run or imported by name."""

from __future__ import annotations

import importlib
import importlib.util
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

# Named in the docs: run by `python -m`, by Dagster, or as a component's type.
_RUN = ("cdc_platform.agent", "cdc_platform.definitions", "cdc_platform.defs")


def package() -> dict[str, Any]:
    """Names only: where an entry point leads is the package's own affair, that it leads somewhere is not."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = {"console_scripts": project["scripts"], **project["entry-points"]}
    return {
        "name": project["name"],
        "python": project["requires-python"],
        "extras": sorted(project["optional-dependencies"]),
        "entry_points": {
            group: {name: _leads_somewhere(target) for name, target in found.items()} for group, found in groups.items()
        },
        "modules": {name: importlib.util.find_spec(name) is not None for name in _RUN},
    }


def _leads_somewhere(target: str) -> bool:
    module, _, attribute = target.partition(":")
    found = importlib.import_module(module)
    return not attribute or hasattr(found, attribute)
