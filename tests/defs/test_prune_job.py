"""The job `prune`: which runs go, and which stay."""

# Without `from __future__ import annotations`: Dagster reads the types of an op, and cannot resolve them as text.

import dagster as dg

from cdc_platform.defs import CdcPlatformComponent
from cdc_platform.defs.prune_job import MOST_KEPT, build_prune_job
from cdc_platform.defs.run_kinds import TAG_KIND, RunOf
from cdc_platform.defs.translator import TAG_DATASET, TAG_PLATFORM
from tests.defs.harness import HarnessResource

SHARDS = dg.AssetKey(["cdc", "pins", "shards"])
AXIS = dg.DynamicPartitionsDefinition(name="cdc_pins_shards")


@dg.op
def materialize(context: dg.OpExecutionContext) -> None:
    for shard in context.run.tags.get("shards", "").split():
        context.log_event(dg.AssetMaterialization(SHARDS, partition=shard))
    for table in context.run.tags.get("tables", "").split():
        context.log_event(dg.AssetMaterialization(["cdc", "pins", table]))


def ran(
    instance: dg.DagsterInstance, *, platform: str = "cdc", dataset: str = "pins", shards: str = "", tables: str = ""
) -> str:
    """One backfill that is over; its id."""

    @dg.job(executor_def=dg.in_process_executor)
    def job() -> None:
        materialize()

    tags = {
        TAG_PLATFORM: platform,
        TAG_KIND: RunOf.BACKFILL.value,
        "shards": shards,
        "tables": tables,
        **({TAG_DATASET: dataset} if dataset else {}),
    }
    return job.execute_in_process(instance=instance, tags=tags).run_id


def prune(instance: dg.DagsterInstance, **config: float) -> None:
    config = {"older_than_days": 0.0, **config}
    done = build_prune_job().execute_in_process(
        instance=instance, run_config={"ops": {"prune_runs": {"config": config}}}
    )
    assert done.success


def left(instance: dg.DagsterInstance) -> set[str]:
    return {run.run_id for run in instance.get_runs() if run.job_name == "job"}


def test_dagster_prune_deletes_old_runs_but_the_newest_and_those_that_a_shard_is_shown_by(
    instance: dg.DagsterInstance,
) -> None:
    instance.add_dynamic_partitions("cdc_pins_shards", ["00000", "00001"])
    first = ran(instance, shards="00000 00001")
    again = ran(instance, shards="00000")
    third = ran(instance, shards="00000")
    other = ran(instance, platform="eu")
    newest = [ran(instance) for _ in range(MOST_KEPT)]
    lone = ran(instance, dataset="orders")
    prune(instance, older_than_days=1.0)
    assert len(left(instance)) == len(newest) + 5, "none of them is a day old"
    prune(instance)
    assert left(instance) == {first, third, other, lone, *newest}
    assert again not in left(instance)
    found = instance.get_status_by_partition(SHARDS, ["00000", "00001"], AXIS)
    assert found is not None
    assert {one.name for one in found.values() if one is not None} == {"MATERIALIZED"}


def test_dagster_prune_leaves_the_newest_materialization_of_a_topic_that_is_idle(instance: dg.DagsterInstance) -> None:
    before = ran(instance, tables="idle busy")
    idle = ran(instance, tables="idle")
    busy = [ran(instance, tables="busy") for _ in range(MOST_KEPT + 1)]
    prune(instance)
    assert left(instance) == {idle, *busy[1:]}
    assert before not in left(instance)
    newest = instance.get_latest_materialization_event(dg.AssetKey(["cdc", "pins", "idle"]))
    assert newest is not None
    assert newest.run_id == idle
    [record] = instance.get_asset_records([dg.AssetKey(["cdc", "pins", "idle"])])
    assert record.asset_entry.last_materialization_record is not None


def test_dagster_prune_has_a_schedule(resource: HarnessResource) -> None:
    found = dg.build_defs_for_component(CdcPlatformComponent(platform=resource))
    schedule = found.get_repository_def().get_schedule_def("prune_daily")
    assert (schedule.job_name, schedule.default_status) == ("cdc_prune", dg.DefaultScheduleStatus.RUNNING)
    assert dg.validate_run_config(found.resolve_job_def("cdc_prune"), {"ops": {"prune_runs": {"config": {}}}})
