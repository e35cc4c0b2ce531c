"""A downstream team's code location: an aggregate for each window of a table that is known to be complete.

    DAGSTER_HOME=$PWD/dagster_home dagster dev -f examples/downstream/windows.py

The dataset needs the blocks `lake` and `windows` (docs/lake.md, docs/windows.md). The table's name and the target come
from the environment: CDC_EXAMPLE_DATASET, CDC_EXAMPLE_TABLE and CDC_EXAMPLE_TARGET.
"""

# Without `from __future__ import annotations`: Dagster reads the types of an asset that is made
# inside a function, and cannot resolve them as text.

import os
from pathlib import Path

import dagster as dg
import polars as pl

from cdc_platform.defs import (
    CdcPlatformResource,
    CdcTableProps,
    CdcTranslator,
    build_cdc_assets,
    build_lake_assets,
    build_window_assets,
    build_window_sensors,
    load_tables,
    window_partitions,
    windows_key,
)
from cdc_platform.lake.policy import LakePolicy
from cdc_platform.lake.windows import window_events
from cdc_platform.verification.windows.progress import known_windows

# Each window that became whole, not only the newest one.
EACH_WINDOW = dg.AutomationCondition.eager().without(dg.AutomationCondition.in_latest_time_window())


def changed_keys(events: pl.DataFrame) -> pl.DataFrame:
    """How many keys of each shard were changed, and how many deleted, however often their events were sent."""
    last = pl.col("cdc_operation").sort_by("cdc_seq", "cdc_offset").last() == "d"
    of_keys = events.group_by("cdc_shard", "cdc_key").agg(last.alias("deleted"))
    return of_keys.group_by("cdc_shard").agg(pl.len().alias("changed"), pl.col("deleted").sum()).sort("cdc_shard")


def build_windows_asset(props: CdcTableProps, target: Path) -> dg.AssetsDefinition:
    """A Parquet file for each window: keys that changed, by shard."""
    topic = CdcTranslator().get_asset_spec(props).key

    @dg.asset(
        key=["activity", props.dataset, props.table],
        deps=[windows_key(topic)],
        partitions_def=window_partitions(props.window_minutes, props.windows_since),
        automation_condition=EACH_WINDOW,
        kinds={"polars", "parquet"},
    )
    def activity(context: dg.AssetExecutionContext, cdc_platform: CdcPlatformResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
        begin = int(context.partition_time_window.start.timestamp())
        with cdc_platform.platform() as platform:
            dataset = platform.topology.load().dataset(props.dataset)
            policy, known = LakePolicy.of(dataset), known_windows(platform.state.read(), props.dataset)
            if policy is None or known is None:
                raise dg.Failure("the dataset needs the blocks `lake` and `windows`, and a tick of windows_sensor.")
            frames = [pl.DataFrame(batch) for batch in window_events(policy, dataset, props.table, known[2], begin)]
        target.mkdir(parents=True, exist_ok=True)
        file = target / f"{context.partition_key.replace(':', '')}.parquet"
        counted = changed_keys(pl.concat(frames)) if frames else pl.DataFrame(schema={"cdc_shard": pl.String})
        counted.write_parquet(file)
        return dg.MaterializeResult(metadata={"file": str(file), "shards": len(counted)})

    return activity


def build(resource: CdcPlatformResource, dataset: str, table: str, target: Path) -> dg.Definitions:
    """The table's topic, lake and windows, and the files made of these."""
    tables = [
        props for props in load_tables(resource=resource).tables if (props.dataset, props.table) == (dataset, table)
    ]
    return dg.Definitions(
        assets=[
            *build_cdc_assets(tables=tables),
            *build_lake_assets(tables=tables),
            *build_window_assets(tables=tables),
            *(build_windows_asset(props, target) for props in tables if props.window_minutes),
        ],
        sensors=build_window_sensors(tables=tables),
        resources={"cdc_platform": resource},
    )


if "CDC_EXAMPLE_DATASET" in os.environ:
    defs = build(
        CdcPlatformResource(),
        os.environ["CDC_EXAMPLE_DATASET"],
        os.environ["CDC_EXAMPLE_TABLE"],
        Path(os.environ.get("CDC_EXAMPLE_TARGET", "activity")),
    )
