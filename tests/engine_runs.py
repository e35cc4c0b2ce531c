"""Which tests ran on which server of which engine: recorded by the tests, told by docs/connectors.md.

With CDC_RECORD_ENGINES=1 a run of tests writes what passed and what did not into engine_runs.json beside this file;
`python -m tests.engine_runs` then writes the page's part anew. A test holds that the two agree.
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
# Why a test of MariaDB has no MySQL beside it.
WHY: dict[str, str] = {}

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
    """The engine that a test has for a parameter, itself or within one."""
    params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    # A list, for not every parameter can be hashed.
    found = [getattr(value, "engine", value) for value in params.values()]
    engines = [engine for engine in Engine if any(one is engine for one in found)]
    return engines[0] if engines else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """The worst of a test's phases is its outcome."""
    report = yield
    if not os.environ.get(RECORD_ENV):
        return report
    engine = engine_of(item)
    if engine is not None and item.get_closest_marker("stack"):
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
    missing = lacking(record)
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
    return "\n".join(lines)


def lacking(record: Record) -> dict[str, str]:
    """Tests that passed on MariaDB and did not on MySQL, and why."""
    outcomes: dict[str, dict[str, str]] = {}
    for name, one in record.items():
        bare = re.sub(rf"\b{one['engine']}\b", "*", name, flags=re.IGNORECASE)
        outcomes.setdefault(bare, {})[one["engine"]] = one["outcome"]
    return {
        name: WHY.get(name) or {"failed": "fails", "skipped": "skipped", "": "not run"}[found.get(Engine.MYSQL, "")]
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
