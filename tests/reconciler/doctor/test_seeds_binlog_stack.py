"""Twenty and more hazards on a real MariaDB and a real MySQL, asked about once, before any connector exists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from cdc_platform.model.source_log import SourceLog
from cdc_platform.model.topology import Engine, Table
from cdc_platform.planning.doctor.kinds import Severity
from tests.reconciler.doctor.harness import Harness, Seed, seeds

pytestmark = pytest.mark.stack

Patients = Callable[[Engine], Harness]

# Table to its definition and what it is found by; one that is said twice has two faults.
BOTH: dict[str, tuple[str, str]] = {
    "no_key": ("(id INT, v INT)", "no-key"),
    "named": ("(id INT PRIMARY KEY, a INT, b INT NOT NULL, UNIQUE (a, b))", "no-key"),
    "twice": ("(id TIMESTAMP(3) PRIMARY KEY DEFAULT CURRENT_TIMESTAMP(3))", "left-out-table"),
    "enums": ("(id INT, k ENUM('z', 'a'), PRIMARY KEY (id, k))", "key-not-read-in-chunks"),
    "times": ("(id TIME PRIMARY KEY)", "key-not-read-in-chunks"),
    "shards": ("(shard INT PRIMARY KEY)", "reserved-name"),
    "Twin": ("(id INT PRIMARY KEY)", "case-twin"),
    "parted": ("(id INT PRIMARY KEY) PARTITION BY HASH (id) PARTITIONS 2", "partitioned-table"),
    "isam": ("(id INT PRIMARY KEY) ENGINE = MyISAM", "not-transactional"),
    "gone": ("", "missing-table"),
    "osc": ("(id INT PRIMARY KEY)", "online-change"),
}
MARIADB = BOTH | {
    "hashed": ("(id INT PRIMARY KEY, v TEXT UNIQUE)", "left-out-table"),
    "zipped": ("(id INT PRIMARY KEY, v TEXT COMPRESSED)", "left-out-table"),
    "versioned": ("(id INT PRIMARY KEY) WITH SYSTEM VERSIONING", "left-out-table"),
    "period": ("(id INT PRIMARY KEY, f DATE, t DATE, PERIOD FOR p (f, t))", "unreadable-table"),
    "hidden": ("(id INT PRIMARY KEY, v INT INVISIBLE)", "unreadable-table"),
    "inet": ("(id INT PRIMARY KEY, v INET6)", "unreadable-table"),
    "child": (
        "(id INT PRIMARY KEY, p INT, CONSTRAINT fk FOREIGN KEY (p) REFERENCES osc (id) ON DELETE CASCADE)",
        "cascade",
    ),
}
MYSQL = BOTH | {
    "floats": ("(id FLOAT PRIMARY KEY)", "key-not-read-in-chunks"),
    "beyond": ("(id BIGINT UNSIGNED PRIMARY KEY)", "key-not-read-in-chunks"),
    "korean": ("(id INT PRIMARY KEY, v TEXT CHARACTER SET euckr)", "unreadable-table"),
    "filled": ("(id INT PRIMARY KEY, v DECIMAL(9,2) ZEROFILL)", "unreadable-table"),
    "hidden": ("(id INT PRIMARY KEY, v INT INVISIBLE)", "hidden-column"),
    "vectors": ("(id INT PRIMARY KEY, v VECTOR(3))", "unprovable-column"),
}
# Of the server and the user.
SERVER: dict[Engine, dict[str, int | str]] = {
    Engine.MARIADB: {"log_bin_compress": 1, "binlog_expire_logs_seconds": 3600, "max_allowed_packet": 1 << 20},
    Engine.MYSQL: {
        "binlog_row_value_options": "PARTIAL_JSON",
        "binlog_expire_logs_seconds": 3600,
        "max_allowed_packet": 1 << 20,
    },
}


@pytest.mark.parametrize("engine", [Engine.MARIADB, pytest.param(Engine.MYSQL, marks=pytest.mark.mysql)])
def test_each_seeded_hazard_is_named(patients: Patients, engine: Engine) -> None:
    harness = patients(engine)
    tables = MARIADB if engine is Engine.MARIADB else MYSQL
    database = harness.database(
        "seeds",
        *(f"CREATE TABLE {name} {made}" for name, (made, _) in tables.items() if made),
        "CREATE TABLE twin (id INT PRIMARY KEY)",
        "CREATE TABLE _osc_gho (id INT PRIMARY KEY)",
        "CREATE VIEW seen AS SELECT * FROM parted",
        *(["INSERT INTO beyond VALUES (18446744073709551615)"] if engine is Engine.MYSQL else []),
    )
    known = [Table(name=name, key=("a", "b") if name == "named" else ()) for name in (*tables, "seen")]
    user = harness.documented("seeds", database)
    harness.dataset("seeds", known, user, {"00000": database})
    expected: set[Seed] = {("seeds", name, kind) for name, (_, kind) in tables.items() if name != "Twin"}
    expected |= {("seeds", "seen", "not-a-table"), ("seeds", "", "case-twin")}
    # Keys that cannot be read in chunks cannot be looked up either, but for those whose values alone are too large.
    unread = {name for name, (_, kind) in tables.items() if kind == "key-not-read-in-chunks"} - {"beyond", "times"}
    expected |= {("seeds", name, "unprovable-column") for name in unread}

    # Shards beside each other: a type, a collation, and one database under two names of its server.
    make = "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(20) COLLATE utf8mb4_bin, n BIGINT)"
    alike = {f"0000{n}": harness.database(f"alike{n}", make) for n in range(3)}
    for n, old, new in ((1, "BIGINT", "INT"), (2, "utf8mb4_bin", "utf8mb4_unicode_ci")):
        harness.sql("DROP TABLE t", alike[f"0000{n}"])
        harness.sql(make.replace(old, new), alike[f"0000{n}"])
    harness.sql("CREATE TABLE u (id INT PRIMARY KEY)", alike["00000"])
    fourth = harness.database("alike3", make)
    by_name = {"00004": replace(harness.leader, host="localhost")}
    places = {**alike, "00003": fourth, "00004": fourth}
    harness.dataset(
        "beside", [Table(name="t")], harness.documented("beside", *places.values()), places, leaders=by_name
    )
    expected |= {("beside", "t", "shards-differ"), ("beside", "", "shared-database")}

    # A user without the rights to the log, and with the right to one of two tables and to a part of the other.
    small = harness.database(
        "small", "CREATE TABLE t (id INT PRIMARY KEY)", "CREATE TABLE u (id INT PRIMARY KEY, v INT)"
    )
    weak = [f"GRANT SELECT (id) ON {small}.u TO {{user}}"]
    weak += ["GRANT XA_RECOVER_ADMIN ON *.* TO {user}"] if engine is Engine.MYSQL else []
    harness.dataset("weak", [Table(name="t"), Table(name="u")], harness.user("weak", *weak), {"00000": small})
    expected |= {("weak", table, "missing-right") for table in ("", "t", "u")}

    # The server: its settings, its room for 40 shards more, and a transaction that is prepared.
    many = {f"{n:05d}": small for n in range(40)}
    harness.dataset(
        "many", [Table(name="t")], harness.documented("many", small), many, accepted_hazards=("shared-database",)
    )
    harness.sql("XA START 'seed'", small)
    harness.sql("INSERT INTO t VALUES (1)", small)
    harness.sql("XA END 'seed'", small)
    harness.sql("XA PREPARE 'seed'", small)
    with harness.globals(**SERVER[engine], max_connections=60):
        try:
            report = harness.ask()
        finally:
            harness.sql("XA ROLLBACK 'seed'", small)
    for dataset in ("seeds", "beside", "many"):
        kinds = ("log-settings", "short-retention", "small-packets", "prepared-transaction")
        expected |= {(dataset, "", kind) for kind in kinds}
    expected |= {("weak", "", kind) for kind in ("log-settings", "small-packets")}
    expected.add(("weak", "", "prepared-transaction"))
    expected |= {(dataset, "", "no-room") for dataset in ("seeds", "beside", "weak", "many")}
    assert report.unanswered == {}
    assert seeds(report.findings) ^ expected == set()
    assert len({(table, kind) for _, table, kind in expected}) >= 20
    assert all(one.cure for one in report.findings)

    rights = {one.text.partition(" lacks ")[2] for one in report.findings if str(one.kind) == "missing-right"}
    logs = {"BINLOG MONITOR", "SLAVE MONITOR"} if engine is Engine.MARIADB else {"REPLICATION CLIENT"}
    assert rights == {*logs, "REPLICATION SLAVE", f"SELECT on {small}.t", f"SELECT on {small}.u"}
    (shared,) = [one for one in report.findings if str(one.kind) == "shared-database" and one.dataset == "beside"]
    assert shared.shards == ("00003", "00004") and shared.severity is Severity.ERROR
    accepted = [one for one in report.findings if one.dataset == "many" and str(one.kind) == "shared-database"]
    assert [one.accepted for one in accepted] == [True] and accepted[0].severity is Severity.NOTE
    texts = [one.text for one in report.findings if str(one.kind) == "shards-differ"]
    assert any("column n is int" in text for text in texts) and any("utf8mb4_unicode_ci" in text for text in texts)


def test_the_longest_outage_is_the_topologys(patients: Patients) -> None:
    harness = patients(Engine.MARIADB)
    database = harness.database("t", "CREATE TABLE t (id INT PRIMARY KEY)")
    with harness.globals(binlog_expire_logs_seconds=7200):
        user = harness.documented("a", database)
        harness.dataset("a", [Table(name="t")], user, {"00000": database}, source_log=SourceLog(outage_seconds=3600))
        assert harness.ask().is_healthy
        harness.pairs.clear()
        user = harness.documented("b", database)
        harness.dataset("b", [Table(name="t")], user, {"00000": database}, source_log=SourceLog(outage_seconds=7201))
        assert seeds(harness.ask().findings) == {("b", "", "short-retention")}
