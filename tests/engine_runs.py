"""Which tests ran on which server of which engine: recorded by the tests, told by docs/connectors.md.

With CDC_RECORD_ENGINES=1 a run of tests writes what passed and what did not into engine_runs.json beside this file;
`python -m tests.engine_runs` then writes the page's part anew. A test holds that both agree. A run's JUnit report has
the engine of each such test as a property, which .ci/compare_engines.py counts.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest

from cdc_platform.local.artifacts import Lock
from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import Engine

RECORD_ENV = "CDC_RECORD_ENGINES"
RECORD = Path(__file__).with_name("engine_runs.json")
PAGE = Path(__file__).parents[1] / "docs" / "connectors.md"
BEGIN = "<!-- python -m tests.engine_runs -->"
END = "<!-- end -->"

NAMES = {Engine.MARIADB: "MariaDB", Engine.MYSQL: "MySQL", Engine.POSTGRES: "Postgres"}
# Releases that are in use; those of which no server ran are named.
IN_USE = {
    Engine.MARIADB: ("10.6", "10.11", "11.4", "11.8"),
    Engine.MYSQL: ("8.0", "8.4", "9.7", "Aurora"),
    Engine.POSTGRES: ("13", "14", "15", "16", "17", "18"),
}
# Why a test of MariaDB has no MySQL beside it, by its name with `*` for the engine. All are on the page.
_DRAWN = "each point is drawn for one engine; MySQL has points of its own"
WHY: dict[str, str] = {
    "tests/failover/test_failover_stack.py::test_*_failover_waits_for_a_replica_that_is_behind_and_for_the_whole_"
    "promotion": "MySQL's failover has a test of its own, by GTID sets: tests/failover/test_mysql_failover_stack.py",
    "tests/verification/proof/test_completeness_histories.py::test_completeness_of_what_*_captures_wrongly_is_named_"
    "and_of_early_years_proven": "types and years that MariaDB alone has; MySQL's are in its type torture",
    "tests/local/demo/test_writers.py::test_demo_writers_outlive_a_restart_of_their_database[*]": "the demo's writers "
    "on MySQL are those on MariaDB, by one driver; they did not run over a restart of it",
    "tests/snapshots/test_schema_changes.py::test_ddl_of_the_application_waits_for_no_chunk_that_failed_was_paused_or_"
    "lost_its_task[*]": "does not hold on MySQL: Debezium sleeps in the transaction of a chunk, and DDL waits for it "
    "([bootstrap](bootstrap.md#schema-changes))",
    **{
        f"tests/snapshots/test_backfill_kills.py::test_backfill_goes_on_after_a_kill[{point}]": _DRAWN
        for point in ("0-run-*-at-0.56", "5-dagster-*-at-0.81", "7-worker-*-at-0.49", "9-run-*-at-0.25")
    },
}

COLLECTED = pytest.StashKey[dict[str, set[Engine]]]()

Record = dict[str, dict[str, str]]

_versions: dict[Engine, str] = {}
_seen: Record = {}


def note_servers(stack: Stack) -> None:
    """Remember which servers these are, where tests are recorded."""
    if not os.environ.get(RECORD_ENV):
        return
    for engine in Engine:
        if stack.servers(engine):
            _versions[engine] = _version(stack, engine)


def _version(stack: Stack, engine: Engine) -> str:
    login, at = stack.admin(engine), stack.primary(engine)
    connection: Any
    if engine.reads_binlog:
        connection = pymysql.connect(host=at.host, port=at.port, user=login.user, password=login.password)
    else:
        connection = psycopg.connect(
            host=at.host, port=at.port, user=login.user, password=login.password, dbname="postgres"
        )
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT VERSION()")
        (told,) = cursor.fetchone()
    return str(re.findall(r"\d+(?:\.\d+)+", str(told))[0])


def engine_of(item: pytest.Item) -> Engine | None:
    """The engine that a test has for a parameter, itself or within one; else the one that its function is named for."""
    params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    # A list, for not every parameter can be hashed.
    found = [getattr(value, "engine", value) for value in params.values()]
    engines = [engine for engine in Engine if any(one is engine for one in found)]
    engines = engines or [engine for engine in Engine if engine in item.name.partition("[")[0].split("_")]
    return engines[0] if engines else None


def note_collected(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Remember which tests there are of which engine, also of those that will not run."""
    found = config.stash.setdefault(COLLECTED, {})
    for item in items:
        engine = engine_of(item) if item.get_closest_marker("stack") else None
        if engine is not None:
            found.setdefault(bare(item.nodeid, engine), set()).add(engine)


def bare(name: str, engine: str) -> str:
    """A test's name with `*` for its engine: the same for all of its engines."""
    return re.sub(rf"(?<![a-zA-Z0-9]){engine}(?![a-zA-Z0-9])", "*", name)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """The worst of a test's phases is its outcome."""
    report = yield
    engine = engine_of(item) if item.get_closest_marker("stack") else None
    if engine is None:
        return report
    if report.when == "setup":  # type: ignore[attr-defined]
        item.user_properties.append(("engine", engine.value))
        report.user_properties = list(item.user_properties)  # type: ignore[attr-defined]
    if os.environ.get(RECORD_ENV):
        order = ("passed", "skipped", "failed")
        outcome = str(report.outcome)  # type: ignore[attr-defined]
        before = _seen.get(item.nodeid, {}).get("outcome", "passed")
        _seen[item.nodeid] = {
            "engine": engine.value,
            "version": _versions.get(engine, ""),
            "outcome": max(before, outcome, key=order.index),
        }
    return report


def pytest_sessionfinish() -> None:
    """Add what ran to what is on record."""
    if os.environ.get(RECORD_ENV) and _seen:
        ran = {name: one for name, one in _seen.items() if one["version"]}
        RECORD.write_text(json.dumps(dict(sorted((recorded() | ran).items())), indent=1) + "\n")


def recorded() -> Record:
    """Test to engine, version and outcome."""
    found: Record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    return found


def part(record: Record) -> str:
    """What the page says of these."""
    lines = [
        "| engine | plugin | tests that passed, by server | not passed | never run |",
        "|---|---|---|---|---|",
    ]
    for engine in Engine:
        own = [one for one in record.values() if one["engine"] == engine]
        passed: dict[str, int] = {}
        for one in own:
            if one["outcome"] == "passed":
                passed[one["version"]] = passed.get(one["version"], 0) + 1
        ran = ", ".join(f"{NAMES[engine]} {version}: {count}" for version, count in sorted(passed.items()))
        never = [name for name in IN_USE[engine] if not any(f"{version}.".startswith(f"{name}.") for version in passed)]
        rest = sum(one["outcome"] != "passed" for one in own)
        lines.append(f"| {NAMES[engine]} | {_plugin(engine)} | {ran or 'none'} | {rest} | {', '.join(never)} |")
    missing = {name: why for name, why in lacking(record).items() if name not in WHY}
    said = (
        f"{len(missing)} of MariaDB's have not passed on MySQL" if missing else "all of MariaDB's passed on MySQL too"
    )
    lines += [
        "",
        f"Counted are tests on a real stack that have the engine for a parameter, as each ran last; {said}.",
        "MySQL older than 8.0.26 lacks variables that are asked for.",
    ]
    if missing:
        lines += ["", "| passed on MariaDB, and not on MySQL | why |", "|---|---|"]
        lines += [f"| `{name}` | {why} |" for name, why in missing.items()]
    lines += ["", "| tests of MariaDB (`*`) that have no MySQL beside them | why |", "|---|---|"]
    lines += [f"| `{name}` | {why} |" for name, why in sorted(WHY.items())]
    return "\n".join(lines)


def lacking(record: Record) -> dict[str, str]:
    """Tests that passed on MariaDB and did not on MySQL, and what became of them there."""
    outcomes: dict[str, dict[str, str]] = {}
    for name, one in record.items():
        outcomes.setdefault(bare(name, one["engine"]), {})[one["engine"]] = one["outcome"]
    return {
        name: {"failed": "fails", "skipped": "skipped", "": "not run"}[found.get(Engine.MYSQL, "")]
        for name, found in sorted(outcomes.items())
        if found.get(Engine.MARIADB) == "passed" and found.get(Engine.MYSQL) != "passed"
    }


def _plugin(engine: Engine) -> str:
    archive = Lock.load().parts[f"debezium-{engine}"][0]
    return f"`{archive.artifact}` {archive.version}"


def written(page: str, record: Record) -> str:
    """The page with its part made anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{part(record)}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(), recorded()))
