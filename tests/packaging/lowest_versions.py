"""Prints the oldest versions that pyproject.toml allows, as constraints for pip: `make lowest` installs them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def lowest_versions() -> Iterator[str]:
    """`name==version` for what users install: the package and the extras that run beside it. Tools are free."""
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    extras = [text for name in ("alerts", "local", "quotas") for text in project["optional-dependencies"][name]]
    for text in [*project["dependencies"], *extras]:
        found = re.match(r"([A-Za-z0-9-]+)(?:\[[a-z]+\])?>=([0-9.]+)", text)
        if found is None:
            raise ValueError(f"{text!r} has no lower bound")
        yield f"{found[1]}=={found[2]}"


if __name__ == "__main__":
    print("\n".join(sorted(lowest_versions())))
