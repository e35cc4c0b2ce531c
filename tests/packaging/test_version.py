"""The version stands in one place, and the changelog's newest heading is it."""

from __future__ import annotations

import re
import tomllib
from datetime import date
from pathlib import Path

import cdc_platform

ROOT = Path(__file__).parents[2]
_HEADING = re.compile(r"^## \[(?P<version>[^\]]+)\](?: - (?P<date>\S+))?$", re.MULTILINE)


def test_version_is_the_newest_heading_of_the_changelog() -> None:
    headings = [match.groupdict() for match in _HEADING.finditer((ROOT / "CHANGELOG.md").read_text())]
    assert headings[0] == {"version": "Unreleased", "date": None}
    newest = headings[1]
    assert newest["version"] == cdc_platform.__version__
    days = [date.fromisoformat(str(heading["date"])) for heading in headings[1:]]
    assert days == sorted(days, reverse=True)


def test_pyproject_takes_the_version_from_the_package() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in pyproject["project"]
    assert pyproject["project"]["dynamic"] == ["version"]
    assert ROOT / pyproject["tool"]["hatch"]["version"]["path"] == Path(cdc_platform.__file__)
