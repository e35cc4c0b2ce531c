"""The asset of a dataset's shards: materialized shard by shard, in memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import dagster as dg
import pytest

from cdc_platform.defs import snapshot_jobs
from cdc_platform.defs.partitions import sync_partitions
from cdc_platform.defs.run_kinds import TAG_KIND
from cdc_platform.defs.shards_asset import TAG_BACKFILL, TAG_CONFIRM
from cdc_platform.defs.snapshot_jobs import TAG_RUN
from cdc_platform.errors import BadInput
from cdc_platform.model.topology import BootstrapMode, Table
from cdc_platform.snapshots.run_records import runs
from cdc_platform.snapshots.shard_request import request_of_shard
from tests.defs.harness import Harness, HarnessResource, dataset, topology
from tests.defs.test_snapshot_jobs import PINS, Snapshots, failure


@pytest.fixture
def latest(
    harness: Harness, resource: HarnessResource, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> Snapshots:
    found = Snapshots(harness, resource, instance)
    monkeypatch.setattr(snapshot_jobs, "open_snapshots", found.outside)
    wanted = topology(
        datasets={"pins": dataset("pins", bootstrap=BootstrapMode.LATEST)},
        shards={"pins": topology().shards["pins"]},
    )
    harness.put(wanted)
    found.captured()
    sync_partitions(instance, wanted, platform="cdc", may_delete=False)
    return found


def click(control: Snapshots, shard: str, tags: dict[str, str] | None = None, **config: Any) -> Any:
    """What `Materialize` on a partition does."""
    job = control.defs.get_repository_def().get_implicit_job_def_for_assets([PINS])
    assert job is not None
    return job.get_subset(asset_selection={PINS}).execute_in_process(
        instance=control.instance,
        partition_key=shard,
        run_config={"ops": {"cdc__pins__shards": {"config": config}}},
        tags=tags,
        raise_on_error=False,
    )


def test_dagster_shards_can_be_materialized_one_run_each(latest: Snapshots) -> None:
    run = click(latest, "00001")
    assert run.success, failure(run)
    (record,) = latest.instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=PINS, asset_partitions=["00001"]), limit=1
    ).records
    assert record.run_id == run.run_id
    found = record.asset_materialization
    assert found is not None
    metadata = {key: value.value for key, value in found.metadata.items()}
    assert metadata["state"] == "pins.00001: 0 rows in 0 s, streams from 0-1-50."
    assert metadata["mode"] == "latest", "it had no data yet"
    (snapshot,) = runs(latest.records).values()
    assert (snapshot.id, snapshot.shards) == (run.run_id, ("00001",))
    assert snapshot.finished is not None
    started = latest.instance.get_run_by_id(run.run_id)
    assert started is not None
    assert (started.tags[TAG_KIND], started.tags[TAG_RUN]) == ("shard", run.run_id)


def test_dagster_a_shard_that_fails_is_a_failed_partition_and_taken_again_by_a_new_click(latest: Snapshots) -> None:
    latest.harness.put(
        topology(
            datasets={"pins": dataset("pins", bootstrap=BootstrapMode.POSITION)},
            shards={"pins": topology().shards["pins"]},
        )
    )
    failed = click(latest, "00001")
    assert "bootstrapped at positions" in failure(failed)
    statuses = latest.instance.get_status_by_partition(PINS, ["00000", "00001"], axis())
    assert statuses is not None
    assert statuses["00001"] is not None
    assert statuses["00001"].name == "FAILED"
    assert not runs(latest.records)
    latest.harness.put(
        topology(
            datasets={"pins": dataset("pins", bootstrap=BootstrapMode.LATEST)},
            shards={"pins": topology().shards["pins"]},
        )
    )
    assert click(latest, "00001").success
    again = latest.instance.get_status_by_partition(PINS, ["00001"], axis())
    assert again is not None
    assert again["00001"] is not None
    assert again["00001"].name == "MATERIALIZED"


def axis() -> dg.DynamicPartitionsDefinition:
    return dg.DynamicPartitionsDefinition(name="cdc_pins_shards")


def test_dagster_the_bootstrap_sensor_leaves_a_clicked_shard_to_its_run(latest: Snapshots) -> None:
    assert click(latest, "00001").success
    assert [config["shards"] for config in latest.bootstraps()] == [["00000", "00002"]]


def test_dagster_a_click_on_a_shard_that_the_topology_has_lost_says_so(latest: Snapshots) -> None:
    latest.harness.put(
        topology(
            datasets={"pins": dataset("pins", bootstrap=BootstrapMode.LATEST)},
            shards={"pins": topology().shards["pins"][:2]},
        )
    )
    assert "no shard '00002'" in failure(click(latest, "00002"))
    assert "no shards" not in failure(click(latest, "00001"))


class Status(Enum):
    REQUESTED = "REQUESTED"
    CANCELING = "CANCELING"


@dataclass
class Backfill:
    """What is asked of Dagster's own backfill."""

    count: int
    status: Status = Status.REQUESTED

    @property
    def asset_backfill_data(self) -> Backfill:
        return self

    def get_num_partitions(self) -> int:
        return self.count

    def with_status(self, status: Status) -> Backfill:
        return replace(self, status=status)


def test_dagster_a_backfill_of_more_than_fifty_shards_wants_to_be_confirmed_and_is_canceled(
    latest: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {"b1": Backfill(51), "b2": Backfill(50)}
    monkeypatch.setattr(dg.DagsterInstance, "get_backfill", lambda instance, name: kept.get(name))
    monkeypatch.setattr(dg.DagsterInstance, "update_backfill", lambda instance, one: kept.update(b1=one))
    refused = click(latest, "00001", tags={TAG_BACKFILL: "b1"})
    assert failure(refused).startswith("51 shards, a run each, were not confirmed: the backfill is canceled.")
    assert kept["b1"].status is Status.CANCELING
    assert not runs(latest.records)
    assert click(latest, "00001", tags={TAG_BACKFILL: "b1", TAG_CONFIRM: "true"}).success
    assert click(latest, "00000", tags={TAG_BACKFILL: "b1"}, confirm=True).success
    assert click(latest, "00002", tags={TAG_BACKFILL: "b2"}).success


def test_a_shard_gets_its_first_data_or_its_rows_again() -> None:
    tables = (Table(name="pins"), Table(name="boards"))
    of = dataset("pins", tables=tables, bootstrap=BootstrapMode.SNAPSHOT)
    mark = {"mode": "snapshot", "run": "r1", "position": "0-1-5", "offset": {}, "since": "2026-01-01T00:00:00+00:00"}
    half = {"watermark/pins/pins/00001": mark}
    whole = {**half, "watermark/pins/boards/00001": mark}
    assert request_of_shard({}, of, "00001", {}).kind == "bootstrap"
    assert request_of_shard({}, of, "00001", {}).tables == ()
    lacking = request_of_shard(half, of, "00001", {})
    assert (lacking.kind, lacking.tables, lacking.mode) == ("bootstrap", ("boards",), BootstrapMode.INCREMENTAL)
    again = request_of_shard(whole, of, "00001", {"condition": "id > 3", "max_rows_per_s": 10})
    assert (again.kind, again.shards, again.condition) == ("backfill", ("00001",), "id > 3")
    assert again.load.max_rows_per_s == 10
    with pytest.raises(BadInput, match="bootstrap takes all rows"):
        request_of_shard({}, of, "00001", {"condition": "id > 3"})
