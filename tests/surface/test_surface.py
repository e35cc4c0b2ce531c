"""What users see is what is recorded."""

from __future__ import annotations

import pytest

from tests.surface.golden import FOLDER, difference
from tests.surface.recorded import NAMES, recorded


@pytest.mark.parametrize("name", NAMES)
def test_the_surface_is_as_recorded(name: str) -> None:
    told = difference(name, recorded(name))
    if told:
        pytest.fail(told, pytrace=False)


def test_every_file_is_compared() -> None:
    assert sorted(file.name for file in FOLDER.iterdir()) == NAMES
