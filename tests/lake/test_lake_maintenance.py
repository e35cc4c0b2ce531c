"""Upkeep of a lake: what readers see stays, files and snapshots go, and an erased key is in no file."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cdc_platform.errors import BadInput, LakeHeld
from cdc_platform.lake import maintenance
from cdc_platform.lake.current import merge, open_view
from cdc_platform.lake.maintenance import compact, erase, expire, view_digest, whole_snapshots
from cdc_platform.lake.policy import LakePolicy
from cdc_platform.lake.tables import open_tables
from cdc_platform.verification.proof.verdicts import Verdict
from tests.lake.test_lake import events, of_the_topic, rows, run, source_rows, verdicts, worked
from tests.verification.proof.memory import MemoryWorld

NOW = datetime.now(UTC) + timedelta(hours=1)


@pytest.fixture
def world(tmp_path: Path, policy: LakePolicy) -> MemoryWorld:
    made = MemoryWorld(tmp_path / "cache", shards=("00000", "00001"))
    made.cache.mkdir()
    for turn in range(4):
        worked(made, turn)
        run(made, policy)
        merge(policy, "d", "t")
    return made


def data_files(tmp_path: Path) -> Iterator[Path]:
    return (tmp_path / "lake").rglob("*.parquet")


def assert_as_before(world: MemoryWorld, policy: LakePolicy) -> None:
    assert rows(open_view(policy, "d", "t")) == source_rows(world)
    assert events(policy) == of_the_topic(world)
    assert {verdict.verdict for verdict in verdicts(world, policy).values()} == {Verdict.PROVEN}


def test_lake_expire_forgets_snapshots_and_removes_their_files_and_no_row_changes(
    world: MemoryWorld, policy: LakePolicy, tmp_path: Path
) -> None:
    files = set(data_files(tmp_path))
    assert expire(policy, "d", "t", timedelta(days=7), NOW).snapshots == 0
    found = expire(policy, "d", "t", timedelta(), NOW)
    assert found.snapshots > 3
    assert found.digest == view_digest(policy, "d", "t")
    gone = files - set(data_files(tmp_path))
    assert gone, "files that merges replaced"
    assert found.files_removed > len(gone), "manifests and files of runs, too"
    assert_as_before(world, policy)
    worked(world, 5)
    run(world, policy)
    merge(policy, "d", "t")
    assert_as_before(world, policy)


def test_lake_compact_makes_few_files_of_many_and_keeps_events_rows_and_time_travel(
    world: MemoryWorld, policy: LakePolicy
) -> None:
    changes = open_tables(policy, "d", "t").changes()
    assert changes is not None
    was = {found.snapshot_id: rows(open_view(policy, "d", "t", found.snapshot_id)) for found in changes.snapshots()}
    found = compact(policy, "d", "t")
    assert (found.files_before, found.files_after) == (4, 1)
    assert_as_before(world, policy)
    for snapshot, before in was.items():
        assert rows(open_view(policy, "d", "t", snapshot)) == before
    snapshots = whole_snapshots(changes.refresh())
    assert len(snapshots) == len(was) + 1, "the one between removing and adding files is no state of the table"
    assert rows(open_view(policy, "d", "t", snapshots[0].snapshot_id)) == source_rows(world)
    assert run(world, policy).events == 0, "the compacted table is of the same run"
    worked(world, 5)
    run(world, policy)
    assert_as_before(world, policy)
    assert compact(policy, "d", "t").files_before == 2


def test_lake_erase_leaves_a_deleted_key_in_no_file_and_all_others_as_they_were(
    world: MemoryWorld, policy: LakePolicy, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=r"still has the row 30 of shard 00001: it would come again"):
        erase(policy, "d", "t", "00001", "30", NOW)
    world.tables["00001"].delete(30)
    run(world, policy)
    before = view_digest(policy, "d", "t")
    found = erase(policy, "d", "t", "00001", "30", NOW)
    assert found.rows_erased >= 4
    assert found.digest == before == view_digest(policy, "d", "t")
    for path in data_files(tmp_path):
        pairs = pq.read_table(path, columns=["cdc_shard", "cdc_key"]).to_pylist()
        assert {"cdc_shard": "00001", "cdc_key": "30"} not in pairs, path
    assert rows(open_view(policy, "d", "t")) == source_rows(world)
    assert {verdict.verdict for verdict in verdicts(world, policy).values()} == {Verdict.PROVEN}
    assert run(world, policy).events == 0, "a run does not bring it back"
    assert erase(policy, "d", "t", "00001", "30", NOW).rows_erased == 0


def test_lake_upkeep_that_changes_a_row_is_held(
    world: MemoryWorld, policy: LakePolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = maintenance._rewrite

    def lossy(changes: Any) -> None:
        real(changes)
        changes.refresh().delete("cdc_run = 4", snapshot_properties=maintenance._properties(changes))

    monkeypatch.setattr(maintenance, "_rewrite", lossy)
    with pytest.raises(LakeHeld, match="is not what it was before"):
        compact(policy, "d", "t")
