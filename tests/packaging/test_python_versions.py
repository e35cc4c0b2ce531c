"""The oldest Python that pyproject.toml promises can install what is pinned."""

from __future__ import annotations

import tomllib
from importlib.metadata import distributions
from pathlib import Path

from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[2]


def test_each_pin_takes_the_oldest_python_that_is_promised() -> None:
    """pymdown-extensions 13 asks for 3.11.5; Debian 12 has 3.11.2."""
    promised = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    oldest = promised.removeprefix(">=") + ".0"
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    pins = {line.partition("==")[0].lower(): line.partition("==")[2] for line in lines}
    installed = {one.metadata["Name"].lower(): one for one in distributions()}
    judged = {name: one for name, one in installed.items() if pins.get(name) == one.version}
    assert len(judged) > len(pins) / 2, "too few of the pins are installed to judge them"
    refused = [
        f"{name} {one.version}: {one.metadata['Requires-Python']}"
        for name, one in judged.items()
        if "Requires-Python" in one.metadata and not SpecifierSet(one.metadata["Requires-Python"]).contains(oldest)
    ]
    assert not refused
