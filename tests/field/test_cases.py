"""Each field case has a test on each engine, or a line that says why this platform cannot have it there."""

from __future__ import annotations

from tests.field.cases import CASES, OPEN, Kind
from tests.field.markers import shown
from tests.surface.packaging import ROOT

SHOWN = shown()


def test_each_case_is_shown_on_each_engine_or_excused() -> None:
    wanted = {(case.id, engine) for case in CASES for engine in case.engines}
    has = {(one.case, engine) for one in SHOWN for engine in one.engines}
    assert has - wanted == set(), "shown, and not in the list or excused there"
    assert wanted - has == OPEN


def test_each_excuse_stands_in_the_documents() -> None:
    for case in CASES:
        for engine, excuse in case.elsewhere.items():
            assert excuse.words in (ROOT / "docs" / excuse.page).read_text(), (case.id, engine)


def test_each_kind_has_a_test_that_is_not_slow() -> None:
    kinds = {case.id: case.kind for case in CASES}
    wanted = {kinds[one.case] for one in SHOWN}
    assert {kinds[one.case] for one in SHOWN if not one.slow} == wanted <= set(Kind)
