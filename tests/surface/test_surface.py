"""What users see is what is recorded."""

from __future__ import annotations

import importlib
import re

import pytest

from tests.surface.golden import FOLDER, difference
from tests.surface.packaging import ROOT
from tests.surface.recorded import NAMES, recorded

_IMPORT = re.compile(r"^from (cdc_platform[\w.]*) import (?:\(([^)]*)\)|(.+))$", re.M)


@pytest.mark.parametrize("name", NAMES)
def test_the_surface_is_as_recorded(name: str) -> None:
    told = difference(name, recorded(name))
    if told:
        pytest.fail(told, pytrace=False)


def test_every_file_is_compared() -> None:
    assert sorted(file.name for file in FOLDER.iterdir()) == NAMES


def test_docs_and_examples_import_what_is_there() -> None:
    files = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.py")]
    found = [match for file in files for match in _IMPORT.finditer(file.read_text())]
    assert found, "no import of cdc_platform in the docs: has the pattern gone stale?"
    for module, several, one in (match.groups() for match in found):
        names = re.findall(r"\w+", re.sub(r"#.*", "", several or one))
        there = importlib.import_module(module)
        assert [name for name in names if not hasattr(there, name)] == [], f"of {module}"
