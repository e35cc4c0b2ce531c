"""A table in the lake as an asset: each run takes what is new in its topic, and says what was proven of it."""

# Without `from __future__ import annotations`: Dagster reads the types of an asset that is made inside a function.

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import dagster as dg

from cdc_platform import wiring
from cdc_platform.defs.failures import as_failure
from cdc_platform.defs.names import Names
from cdc_platform.defs.translator import TAG_DATASET, TAG_PLATFORM, CdcTableProps, CdcTranslator
from cdc_platform.errors import TopologyError
from cdc_platform.lake.append import append_events
from cdc_platform.lake.current import merge, open_view
from cdc_platform.lake.policy import LakePolicy
from cdc_platform.lake.standing import NOT_PROVEN, standings
from cdc_platform.lake.tables import Late
from cdc_platform.verification.audit_frame import AuditFrame

LAKE = "lake"

# The check of late events, where the dataset has windows.
ON_TIME = "on_time"
_ON_TIME_MEANS = "In the last week no event came of a window that was whole already."

# Shards whose standing is shown.
_SHOWN = 50


def lake_key(table: dg.AssetKey) -> dg.AssetKey:
    """Where a table's topic lands in the lake."""
    return dg.AssetKey([*table.path, LAKE])


def build_lake_assets(
    *, tables: Iterable[CdcTableProps], translator: CdcTranslator | None = None
) -> list[dg.AssetsDefinition]:
    """**`[platform, dataset, table, "lake"]`** of each table whose dataset asks for it."""
    translator = translator or CdcTranslator()
    return [_lake_asset(props, translator.get_asset_spec(props)) for props in tables if props.lake]


def _lake_asset(props: CdcTableProps, topic: dg.AssetSpec) -> dg.AssetsDefinition:
    names = Names(props.platform)

    @dg.asset(
        required_resource_keys={names.resource},
        key=lake_key(topic.key),
        deps=[topic.key],
        group_name=topic.group_name,
        owners=list(topic.owners),
        kinds={"iceberg"},
        tags={TAG_PLATFORM: props.platform, TAG_DATASET: props.dataset},
        check_specs=[dg.AssetCheckSpec(ON_TIME, asset=lake_key(topic.key), description=_ON_TIME_MEANS)]
        if props.window_minutes
        else [],
        automation_condition=dg.AutomationCondition.eager(),
        description=(
            f"`{props.dataset}.{props.table}` as tables of Iceberg: `{props.table}_changes` has every event, "
            f"`{props.table}_base` the rows by bucket. A run is one commit."
        ),
    )
    def lake(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]
        with names.in_(context).platform() as platform, as_failure():
            topology = platform.topology.load()
            dataset = topology.dataset(props.dataset)
            policy = LakePolicy.permitted(dataset, platform.settings)
            if policy is None or not policy.takes(props.table):
                raise TopologyError(
                    f"{props.dataset}.{props.table} no longer lands in a lake.", cure="Reload the code location."
                )
            done = append_events(wiring.verification_of(platform), topology, props.dataset, props.table, policy)
            if done.snapshot is None:
                return dg.MaterializeResult(metadata={"events": 0}, check_results=_judged(props, ()))
            merged = merge(policy, props.dataset, props.table)
            state = open_view(policy, props.dataset, props.table, done.snapshot).state
            verdicts = AuditFrame(platform.settings.audit_dir).latest(props.dataset, props.table)
            found = standings(dataset.engine, state, verdicts)
        counts = Counter(each.topic_proven_to is not None for each in found)
        context.log.info(f"{done.events} events in run {done.run}; {len(merged)} buckets merged.")
        return dg.MaterializeResult(
            check_results=_judged(props, state.late),
            metadata={
                "events": done.events,
                "run": done.run,
                "snapshot": str(done.snapshot),
                "buckets_merged": len(merged),
                "proof": f"topic proven on {counts[True]} of {len(found)} shards" if counts[True] else NOT_PROVEN,
                "shards": dg.MetadataValue.table(
                    [
                        dg.TableRecord({"shard": each.shard, "position": each.position or "", "proof": each.said})
                        for each in found[:_SHOWN]
                    ],
                    schema=dg.TableSchema([dg.TableColumn(name, "string") for name in ("shard", "position", "proof")]),
                ),
            },
        )

    return lake


def _judged(props: CdcTableProps, late: Sequence[Late]) -> list[dg.AssetCheckResult]:
    if not props.window_minutes:
        return []
    lines = [
        f"{each.at[:19]}Z: {each.events} events of shard {each.shard} in the window that ended at "
        f"{datetime.fromtimestamp(each.until, UTC):%Y-%m-%dT%H:%M}, of keys {', '.join(each.keys)}"
        for each in late[:_SHOWN]
    ]
    return [
        dg.AssetCheckResult(
            passed=not late,
            check_name=ON_TIME,
            severity=dg.AssetCheckSeverity.ERROR,
            description="; ".join(lines) or _ON_TIME_MEANS,
            metadata={"advice": "Find what wrote into the source's past, and run again what used those windows."},
        )
    ]
