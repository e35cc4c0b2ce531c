"""What MySQL does otherwise than MariaDB (docs/connectors.md), captured and proven."""

from __future__ import annotations

import pytest

from cdc_platform.model.topology import Engine, Table
from cdc_platform.verification.proof.verdicts import Verdict
from tests.verification.proof.harness import MakeHarness

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.mysql, pytest.mark.timeout(600)]


@pytest.mark.field("BINLOG-ZIP", Engine.MYSQL)
def test_completeness_through_compressed_and_xa_transactions_instant_ddl_and_create_select(
    make_harness: MakeHarness,
) -> None:
    harness = make_harness(Engine.MYSQL, Table(name="t"), Table(name="copied"))
    shard = harness.add_shard("00000", "CREATE TABLE t (id BIGINT PRIMARY KEY, title TEXT, doc JSON)")
    harness.deploy()
    harness.settle(shard)

    def run(*statements: str) -> None:
        for statement in statements:
            harness.execute(shard, statement)

    rows = ",".join(f"({n}, REPEAT('é', 500), JSON_OBJECT('n', {n}))" for n in range(1, 200))
    run("SET SESSION binlog_transaction_compression = ON", f"INSERT INTO t VALUES {rows}", "DELETE FROM t WHERE id = 7")
    run("SET SESSION binlog_transaction_compression = OFF")
    run(
        "XA START 'one'",
        "INSERT INTO t VALUES (1000, 'xa', '1')",
        "XA END 'one'",
        "XA PREPARE 'one'",
        "XA COMMIT 'one'",
    )
    run("XA START 'two'", "DELETE FROM t WHERE id < 50", "XA END 'two'", "XA PREPARE 'two'", "XA ROLLBACK 'two'")
    run("XA START 'three'", "UPDATE t SET title = 'p' WHERE id = 9", "XA END 'three'", "XA COMMIT 'three' ONE PHASE")
    run("ALTER TABLE t ADD COLUMN more INT FIRST, ALGORITHM = INSTANT", "UPDATE t SET more = 5 WHERE id < 20")
    run("ALTER TABLE t DROP COLUMN title, ALGORITHM = INSTANT", "UPDATE t SET more = 6 WHERE id BETWEEN 15 AND 30")
    run("UPDATE t SET doc = JSON_SET(doc, '$.n', 'partly') WHERE id BETWEEN 20 AND 40")
    run("CREATE TABLE copied (PRIMARY KEY (id)) AS SELECT id, doc FROM t", "UPDATE copied SET doc = '[1]' WHERE id = 3")
    run("UPDATE t SET more = 0 WHERE more IS NULL")
    for table in ("t", "copied"):
        [verdict] = harness.verify(table).values()
        assert verdict.verdict is Verdict.PROVEN, "\n".join(harness.explain(verdict))
        assert verdict.source_rows == verdict.topic_rows == 199
