"""What the databases and Kafka themselves can do to a proof, on the real stack."""

from __future__ import annotations

import json
from typing import Any

import pytest
from confluent_kafka import Producer

from cdc_platform.model.topology import Engine, Shard, Table
from cdc_platform.verification.proof.verdicts import ShardVerdict, Verdict
from tests.engines import EACH_BINLOG
from tests.verification.proof.harness import Harness, MakeHarness
from tests.waiting import assert_eventually

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(600)]


def _proven(harness: Harness, table: str | None = None) -> ShardVerdict:
    [verdict] = harness.verify(table).values()
    assert verdict.verdict is Verdict.PROVEN, (table, "\n".join(harness.explain(verdict)))
    return verdict


def _named(verdict: ShardVerdict) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for sample in verdict.samples:
        found.setdefault(sample.kind, []).append(next(iter(json.loads(sample.key).values())))
    return {kind: sorted(keys) for kind, keys in found.items()}


# Table, its key, and keys that a careless comparison confuses.
_BINLOG_KEYS: dict[str, tuple[str, list[Any]]] = {
    "k_ci": ("k VARCHAR(40) COLLATE utf8mb4_general_ci", ["a", "B", "é", "straße", "x ", "", "0", "Ω"]),
    "k_latin": ("k VARCHAR(40) CHARACTER SET latin1", ["ä", "€", "~", "A b", "'", '"']),
    "k_padded": ("k CHAR(10)", ["a", " b", "c d", "", "é"]),
    "k_unsigned": ("k BIGINT UNSIGNED", [0, 1, 2**31, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 1]),
    "k_signed": ("k BIGINT", [-(2**63), -1, 0, 1, 2**63 - 1]),
    "k_fixed": ("k BINARY(16)", [b"\0" * 16, b"a" + b"\0" * 15, b"a" * 15 + b"\0", b"\xff" * 16, b" " * 16]),
    "k_moment": (
        "k DATETIME(6)",
        ["2024-03-31 02:30:00.000001", "2024-10-27 02:30:00", "9999-12-31 23:59:59.999999"],
    ),
    # With a fraction it is spelled in two ways, and never proven (test_readers_by_key_stack.py).
    "k_stamp": ("k TIMESTAMP", ["2024-03-31 01:30:00", "2024-10-27 00:30:00", "2038-01-19 03:14:07"]),
}
_KEYS: dict[Engine, dict[str, tuple[str, list[Any]]]] = {
    Engine.MARIADB: _BINLOG_KEYS,
    Engine.MYSQL: {
        **_BINLOG_KEYS,
        # This collation pads nothing: "x" and "x " are two keys.
        "k_ci": ("k VARCHAR(40) COLLATE utf8mb4_0900_ai_ci", ["a", "B", "é", "straße", "x ", "x", "", "0", "Ω"]),
        "k_as_cs": ("k VARCHAR(40) COLLATE utf8mb4_0900_as_cs", ["a", "A", "e", "é", "a ", ""]),
        "k_bin": ("k VARCHAR(40) COLLATE utf8mb4_0900_bin", ["a", "A", "a ", "", "é", "\U0001f600"]),
    },
    Engine.POSTGRES: {
        "k_padded": ("k CHAR(10)", ["a", " b", "c d", "", "é"]),
        "k_cased": ("k TEXT", ["a", "A", "a ", "", "é", "e\u0301", '"', "\\", "'"]),
        "k_numbers": ("k NUMERIC", ["0", "-0.5", "1e40", "NaN", "Infinity", "-Infinity", "1.5"]),
        "k_signed": ("k BIGINT", [-(2**63), -1, 0, 1, 2**63 - 1]),
        "k_raw": ("k BYTEA", [b"", b"\0", b"\0\0", b"\\", b"\xff"]),
        "k_moment": ("k TIMESTAMPTZ", ["2024-03-31 02:30:00+01", "2024-10-27 02:30:00+02", "294276-12-31 23:59:59+00"]),
    },
}


@pytest.mark.parametrize("engine", list(_KEYS))
def test_completeness_of_keys_that_are_easily_confused_is_proven(make_harness: MakeHarness, engine: Engine) -> None:
    tables = _KEYS[engine]
    harness = make_harness(engine, *(Table(name=name) for name in tables))
    shard = harness.add_shard(
        "00000", *(f"CREATE TABLE {t} ({k}, n INT, PRIMARY KEY (k))" for t, (k, _) in tables.items())
    )
    for table, (_, keys) in tables.items():
        if engine is Engine.POSTGRES:
            harness.own(shard, table)
        for n, key in enumerate(keys):
            harness.execute(shard, f"INSERT INTO {table} VALUES (%s, %s)", (key, n))
    harness.deploy()
    harness.settle(shard)
    for table, (_, keys) in tables.items():
        for key in keys[::2]:
            harness.execute(shard, f"UPDATE {table} SET n = n + 100 WHERE k = %s", (key,))
        harness.execute(shard, f"DELETE FROM {table} WHERE k = %s", (keys[1],))
        harness.execute(shard, f"INSERT INTO {table} VALUES (%s, 7)", (keys[1],))
        harness.execute(shard, f"DELETE FROM {table} WHERE k = %s", (keys[-1],))
    harness.settle(shard)
    for table, (_, keys) in tables.items():
        verdict = _proven(harness, table)
        assert verdict.source_rows == verdict.topic_rows == len(keys) - 1


@EACH_BINLOG
def test_completeness_of_keys_that_a_collation_holds_for_equal(make_harness: MakeHarness, engine: Engine) -> None:
    """'a' becomes 'A', 'b' 'b ': other keys in the topic, the same to MariaDB. One whose delete is lost is named."""
    harness = make_harness(engine)
    shard = harness.add_shard(
        "00000", "CREATE TABLE t (k VARCHAR(20) COLLATE utf8mb4_general_ci PRIMARY KEY, n INT)",
        "INSERT INTO t VALUES ('a', 1), ('b', 2), ('c', 3), ('d', 4)",
    )  # fmt: skip
    harness.deploy()
    harness.settle(shard)
    for old, new in (("a", "A"), ("b", "b "), ("c", "C")):
        harness.execute(shard, "UPDATE t SET k = %s WHERE k = %s", (new, old))
    assert _proven(harness).source_rows == 4
    harness.settle(shard)
    harness.stop(shard)
    records = harness.records()
    for part in records:
        for at, (key, value) in reversed(list(enumerate(part))):
            if json.loads(key or b"")["k"] == "c" and (value is None or json.loads(value)["op"] == "d"):
                del part[at]
    harness.rewrite(records)
    harness.resume(shard)
    [verdict] = harness.verify().values()
    assert _named(verdict) == {"extra": ["c"]}, verdict


def _numbered(harness: Harness, rows: int = 60) -> Shard:
    shard = harness.add_shard("00000", "CREATE TABLE t (id BIGINT PRIMARY KEY, title TEXT)")
    if harness.engine is Engine.POSTGRES:
        harness.own(shard, "t")
    for n in range(rows):
        harness.execute(shard, "INSERT INTO t VALUES (%s, %s)", (n, f"row {n}"))
    harness.deploy()
    harness.settle(shard)
    return shard


@EACH_BINLOG
def test_completeness_does_not_see_what_an_aborted_transaction_wrote(make_harness: MakeHarness, engine: Engine) -> None:
    harness = make_harness(engine)
    shard = _numbered(harness)
    key, value = next(pair for part in harness.records() for pair in part if json.loads(pair[0] or b"")["id"] == 5)
    made = json.dumps({"id": 999, "shard": shard.id}, separators=(",", ":")).encode()
    event = json.loads(value or b"")
    event["after"]["id"] = 999
    producer = Producer({**harness.settings.kafka, "transactional.id": harness.name})
    producer.init_transactions(60)
    for commit in (False, True):
        producer.begin_transaction()
        producer.produce(harness.topic(), json.dumps(event, separators=(",", ":")).encode(), made, 0)
        producer.flush(30)
        if not commit:
            producer.abort_transaction(60)
            assert key and _proven(harness).topic_rows == 60
        else:
            producer.commit_transaction(60)
    # A commit is answered before each partition has its marker.
    assert_eventually(lambda: [_named(one) for one in harness.verify().values()] == [{"extra": ["999"]}], "it is named")


@pytest.mark.parametrize("kind", ["INET4", "INET6"])
def test_completeness_of_a_table_whose_type_stops_the_connector_says_so(make_harness: MakeHarness, kind: str) -> None:
    harness = make_harness(Engine.MARIADB)
    shard = harness.add_shard("00000", f"CREATE TABLE t (id INT PRIMARY KEY, y {kind})")
    harness.deploy()
    assert_eventually(lambda: harness.field.task_state(shard) == "FAILED", "the connector has stopped", 120)
    [verdict] = harness.verify().values()
    assert verdict.warnings == (f"column y: a table with {kind} stops the connector",)
    assert (verdict.verdict, verdict.reason) == (
        Verdict.UNVERIFIABLE,
        f"column y: the type {kind.lower()} has no canonical form",
    )


@EACH_BINLOG
def test_completeness_of_the_year_0000(make_harness: MakeHarness, engine: Engine) -> None:
    """The stream says 1900 for it, and so does the proof; a snapshot stops there, or says 2000."""
    harness = make_harness(engine)
    shard = harness.add_shard("00000", "CREATE TABLE t (id INT PRIMARY KEY, y YEAR)")
    harness.deploy()
    harness.settle(shard)
    harness.execute(shard, "INSERT INTO t VALUES (1, '0000'), (2, 1901)")
    verdict = _proven(harness)
    assert [warning for warning in verdict.warnings if "the YEAR 0000" in warning and "1900" in warning]
    other = harness.add_shard(
        "00001", "CREATE TABLE t (id INT PRIMARY KEY, y YEAR)", "INSERT INTO t VALUES (1, '0000')"
    )
    harness.deploy()
    if engine is Engine.MYSQL:
        found = harness.verify(shards=[other.id])[other.id]
        assert (found.verdict, _named(found)) == (Verdict.MISMATCHED, {"mismatched": ["1"]})
        return
    harness.more["verification"] = {"reach_seconds": 3}
    assert_eventually(lambda: harness.field.task_state(other) == "FAILED", "the connector has stopped", 120)
    assert harness.verify(shards=[other.id])[other.id].verdict is Verdict.PENDING


def test_completeness_of_a_null_in_an_array_of_an_enum_is_warned_of_and_never_proven(make_harness: MakeHarness) -> None:
    harness = make_harness(Engine.POSTGRES)
    types = "CREATE TYPE mood AS ENUM ('sad', 'glad')"
    shard = harness.add_shard("00000", types, "CREATE TABLE t (id INT PRIMARY KEY, y mood[])")
    harness.own(shard, "t")
    harness.execute(shard, "INSERT INTO t VALUES (1, '{sad}')")
    harness.deploy()
    harness.settle(shard)
    verdict = _proven(harness)
    assert verdict.warnings[0] == "column y: a NULL in an array of an enum stops the connector"
    harness.more["verification"] = {"reach_seconds": 3}
    harness.execute(shard, "INSERT INTO t VALUES (2, '{sad,NULL}')")
    assert_eventually(lambda: harness.field.task_state(shard) == "FAILED", "the connector has stopped", 120)
    [verdict] = harness.verify().values()
    assert verdict.verdict is Verdict.PENDING, verdict
