"""docs/connectors.md says what the tests recorded of engines and servers, and no more."""

from __future__ import annotations

import pytest

from tests import engine_runs


def one(engine: str, version: str, outcome: str = "passed") -> dict[str, str]:
    return {"engine": engine, "version": version, "outcome": outcome}


RECORD = {
    "tests/a.py::test_x[mariadb]": one("mariadb", "11.4.5"),
    "tests/a.py::test_x[mysql]": one("mysql", "9.7.4"),
    "tests/a.py::test_y[0-run-mariadb-at-0.5]": one("mariadb", "11.4.5"),
    "tests/a.py::test_z[mariadb]": one("mariadb", "11.4.5"),
    "tests/a.py::test_z[mysql]": one("mysql", "9.7.4", "failed"),
}


def test_the_page_is_what_was_recorded() -> None:
    page = engine_runs.PAGE.read_text()
    assert page == engine_runs.written(page, engine_runs.recorded()), "python -m tests.engine_runs"


def test_what_passed_where_and_what_did_not_is_said() -> None:
    text = engine_runs.part(RECORD)
    assert "MariaDB 11.4.5: 3 | 0 | 10.6, 10.11, 11.8 |" in text
    assert "MySQL 9.7.4: 1 | 1 | 8.0, 8.4, Aurora |" in text
    assert "| none | 0 | 13, 14, 15, 16, 17, 18 |" in text
    assert engine_runs.lacking(RECORD) == {
        "tests/a.py::test_y[0-run-*-at-0.5]": "not run",
        "tests/a.py::test_z[*]": "fails",
    }
    assert "2 of MariaDB's have not passed on MySQL." in text


@pytest.mark.parametrize("value", [["a list"], {"a": "dict"}], ids=["list", "dict"])
def test_a_test_whose_parameter_cannot_be_hashed_has_no_engine(value: object, request: pytest.FixtureRequest) -> None:
    assert value and engine_runs.engine_of(request.node) is None


def test_each_reason_on_the_page_is_for_a_test_that_is_lacking() -> None:
    assert engine_runs.WHY.keys() <= engine_runs.lacking(engine_runs.recorded()).keys()
