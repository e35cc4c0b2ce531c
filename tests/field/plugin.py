"""`pytest -p tests.field.plugin -m field`: a run that was stopped goes on, and ends with a table of cases and engines.

What passed is kept in `--field-results` (a line of JSON a test, written as each ends) under the commit that it passed
on; with the same commit those tests are not run again. A changed file that is not committed counts as another commit.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.field.cases import CASES, OPEN


@dataclass
class Results:
    """Outcomes by test, and what each test shows."""

    path: Path
    commit: str
    outcomes: dict[str, str] = field(default_factory=dict)
    shows: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    def load(self) -> None:
        """Outcomes of this commit from before; others are dropped from the file."""
        lines = [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []
        self.outcomes = {line["test"]: line["outcome"] for line in lines if line["commit"] == self.commit}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("".join(self._line(test, outcome) for test, outcome in self.outcomes.items()))

    def add(self, test: str, outcome: str) -> None:
        """Keep the worst phase of a test."""
        worst = {"passed": 0, "skipped": 1, "failed": 2}
        self.outcomes[test] = max(self.outcomes.get(test, "passed"), outcome, key=worst.__getitem__)

    def write(self, test: str) -> None:
        """Append what a test ended with: a run that is killed keeps what is done."""
        with self.path.open("a") as file:
            file.write(self._line(test, self.outcomes[test]))

    def _line(self, test: str, outcome: str) -> str:
        return json.dumps({"commit": self.commit, "test": test, "outcome": outcome}) + "\n"

    def cell(self, case: str, engine: str) -> str:
        """What the table says of a case on an engine."""
        for one in CASES:
            if one.id == case and engine in one.elsewhere:
                return "cannot"
        tests = [test for test, shows in self.shows.items() if (case, engine) in shows]
        found = {self.outcomes.get(test, "not run") for test in tests}
        for word in ("failed", "skipped", "not run"):
            if word in found:
                return word
        return "passed" if found else ("open" if (case, engine) in OPEN else "not chosen")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--field-results", default=".field/results.jsonl", help="what passed, for the next run")


def pytest_configure(config: pytest.Config) -> None:
    results = Results(Path(config.getoption("--field-results")), _commit())
    results.load()
    config.stash[RESULTS] = results


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    results = config.stash[RESULTS]
    done = []
    for item in items:
        shows = [show for marker in item.iter_markers("field") for show in shown_by(item, marker)]
        if shows:
            results.shows[item.nodeid] = shows
        if results.outcomes.get(item.nodeid) == "passed":
            done.append(item)
        else:
            results.outcomes.pop(item.nodeid, None)
    if done:
        items[:] = [item for item in items if item not in done]
        config.hook.pytest_deselected(items=done)


def shown_by(item: pytest.Item, marker: pytest.Mark) -> list[tuple[str, str]]:
    """Case and engine of one test: that of its parameter, else all that the marker names."""
    case, *engines = (str(one) for one in marker.args)
    params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    own = params.get("engine")
    return [(case, engine) for engine in engines if own is None or engine == str(own)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    answer = yield
    results = item.config.stash[RESULTS]
    if item.nodeid in results.outcomes:
        results.write(item.nodeid)
    return answer


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report: pytest.TestReport = yield  # type: ignore[assignment]
    item.config.stash[RESULTS].add(item.nodeid, report.outcome)
    return report  # type: ignore[return-value]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A run with nothing left to do has passed."""
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and session.config.stash[RESULTS].outcomes:
        session.exitstatus = pytest.ExitCode.OK


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    results = config.stash[RESULTS]
    engines = ("mariadb", "mysql", "postgres")
    terminalreporter.section("field cases")
    terminalreporter.write_line(f"{'case':<12} " + " ".join(f"{engine:<10}" for engine in engines))
    for case in CASES:
        cells = " ".join(f"{results.cell(case.id, engine):<10}" for engine in engines)
        terminalreporter.write_line(f"{case.id:<12} {cells} {case.what}")


def _commit() -> str:
    """The commit with what differs from it; outside of a repository every run is a new one."""
    try:
        head, changes = (
            subprocess.run(["git", *words], capture_output=True, check=True).stdout
            for words in (["rev-parse", "HEAD"], ["diff", "HEAD"])
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.decode().strip() + ("-" + hashlib.sha256(changes).hexdigest()[:12] if changes else "")


RESULTS = pytest.StashKey[Results]()
