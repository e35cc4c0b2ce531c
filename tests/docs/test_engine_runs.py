"""docs/connectors.md says what the tests recorded of engines and servers, and no more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from cdc_platform.model.topology import Engine
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


def test_each_mariadb_test_has_a_mysql_beside_it_or_its_reason_on_the_page(request: pytest.FixtureRequest) -> None:
    """Of the files that were collected with this one: all of them, in a run of all tests."""
    collected = request.config.stash[engine_runs.COLLECTED]
    alone = {name for name, engines in collected.items() if Engine.MARIADB in engines and Engine.MYSQL not in engines}
    assert alone <= engine_runs.WHY.keys(), "parametrize them over MySQL, or say in tests/engine_runs.py why not"
    files = {name.partition("::")[0] for name in collected}
    assert {name for name in engine_runs.WHY if name.partition("::")[0] in files} <= alone
    page = engine_runs.PAGE.read_text()
    assert all(f"| `{name}` | {why} |" in page for name, why in engine_runs.WHY.items())


def test_a_runs_report_tells_the_engine_of_each_test_on_a_stack(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("""
import pytest
from cdc_platform.model.topology import Engine

@pytest.mark.stack
@pytest.mark.parametrize("engine", list(Engine), ids=str)
def test_by_parameter(engine): assert engine is not Engine.POSTGRES

@pytest.mark.stack
def test_mysql_by_name(): ...

@pytest.mark.stack
def test_of_none(): ...

def test_mysql_without_a_stack(): ...
""")
    root = Path(engine_runs.__file__).parents[1]
    report = tmp_path / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.engine_runs", f"--junitxml={report}"]
    command += [f"--rootdir={root}", "-c", str(root / "pyproject.toml"), "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert "1 failed, 5 passed" in done.stdout, done.stdout + done.stderr
    told = {
        test.get("name"): [one.get("value") for one in test.iter("property")]
        for test in ElementTree.parse(report).iter("testcase")
    }
    assert told == {
        "test_by_parameter[mariadb]": ["mariadb"],
        "test_by_parameter[mysql]": ["mysql"],
        "test_by_parameter[postgres]": ["postgres"],
        "test_mysql_by_name": ["mysql"],
        "test_of_none": [],
        "test_mysql_without_a_stack": [],
    }
    compared = subprocess.run(
        [sys.executable, root / ".ci/compare_engines.py", report], capture_output=True, text=True, check=False
    )
    assert (compared.returncode, compared.stdout) == (0, "MySQL passed 2 of MariaDB's 1 (200.0%)\n")
