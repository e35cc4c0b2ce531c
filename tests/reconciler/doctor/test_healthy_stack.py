"""Healthy schemas have no finding, and the servers' own logs say that the doctor only reads."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from cdc_platform.documents.project_files import repository_file
from cdc_platform.model.topology import Engine, Table
from cdc_platform.reconciler.doctor import DoctorReport
from tests.reconciler.doctor.harness import Harness, seeds
from tests.reconciler.doctor.healthy import LENDING, SHOP
from tests.reconciler.doctor.test_seeds_postgres_stack import owned
from tests.waiting import assert_eventually

pytestmark = pytest.mark.stack

Patients = Callable[[Engine], Harness]
ENGINES = [Engine.MARIADB, pytest.param(Engine.MYSQL, marks=pytest.mark.mysql), Engine.POSTGRES]

READS = re.compile(
    r"(SELECT|SHOW|WITH|SET (@cdc_platform|AUTOCOMMIT|NAMES)|XA RECOVER|BEGIN|COMMIT|ROLLBACK)\b", re.IGNORECASE
)


def schemas(engine: Engine) -> dict[str, list[str]]:
    """The demo's tables, and two of the kind that every tutorial has."""
    demo = repository_file(f"examples/sql/{'orders' if engine is Engine.POSTGRES else 'pins'}.sql").read_text()
    return {
        "demo": [part for part in re.sub(r"--.*", "", demo).split(";") if part.strip()],
        "lending": LENDING[engine],
        "shop": SHOP[engine],
    }


def healthy(harness: Harness) -> None:
    """Each schema as a dataset of two shards."""
    for name, statements in schemas(harness.engine).items():
        tables = re.findall(r"CREATE TABLE (\w+)", "\n".join(statements))
        if harness.engine is Engine.POSTGRES:
            user = harness.user(name, "ALTER ROLE {user} REPLICATION")
            places = {f"0000{n}": owned(harness, name, f"{name}{n}", *statements) for n in range(2)}
        else:
            places = {f"0000{n}": harness.database(f"{name}{n}", *statements) for n in range(2)}
            user = harness.documented(name, *places.values())
        harness.dataset(name, [Table(name=table) for table in tables], user, places)


@pytest.mark.parametrize("engine", ENGINES)
def test_healthy_schemas_have_no_finding_and_are_only_read(patients: Patients, engine: Engine) -> None:
    harness = patients(engine)
    healthy(harness)
    report, said = asked_of_postgres(harness) if engine is Engine.POSTGRES else asked_of_binlog(harness)
    assert report.unanswered == {} and report.asked == 6
    assert seeds(report.findings) == set() and report.is_healthy
    assert len(said) > 30, said
    assert [text for text in said if not READS.match(text)] == []


def asked_of_binlog(harness: Harness) -> tuple[DoctorReport, list[str]]:
    """The report, and the statements in the general log."""
    users = ", ".join(f"'{harness.own}_{dataset.name}'" for dataset, _ in harness.pairs)
    with harness.globals(log_output="TABLE", general_log=1):
        report = harness.ask()
        rows: list[Any] = harness.sql(
            "SELECT argument FROM mysql.general_log WHERE command_type IN ('Query', 'Execute', 'Prepare')"
            f" AND SUBSTRING_INDEX(user_host, '[', 1) IN ({users})"
        )
    harness.sql("TRUNCATE TABLE mysql.general_log")
    return report, [(text.decode() if isinstance(text, bytes) else text).strip() for (text,) in rows]


def asked_of_postgres(harness: Harness) -> tuple[DoctorReport, list[str]]:
    """The report, and the statements in the server's log."""
    for name in {dataset.name for dataset, _ in harness.pairs}:
        harness.sql(f"ALTER ROLE {harness.own}_{name} SET log_statement = 'all'")
    file = harness.stack.directory / "logs" / "postgres-1.log"
    begin, mark = file.stat().st_size, f"end of {harness.own}"
    report = harness.ask()
    harness.sql(f"DO $$ BEGIN RAISE LOG '{mark}'; END $$")
    assert_eventually(lambda: mark in file.read_text()[begin:], "the server has written its log")
    said = re.findall(r"LOG:  (?:statement|execute [^:]+): \s*(.*)", file.read_text()[begin:])
    return report, [text.strip() for text in said]
