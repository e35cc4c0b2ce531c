"""Windows on real servers: a transaction open across two boundaries, an idle shard, and how long until one is whole."""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path

import pytest

from cdc_platform.lake.append import append_events
from cdc_platform.lake.policy import LakePolicy
from cdc_platform.lake.windows import window_events
from cdc_platform.model.topology import Engine
from cdc_platform.verification.windows.boundaries import WindowPolicy
from cdc_platform.verification.windows.progress import DatasetWindows, advance
from tests.verification.proof.harness import Harness, MakeHarness

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

MINUTE = 60


@pytest.mark.parametrize(
    "engine", [Engine.MARIADB, Engine.POSTGRES, pytest.param(Engine.MYSQL, marks=pytest.mark.slow)]
)
def test_watermark_lake_windows_are_cut_by_commit_on_real_servers(
    make_harness: MakeHarness, engine: Engine, tmp_path: Path
) -> None:
    (tmp_path / "lake").mkdir()
    policy = LakePolicy(catalog=f"sqlite:///{tmp_path}/lake/c.db", warehouse=f"file://{tmp_path}/lake", buckets=2)
    harness = make_harness(engine, windows={"minutes": 1})
    busy = harness.add_shard("00000", "CREATE TABLE t (id INT PRIMARY KEY, v TEXT)")
    harness.add_shard("00001", "CREATE TABLE t (id INT PRIMARY KEY, v TEXT)")
    if not engine.reads_binlog:
        for shard in harness.shards:
            harness.own(shard, "t")
    harness.deploy()
    harness.verify()  # waits until the snapshots have ended
    platform = harness.platform()
    ports = harness.outside(platform)

    def boundary(number: int, whole: int) -> DatasetWindows:
        """Let this boundary pass, and wait until so many windows are whole."""
        end = time.monotonic() + 120
        while True:
            found = advance(
                ports,
                platform.state,
                harness.topology,
                harness.name,
                WindowPolicy(minutes=1),
                number * MINUTE + 1,
                wait_seconds=5.0,
            )
            if len(found.ended()) >= whole or time.monotonic() > end:
                assert len(found.ended()) == whole, found.completeness
                return found

    insert = "INSERT INTO t VALUES (%s, 'v')"
    boundary(0, 0)
    harness.execute(busy, insert, (1,))
    boundary(1, 0)
    with open_transaction(harness) as cursor:
        cursor.execute(insert, (2,))
        harness.execute(busy, insert, (3,))
        boundary(2, 1)
        harness.execute(busy, insert, (4,))
        boundary(3, 2)
        cursor.execute("COMMIT")
    found = boundary(4, 3)
    append_events(ports, harness.topology, harness.name, "t", policy)
    events: dict[int, set[int]] = defaultdict(set)
    for begin in found.ended():
        for batch in window_events(policy, harness.dataset, "t", found.marks, begin):
            events[begin // MINUTE] |= set(batch["id"].to_pylist())
    assert dict(events) == {1: {3}, 2: {4}, 3: {2}}


class open_transaction:
    """A transaction on the first shard, in a connection of its own."""

    def __init__(self, harness: Harness) -> None:
        self._cursor = harness.connection(harness.shards[0], "open").cursor()

    def __enter__(self):  # type: ignore[no-untyped-def]
        self._cursor.execute("BEGIN")
        return self._cursor

    def __exit__(self, *error: object) -> None:
        self._cursor.close()
