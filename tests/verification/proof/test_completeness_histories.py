"""What tables and topics live through, on the real stack: what is whole stays proven, what is not is named."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from dataclasses import replace
from pathlib import Path

import pymysql
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from cdc_platform.clients.secrets import resolve_all
from cdc_platform.model.positions import parse_position
from cdc_platform.model.topology import BootstrapMode, Engine, Shard
from cdc_platform.verification.proof.verdicts import ShardVerdict, Verdict
from tests.engines import EACH_BINLOG
from tests.verification.proof.harness import Harness, MakeHarness
from tests.waiting import assert_eventually

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(600)]

ENGINES = list(Engine)
TABLE = "CREATE TABLE t (id BIGINT PRIMARY KEY, title TEXT, n INT)"


def _shard(harness: Harness, number: str, rows: int = 100, ddl: str = TABLE) -> Shard:
    shard = harness.add_shard(number, ddl)
    if harness.engine is Engine.POSTGRES:
        harness.own(shard, "t")
    _insert(harness, shard, range(rows))
    return shard


def _insert(harness: Harness, shard: Shard, numbers: range) -> None:
    cursor = harness.connection(shard).cursor()
    cursor.executemany("INSERT INTO t (id, title, n) VALUES (%s, %s, %s)", [(n, f"row {n}", n) for n in numbers])


def assert_proven(harness: Harness, verdicts: dict[str, ShardVerdict]) -> None:
    for verdict in verdicts.values():
        assert verdict.verdict is Verdict.PROVEN, "\n".join(harness.explain(verdict))


def _keys(verdict: ShardVerdict, kind: str) -> set[int]:
    return {int(json.loads(sample.key)["id"]) for sample in verdict.samples if sample.kind == kind}


@pytest.mark.parametrize("engine", ENGINES)
def test_completeness_holds_through_key_changes_alters_and_schemas(make_harness: MakeHarness, engine: Engine) -> None:
    """Three shards at once: keys that change, columns that come and go, and a connector that writes schemas."""
    harness = make_harness(engine)
    keys, altered, schemas = (_shard(harness, f"0000{n}") for n in range(3))
    on = {"key.converter.schemas.enable": "true", "value.converter.schemas.enable": "true"}
    harness.deploy()
    harness.execute(keys, "UPDATE t SET id = id + 1000 WHERE id < 40")
    harness.execute(keys, "UPDATE t SET id = id - 500 WHERE id >= 1020")
    harness.execute(keys, "DELETE FROM t WHERE id = 1003")
    harness.execute(keys, "INSERT INTO t (id, title, n) VALUES (3, 'again', 1)")
    assert_proven(harness, harness.verify())

    harness.execute(altered, "ALTER TABLE t ADD COLUMN more INT")
    harness.execute(altered, "UPDATE t SET more = n WHERE id < 30")
    _insert(harness, altered, range(100, 120))
    # Rows from before hold NULL in the new column, and so says the source: all of it is proven.
    assert_proven(harness, harness.verify())
    harness.execute(altered, "ALTER TABLE t DROP COLUMN title")
    harness.execute(altered, "UPDATE t SET n = n + 1 WHERE id < 5")
    assert_proven(harness, harness.verify())
    harness.execute(altered, "ALTER TABLE t ADD COLUMN late INT DEFAULT 7")
    verdict = harness.verify(shards=[altered.id])[altered.id]
    # The server fills in what no event told: the topic does not hold the sevens.
    assert verdict.verdict is Verdict.MISMATCHED, verdict
    assert {sample.columns for sample in verdict.samples} == {("late",)}
    harness.execute(altered, "UPDATE t SET late = 8")
    assert_proven(harness, harness.verify())

    _insert(harness, schemas, range(100, 105))
    harness.settle(schemas)
    harness.more["connector"] = on
    harness.deploy()
    number = [200]

    def wrapped() -> bool:
        """The restarted task writes schemas; events of before it have none."""
        _insert(harness, schemas, range(number[0], number[0] + 5))
        number[0] += 5
        harness.settle(schemas)
        return any(value and "payload" in json.loads(value) for part in harness.records() for _, value in part)

    assert_eventually(wrapped, "the connector writes schemas")
    harness.execute(schemas, "DELETE FROM t WHERE id = 201")
    assert_proven(harness, harness.verify())
    # A row of before has a key without a schema: its delete goes out under another, and readers by key keep the row.
    harness.execute(schemas, "DELETE FROM t WHERE id = 7")
    [verdict] = harness.verify(shards=[schemas.id]).values()
    assert (verdict.verdict, verdict.extra, verdict.missing) == (Verdict.MISMATCHED, 1, 0), verdict
    assert {(json.loads(sample.key)["id"], sample.kind) for sample in verdict.samples} == {("7", "leftover")}


@pytest.mark.parametrize("engine", ENGINES)
def test_completeness_of_a_topic_with_schemas_is_proven_and_what_is_lost_is_named(
    make_harness: MakeHarness, engine: Engine
) -> None:
    harness = make_harness(
        engine,
        connector={"key.converter.schemas.enable": "true", "value.converter.schemas.enable": "true"},
    )
    first, second = _shard(harness, "00000"), _shard(harness, "00001")
    harness.deploy()
    for shard in (first, second):
        harness.execute(shard, "UPDATE t SET title = 'é\"\\\\ changed' WHERE id < 20")
        harness.execute(shard, "DELETE FROM t WHERE id = 30")
    assert_proven(harness, harness.verify())
    for shard in (first, second):
        harness.settle(shard)
        harness.stop(shard)
    records = harness.records()
    for part in records:
        for at, (key, value) in reversed(list(enumerate(part))):
            payload = json.loads(key or b"")["payload"]
            if payload["shard"] == first.id and payload["id"] == 55 and value is not None:
                del part[at]
    harness.rewrite(records)
    for shard in (first, second):
        harness.resume(shard)
    verdicts = harness.verify()
    assert _keys(verdicts[first.id], "missing") == {55}
    assert len(verdicts[first.id].samples) == 1
    assert verdicts[second.id].verdict is Verdict.PROVEN


@pytest.mark.parametrize("engine", ENGINES)
def test_completeness_of_truncated_rows_is_mismatched_by_their_keys(make_harness: MakeHarness, engine: Engine) -> None:
    """No event tells of a TRUNCATE (docs/decisions/0043): the proof does."""
    harness = make_harness(engine, verification={"samples": 200})
    truncated, other = _shard(harness, "00000"), _shard(harness, "00001")
    harness.deploy()
    for shard in harness.shards:
        harness.settle(shard)  # a task that runs may still have its snapshot before it
    harness.execute(truncated, "TRUNCATE TABLE t")
    _insert(harness, truncated, range(90, 130))
    verdicts = harness.verify()
    assert verdicts[truncated.id].verdict is Verdict.MISMATCHED
    assert (verdicts[truncated.id].extra, verdicts[truncated.id].missing, verdicts[truncated.id].mismatched) == (
        90,
        0,
        0,
    )
    assert _keys(verdicts[truncated.id], "extra") == set(range(90))
    assert verdicts[other.id].verdict is Verdict.PROVEN


def test_completeness_of_unchanged_toast_values(make_harness: MakeHarness) -> None:
    """Postgres does not send a large value that did not change; the topic has it in an earlier event, or nowhere."""
    harness = make_harness(Engine.POSTGRES, verification={"samples": 50})
    default, full, moved = (_shard(harness, f"0000{n}", rows=0) for n in range(3))
    harness.execute(full, "ALTER TABLE t REPLICA IDENTITY FULL")
    for shard in (default, full, moved):
        harness.execute(shard, "ALTER TABLE t ALTER COLUMN title SET STORAGE EXTERNAL")
        for n in range(60):
            harness.execute(shard, "INSERT INTO t VALUES (%s, %s, %s)", (n, f"{n}-" + 'é"\\' * 4000, n))
    harness.deploy()
    for shard in (default, full, moved):
        harness.execute(shard, "UPDATE t SET n = n + 1 WHERE id < 40")
        harness.execute(shard, "UPDATE t SET n = n + 1 WHERE id < 20")
        harness.execute(shard, "UPDATE t SET title = title || 'x' WHERE id < 5")
        harness.execute(shard, "UPDATE t SET n = n + 1 WHERE id < 10")
        harness.execute(shard, "DELETE FROM t WHERE id = 3")
    harness.execute(full, "UPDATE t SET id = id + 100 WHERE id BETWEEN 50 AND 54")
    assert_proven(harness, harness.verify())
    values = [value for part in harness.records() for _, value in part if value]
    assert any(b"__debezium_unavailable_value" in value for value in values)

    # A changed key with an unchanged value: nobody who reads the topic by key can know it. The source was not asked
    # for it, and so it is named.
    harness.execute(moved, "UPDATE t SET id = id + 100 WHERE id BETWEEN 50 AND 54")
    verdicts = harness.verify()
    assert {shard: one.verdict for shard, one in verdicts.items()} == {
        default.id: Verdict.PROVEN,
        full.id: Verdict.PROVEN,
        moved.id: Verdict.MISMATCHED,
    }
    assert _keys(verdicts[moved.id], "mismatched") == set(range(150, 155))
    assert {sample.columns for sample in verdicts[moved.id].samples} == {
        ("title (not sent: an unchanged TOAST value)",)
    }


def _topic_config(harness: Harness, **config: str) -> None:
    entries = [
        ConfigEntry(name.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
        for name, value in config.items()
    ]
    resource = ConfigResource(ResourceType.TOPIC, harness.topic(), incremental_configs=entries)
    admin = AdminClient({**resolve_all(harness.settings.kafka)})
    admin.incremental_alter_configs([resource])[resource].result(30)


@EACH_BINLOG
def test_completeness_of_a_compacted_topic_is_proven(make_harness: MakeHarness, engine: Engine) -> None:
    harness = make_harness(engine)
    shard = _shard(harness, "00000")
    harness.deploy()
    assert_proven(harness, harness.verify())
    _topic_config(
        harness,
        segment_ms="500",
        min_cleanable_dirty_ratio="0.01",
        min_compaction_lag_ms="0",
        delete_retention_ms="1000",
    )
    before = sum(len(part) for part in harness.records())
    for turn in range(3):
        harness.execute(shard, f"UPDATE t SET n = {turn}")
        harness.settle(shard)
    harness.execute(shard, "DELETE FROM t WHERE id < 20")

    def compacted() -> bool:
        harness.execute(shard, "UPDATE t SET n = n + 1")
        harness.settle(shard)
        keys = [key for part in harness.records() for key, _ in part]
        # Segments that are written to stay: so do the last round's events.
        return len(keys) < before + 3 * 80 and sum(json.loads(key or b"")["id"] < 20 for key in keys) == 0

    assert_eventually(compacted, "the log cleaner has done its work", 400)
    harness.settle(shard)
    # The kept fold, and one that begins anew.
    assert_proven(harness, harness.verify())
    harness.cache = harness.cache.with_name("fresh")
    harness.__post_init__()
    harness.field.topology = harness.topology
    assert_proven(harness, harness.verify())


@EACH_BINLOG
def test_completeness_after_retention_is_out_of_scope_until_a_backfill(
    make_harness: MakeHarness, engine: Engine
) -> None:
    harness = make_harness(engine)
    shard = _shard(harness, "00000")
    harness.deploy()
    assert_proven(harness, harness.verify())
    harness.settle(shard)
    _topic_config(harness, cleanup_policy="delete")
    cut = [TopicPartition(harness.topic(), number, len(part)) for number, part in enumerate(harness.records())]
    admin = AdminClient({**resolve_all(harness.settings.kafka)})
    for future in admin.delete_records(cut).values():
        future.result(30)
    harness.execute(shard, "UPDATE t SET n = n + 1 WHERE id < 50")
    verdict = harness.verify()[shard.id]
    assert verdict.verdict is Verdict.UNVERIFIABLE, verdict
    assert verdict.reason.startswith("50 rows are not in the topic: retention has removed its beginning")
    assert _keys(verdict, "missing") <= set(range(50, 100))
    harness.execute(shard, "UPDATE t SET n = n + 1")  # what a backfill does, seen from the topic
    assert_proven(harness, harness.verify())


@pytest.mark.parametrize("engine", ENGINES)
def test_completeness_bootstrapped_from_latest_says_its_scope(make_harness: MakeHarness, engine: Engine) -> None:
    harness = make_harness(engine, bootstrap=BootstrapMode.LATEST)
    shard = _shard(harness, "00000")
    harness.deploy()
    harness.settle(shard)  # a task that runs need not stream yet
    harness.execute(shard, "UPDATE t SET n = n + 1 WHERE id < 30")
    _insert(harness, shard, range(100, 110))
    verdict = harness.verify()[shard.id]
    assert verdict.verdict is Verdict.UNVERIFIABLE, verdict
    assert "70 rows are not in the topic: the dataset is bootstrapped from latest" in verdict.reason
    assert (verdict.missing, verdict.extra, verdict.mismatched) == (70, 0, 0)
    harness.execute(shard, "UPDATE t SET n = n + 1")
    assert_proven(harness, harness.verify())


@pytest.mark.parametrize("engine", ENGINES)
def test_completeness_of_an_empty_table_is_proven(make_harness: MakeHarness, engine: Engine) -> None:
    harness = make_harness(engine)
    shard = _shard(harness, "00000", rows=0)
    harness.deploy()
    _insert(harness, shard, range(5))
    harness.execute(shard, "DELETE FROM t")
    verdict = harness.verify()[shard.id]
    assert_proven(harness, {shard.id: verdict})
    assert (verdict.source_rows, verdict.topic_rows) == (0, 0)


@pytest.mark.parametrize("engine", ENGINES)
def test_completeness_of_uuid_keys_of_the_engine_is_proven(make_harness: MakeHarness, engine: Engine) -> None:
    harness = make_harness(engine)
    kind = "CHAR(36)" if engine is Engine.MYSQL else "UUID"
    shard = harness.add_shard("00000", f"CREATE TABLE t (u {kind}, n INT NOT NULL, title TEXT, PRIMARY KEY (u, n))")
    if engine is Engine.POSTGRES:
        harness.own(shard, "t")
    # Ending in zero bytes MariaDB's are captured wrongly (docs/verification.md): these do not.
    keys = [str(uuid.UUID(int=(n << 96) | (7919 * n << 8) | 1)) for n in range(1, 200)]
    harness.connection(shard).cursor().executemany(
        "INSERT INTO t VALUES (%s, %s, 'x')", [(key, n) for n, key in enumerate(keys)]
    )
    harness.deploy()
    harness.execute(shard, "UPDATE t SET title = 'y' WHERE n < 50")
    harness.execute(shard, "DELETE FROM t WHERE n = 60")
    verdicts = harness.verify()
    assert_proven(harness, verdicts)
    assert verdicts[shard.id].source_rows == 198


@pytest.mark.parametrize("engine", ENGINES)
def test_completeness_after_many_deletes_by_text_keys_is_proven(make_harness: MakeHarness, engine: Engine) -> None:
    """Where a deleted text key would have been is not known: here are more than are looked up one by one."""
    harness = make_harness(engine, verification={"reread_keys": 10, "chunk_rows": 100})
    shard = harness.add_shard("00000", "CREATE TABLE t (name VARCHAR(40) PRIMARY KEY, n INT)")
    if engine is Engine.POSTGRES:
        harness.own(shard, "t")
    cursor = harness.connection(shard).cursor()
    cursor.executemany("INSERT INTO t VALUES (%s, %s)", [(f"key {n}", n) for n in range(600)])
    harness.deploy()
    assert_proven(harness, harness.verify())
    harness.execute(shard, "DELETE FROM t WHERE n BETWEEN 100 AND 249")
    verdicts = harness.verify()
    assert_proven(harness, verdicts)
    assert verdicts[shard.id].source_rows == verdicts[shard.id].topic_rows == 450


@EACH_BINLOG
def test_completeness_is_proven_from_a_replica(make_harness: MakeHarness, engine: Engine) -> None:
    """The table is read on the replica, at the replica's own position; the connector reads the leader."""
    harness = make_harness(engine, verification={"replicas": True, "chunk_rows": 100})
    shard = _shard(harness, "00000", rows=500)
    replica = harness.stack.replica(engine)
    assert replica != shard.leader
    harness.shards[0] = replace(shard, replicas=(replica,))
    harness.deploy()
    harness.execute(shard, "UPDATE t SET n = n + 1 WHERE id < 100")
    harness.settle(shard)
    verdict = harness.verify()[shard.id]
    assert verdict.source == str(replica)
    assert_proven(harness, {shard.id: verdict})
    assert verdict.source_rows == 500


@EACH_BINLOG
def test_completeness_from_a_replica_that_lags_is_proven_at_its_own_position(
    make_harness: MakeHarness, engine: Engine
) -> None:
    """The topic is ahead of what is read; what came later counts for nothing, and what is lost before is named."""
    harness = make_harness(engine, verification={"replicas": True, "chunk_rows": 20})
    shard = _shard(harness, "00000", rows=200)
    replica = harness.stack.replica(engine)
    harness.shards[0] = replace(shard, replicas=(replica,))
    harness.deploy()
    harness.settle(shard)
    login = harness.stack.admin(engine)
    role = "SLAVE" if engine is Engine.MARIADB else "REPLICA"
    with pymysql.connect(
        host=replica.host, port=replica.port, user=login.user, password=login.password, autocommit=True
    ) as standby, standby.cursor() as there:  # fmt: skip
        there.execute(f"STOP {role} SQL_THREAD")
        try:
            harness.execute(shard, "UPDATE t SET n = n + 1 WHERE id < 50")
            harness.execute(shard, "DELETE FROM t WHERE id >= 150")
            _insert(harness, shard, range(1000, 1010))
            ahead = harness.outside().source(harness.dataset, replace(shard, replicas=()), harness.tables[0]).position()
            verdict = harness.verify()[shard.id]
            assert_proven(harness, {shard.id: verdict})
            assert (verdict.source, verdict.source_rows, verdict.topic_rows) == (str(replica), 200, 200)
            assert not parse_position(engine, verdict.proven_to or "").covers(ahead)
        finally:
            there.execute(f"START {role} SQL_THREAD")
    assert_eventually(lambda: harness.verify()[shard.id].source_rows == 160, "the replica has caught up", 120)
    assert_proven(harness, harness.verify())


def test_completeness_of_what_mariadb_captures_wrongly_is_named_and_of_early_years_proven(
    make_harness: MakeHarness,
) -> None:
    harness = make_harness(Engine.MARIADB)
    shard = harness.add_shard("00000", "CREATE TABLE t (id INT PRIMARY KEY, d DATE, m DATETIME(6), u UUID)")
    harness.deploy()
    for n, year in enumerate((1, 50, 69, 70, 99, 100, 1582, 1969)):
        harness.execute(
            shard, "INSERT INTO t (id, d, m) VALUES (%s, %s, %s)", (n, f"{year:04d}-12-31", f"{year:04d}-12-31")
        )
    verdict = harness.verify()[shard.id]
    assert_proven(harness, {shard.id: verdict})
    assert verdict.warnings == ("column u: a UUID that ends in zero bytes is captured wrongly",)
    harness.execute(shard, "INSERT INTO t (id, u) VALUES (100, '12345678-1234-1234-1234-123456789012')")
    harness.execute(shard, "INSERT INTO t (id, u) VALUES (101, '12345678-1234-1234-1234-120000000000')")
    verdict = harness.verify()[shard.id]
    assert verdict.verdict is Verdict.MISMATCHED, verdict
    assert (_keys(verdict, "mismatched"), verdict.samples[0].columns) == ({101}, ("u",))


@pytest.mark.parametrize("engine", ENGINES)
def test_completeness_goes_on_after_kill_9_of_the_command(
    make_harness: MakeHarness, engine: Engine, tmp_path: Path
) -> None:
    """`cdc-platform verify` killed in the middle: the same run id goes on, and the verdict is that of a whole run."""
    harness = make_harness(engine, verification={"chunk_rows": 20})
    shard = _shard(harness, "00000", rows=30_000)
    harness.deploy()
    harness.settle(shard)
    script = tmp_path / "run.py"
    script.write_text(_SCRIPT)
    config = tmp_path / "ground.json"
    config.write_text(
        json.dumps(
            {
                "stack": str(harness.stack.directory),
                "engine": engine,
                "name": harness.name,
                "cache": str(harness.cache),
                "shard": shard.id,
                "database": shard.database,
            }
        )
    )
    chunks = harness.cache / "scans" / "killed" / harness.name / "t" / shard.id / "scan.json"
    root = str(Path(__file__).parents[3])
    run = subprocess.Popen([sys.executable, str(script), str(config)], cwd=root, env=_env(root))
    end = time.monotonic() + 120
    while not chunks.exists():
        assert run.poll() is None, "it ended before it was killed"
        assert time.monotonic() < end
        time.sleep(0.02)
    run.kill()
    run.wait(30)
    held = len(json.loads(chunks.read_text())["chunks"])
    assert 0 < held < 30_000 // 20
    harness.execute(shard, "UPDATE t SET n = n + 1 WHERE id < 100 OR id > 29900")
    harness.execute(shard, "DELETE FROM t WHERE id IN (7, 29999)")
    rows: list[int] = []
    verdict = harness.verify(
        run="killed", report=lambda step: rows.append(step.done) if step.stage == "source" else None
    )
    assert_proven(harness, verdict)
    # 7 was read before it was deleted, 29999 was not.
    assert verdict[shard.id].source_rows == verdict[shard.id].topic_rows == 29_999
    # It began behind what the killed one had written down.
    assert rows[0] > held * 20
    assert not chunks.exists()


def _env(root: str) -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": root}


_SCRIPT = """
import json, sys
from pathlib import Path
from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import Engine, Shard, Table
from tests.engines import EACH_BINLOG
from tests.verification.proof.harness import Harness

given = json.loads(Path(sys.argv[1]).read_text())
stack = Stack.load(Path(given["stack"]))
engine = Engine(given["engine"])
harness = Harness(stack=stack, engine=engine, name=given["name"], cache=Path(given["cache"]),
                  tables=(Table(name="t"),), more={"verification": {"chunk_rows": 20}})
address = stack.primary(engine)
harness.shards.append(Shard(dataset=harness.name, id=given["shard"], leader=address, database=given["database"]))
print(harness.verify(run="killed"))
"""
