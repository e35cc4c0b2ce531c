"""Keys of types that a driver shows otherwise than the topic does: each row is found again by its key."""

from __future__ import annotations

import json

import pytest

from cdc_platform.model.topology import Engine
from cdc_platform.verification.proof.verdicts import Verdict
from tests.verification.proof.harness import MakeHarness

pytestmark = pytest.mark.stack


# From -32:13:20 to 33:20:00: below zero, and more than a day.
_TIMES = [
    f"{'-' if n < 0 else ''}{abs(n) // 3600:02d}:{abs(n) % 3600 // 60:02d}:{abs(n) % 60:02d}"
    for n in range(-116000, 120001, 4000)
]


@pytest.mark.parametrize("engine", [Engine.MARIADB, Engine.MYSQL], ids=str)
@pytest.mark.parametrize(("columns", "key"), [("id TIME", "id"), ("id TIME(3), a INT DEFAULT 1", "a, id")])
def test_completeness_of_time_keys_names_each_row(
    make_harness: MakeHarness, engine: Engine, columns: str, key: str
) -> None:
    harness = make_harness(engine, verification={"chunk_rows": 7})
    values = ",".join(f"('{at}', 1)" for at in _TIMES)
    shard = harness.add_shard(
        "00000",
        f"CREATE TABLE t ({columns}, n INT, PRIMARY KEY ({key}))",
        f"INSERT INTO t (id, n) VALUES {values}",
    )
    harness.deploy()
    verdict = harness.verify()["00000"]
    assert verdict.verdict is Verdict.PROVEN, "\n".join(harness.explain(verdict))
    assert verdict.source_rows == verdict.topic_rows == len(_TIMES)

    cursor = harness.connection(shard, "hidden").cursor()
    cursor.execute("SET sql_log_bin = 0")
    missing = ["-10:00:01", "-30:00:01", "05:00:01", "30:00:01"]
    cursor.execute("INSERT INTO t (id, n) VALUES " + ",".join(f"('{at}', 1)" for at in missing))
    changed = [_TIMES[0], _TIMES[20], _TIMES[-1]]
    for at in changed:
        cursor.execute("UPDATE t SET n = 2 WHERE id = %s", [at])
    cursor.execute("DELETE FROM t WHERE id = %s", [_TIMES[1]])
    verdict = harness.verify()["00000"]
    assert (verdict.missing, verdict.extra, verdict.mismatched) == (4, 1, 3), "\n".join(harness.explain(verdict))
    named: dict[str, list[str]] = {}
    for sample in verdict.samples:
        named.setdefault(sample.kind, []).append(str(json.loads(sample.key)["id"]).partition(".")[0])
    assert {kind: sorted(found) for kind, found in named.items()} == {
        "missing": sorted(missing),
        "extra": [_TIMES[1]],
        "mismatched": sorted(changed),
    }
