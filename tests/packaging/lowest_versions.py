"""Prints the oldest versions that pyproject.toml allows, as constraints for pip: `make lowest` installs them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def floors() -> Iterator[str]:
    """`name==version` for each requirement of the package and of its extras that has a lower bound."""
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    for text in [
        *project["dependencies"],
        *(text for each in project["optional-dependencies"].values() for text in each),
    ]:
        found = re.match(r"([A-Za-z0-9-]+)(?:\[[a-z]+\])?>=([0-9.]+)", text)
        if found:
            yield f"{found[1]}=={found[2]}"


if __name__ == "__main__":
    print("\n".join(sorted(set(floors()))))
