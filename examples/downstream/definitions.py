"""A downstream team's code location: a topic as a Parquet file, built only while the topic is complete.

    DAGSTER_HOME=$PWD/dagster_home dagster dev -f examples/downstream/definitions.py

The table's name and the target come from the environment: CDC_EXAMPLE_DATASET, CDC_EXAMPLE_TABLE
and CDC_EXAMPLE_TARGET.
"""

# Without `from __future__ import annotations`: Dagster reads the types of an asset that is made
# inside a function, and cannot resolve them as text.

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq

from cdc_platform.clients.kafka.topic_records import Records, TopicRecords
from cdc_platform.defs import (
    CdcPlatformResource,
    CdcTableProps,
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


def rows(records: Records) -> Iterator[dict[str, Any]]:
    """The topic folded: the last state of each row, with the shard it is of."""
    last: dict[bytes, bytes | None] = {}
    for partition, (begin, end) in records.bounds().partitions.items():
        for batch in records.read(partition, begin, end):
            for key, value in zip(batch.keys, batch.values, strict=True):
                if key is not None:
                    last[key] = value
    for key, value in last.items():
        event = json.loads(value) if value else None
        if event and event["after"] is not None:
            yield {**event["after"], "shard": json.loads(key)["shard"]}


def write_parquet(found: list[dict[str, Any]], target: Path) -> None:
    """All or nothing: readers see the old file or the new one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part")
    pq.write_table(pa.Table.from_pylist(found), part)
    part.replace(target)


def build_parquet_asset(props: CdcTableProps, target: Path) -> dg.AssetsDefinition:
    """The table of all shards as one Parquet file."""
    source = CdcTranslator().get_asset_spec(props).key

    @dg.asset(
        key=["lake", props.dataset, props.table],
        # The verdicts on the topic stand on its audit frame, and so do the checks that judge them.
        deps=[source, audit_key(source)],
        automation_condition=PROVEN,
        kinds={"parquet"},
        description=f"Topic {props.topic} as it stands, one row for each live key.",
    )
    def parquet(context: dg.AssetExecutionContext, cdc_platform: CdcPlatformResource) -> dg.MaterializeResult:
        # A blocking check that fails in this run has stopped us already, and `PROVEN` asks for no run while it fails;
        # this is for the runs that people start.
        require_check(context.instance, source, "complete")
        records = TopicRecords(cdc_platform.settings().kafka, props.topic)
        try:
            found = list(rows(records))
        finally:
            records.close()
        write_parquet(found, target)
        return dg.MaterializeResult(metadata={"dagster/row_count": len(found), "path": str(target)})

    return parquet


def build_automation_sensor() -> dg.AutomationConditionSensorDefinition:
    """Asks for what `PROVEN` says; Dagster's own sensor for it is off until somebody turns it on."""
    return dg.AutomationConditionSensorDefinition(
        "downstream_automation",
        target=dg.AssetSelection.key_prefixes(["lake"]),
        default_status=dg.DefaultSensorStatus.RUNNING,
    )


def build(resource: CdcPlatformResource, dataset: str, table: str, target: Path) -> dg.Definitions:
    """The table's asset, its checks (blocking), and the Parquet file made of it."""
    tables = [
        props for props in load_tables(resource=resource).tables if (props.dataset, props.table) == (dataset, table)
    ]
    return dg.Definitions(
        assets=[*build_cdc_assets(tables=tables), *(build_parquet_asset(props, target) for props in tables)],
        asset_checks=build_cdc_asset_checks(tables=tables, blocking=True),
        sensors=[build_automation_sensor()],
        resources={"cdc_platform": resource},
    )


if "CDC_EXAMPLE_DATASET" in os.environ:
    defs = build(
        CdcPlatformResource(),
        os.environ["CDC_EXAMPLE_DATASET"],
        os.environ["CDC_EXAMPLE_TABLE"],
        Path(os.environ.get("CDC_EXAMPLE_TARGET", "lake.parquet")),
    )
