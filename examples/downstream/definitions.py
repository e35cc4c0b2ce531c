"""A downstream team's code location: a topic, read as a table, becomes a Parquet file; only while it is complete.

    DAGSTER_HOME=$PWD/dagster_home dagster dev -f examples/downstream/definitions.py

The table's name and the target come from the environment: CDC_EXAMPLE_DATASET, CDC_EXAMPLE_TABLE
and CDC_EXAMPLE_TARGET.
"""

# Without `from __future__ import annotations`: Dagster reads the types of an asset that is made
# inside a function, and cannot resolve them as text.

import os
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq

from cdc_platform.defs import (
    CdcPlatformResource,
    CdcTableProps,
    CdcTopicIOManager,
    CdcTranslator,
    audit_key,
    build_cdc_asset_checks,
    build_cdc_assets,
    load_tables,
    on_proof,
    require_check,
)

# Built anew each time the topic was judged, and not while one of its blocking (critical) checks fails.
PROVEN = on_proof()


def write_parquet(batches: pa.RecordBatchReader, target: Path) -> int:
    """All or nothing: readers see the old file or the new one. Returns the number of rows."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part")
    count = 0
    with pq.ParquetWriter(part, batches.schema) as file:
        for batch in batches:
            file.write_batch(batch)
            count += len(batch)
    part.replace(target)
    return count


def build_parquet_asset(props: CdcTableProps, target: Path) -> dg.AssetsDefinition:
    """The table of all shards as one Parquet file."""
    source = CdcTranslator().get_asset_spec(props).key

    @dg.asset(
        key=["lake", props.dataset, props.table],
        # The verdicts on the topic stand on its audit frame, and so do the checks that judge them.
        ins={"topic": dg.AssetIn(source)},
        deps=[audit_key(source)],
        automation_condition=PROVEN,
        kinds={"parquet"},
        description=f"Topic {props.topic} as it stands, one row for each live key.",
    )
    def parquet(context: dg.AssetExecutionContext, topic: pa.RecordBatchReader) -> dg.MaterializeResult:
        # A blocking check that fails in this run has stopped us already, and `PROVEN` asks for no run while it fails;
        # this is for the runs that people start.
        require_check(context.instance, source, "complete")
        count = write_parquet(topic, target)
        return dg.MaterializeResult(metadata={"dagster/row_count": count, "path": str(target)})

    return parquet


def build_automation_sensor() -> dg.AutomationConditionSensorDefinition:
    """Asks for what `PROVEN` says; Dagster's own sensor for it is off until somebody turns it on."""
    return dg.AutomationConditionSensorDefinition(
        "downstream_automation",
        target=dg.AssetSelection.key_prefixes(["lake"]),
        default_status=dg.DefaultSensorStatus.RUNNING,
    )


def build(
    resource: CdcPlatformResource, dataset: str, table: str, target: Path, topics: dg.IOManager | None = None
) -> dg.Definitions:
    """The table's asset, its checks (blocking), and the Parquet file made of it. `topics`: a fake, in tests."""
    tables = [
        props for props in load_tables(resource=resource).tables if (props.dataset, props.table) == (dataset, table)
    ]
    return dg.Definitions(
        assets=[
            *(spec.with_io_manager_key("cdc_topic") for spec in build_cdc_assets(tables=tables)),
            *(build_parquet_asset(props, target) for props in tables),
        ],
        asset_checks=build_cdc_asset_checks(tables=tables, blocking=True),
        sensors=[build_automation_sensor()],
        resources={"cdc_platform": resource, "cdc_topic": topics or CdcTopicIOManager(cdc_platform=resource)},
    )


if "CDC_EXAMPLE_DATASET" in os.environ:
    defs = build(
        CdcPlatformResource(),
        os.environ["CDC_EXAMPLE_DATASET"],
        os.environ["CDC_EXAMPLE_TABLE"],
        Path(os.environ.get("CDC_EXAMPLE_TARGET", "lake.parquet")),
    )
