"""Windows of time as partitions of an asset for each table: materialized when whole on every shard of the dataset."""

# Without `from __future__ import annotations`: Dagster reads the types of a sensor that is made
# inside a function, and cannot resolve them as text.

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime

import dagster as dg

from cdc_platform import wiring
from cdc_platform.defs.names import Names
from cdc_platform.defs.translator import TAG_DATASET, TAG_PLATFORM, CdcTableProps, CdcTranslator
from cdc_platform.errors import CdcError
from cdc_platform.lake.policy import LakePolicy
from cdc_platform.lake.windows import lake_reached
from cdc_platform.model.naming import some_of
from cdc_platform.model.topology import Topology
from cdc_platform.settings import Settings
from cdc_platform.verification.windows.boundaries import WindowPolicy
from cdc_platform.verification.windows.progress import DatasetWindows, advance

WINDOWS = "windows"
SENSOR = "windows_sensor"

FORMAT = "%Y-%m-%dT%H:%M"

# Materialized for one table by one tick; the rest by the next.
MOST = 24
_NAMED = 10


def windows_key(table: dg.AssetKey) -> dg.AssetKey:
    """The windows of a table's topic."""
    return dg.AssetKey([*table.path, WINDOWS])


def window_partitions(minutes: int, since: str) -> dg.TimeWindowPartitionsDefinition:
    """Windows of so many minutes, in UTC, from that day on: those of a dataset's tables, and of what stands on them."""
    if minutes < 60:
        cron = f"*/{minutes} * * * *"
    elif minutes < 24 * 60:
        cron = f"0 */{minutes // 60} * * *"
    else:
        cron = "0 0 * * *"
    start = datetime.fromisoformat(since).strftime(FORMAT)
    return dg.TimeWindowPartitionsDefinition(start=start, fmt=FORMAT, cron_schedule=cron, timezone="UTC")


def build_window_assets(
    *, tables: Iterable[CdcTableProps], translator: CdcTranslator | None = None
) -> list[dg.AssetSpec]:
    """**`[platform, dataset, table, "windows"]`** of each table whose dataset has windows; nothing to execute."""
    translator = translator or CdcTranslator()
    return [_spec(props, translator.get_asset_spec(props)) for props in tables if props.window_minutes]


def _spec(props: CdcTableProps, topic: dg.AssetSpec) -> dg.AssetSpec:
    return dg.AssetSpec(
        windows_key(topic.key),
        deps=[topic.key],
        group_name=topic.group_name,
        owners=list(topic.owners),
        tags={TAG_PLATFORM: props.platform, TAG_DATASET: props.dataset},
        partitions_def=window_partitions(props.window_minutes, props.windows_since),
        description=(
            f"Windows of {props.window_minutes} minutes of `{props.dataset}.{props.table}`, by commit at the source. "
            "A partition is materialized when every shard's changes of that time are in the topic"
            + (", and in the lake." if props.lake else ".")
        ),
    )


def build_window_sensors(
    *,
    tables: Iterable[CdcTableProps],
    platform: str = "cdc",
    translator: CdcTranslator | None = None,
    minimum_interval_seconds: int = 30,
    default_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.RUNNING,
) -> list[dg.SensorDefinition]:
    """**`windows_sensor`**, where a dataset has windows: asks for boundaries, and materializes what is whole.

    Args:
        tables: the tables of the code location.
        platform: the platform's name.
        translator: the one the assets were made with.
        minimum_interval_seconds: between two ticks.
        default_status: RUNNING: it works as soon as the code location is loaded.
    """
    names, of = Names(platform), translator or CdcTranslator()
    keys = {(props.dataset, props.table): of.get_asset_spec(props).key for props in tables if props.window_minutes}
    if not keys:
        return []

    @dg.sensor(
        name=names.of(SENSOR),
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_status,
        description="Materializes windows of tables that are whole on every shard.",
    )
    @names.taking
    def windows_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        events: list[dg.AssetMaterialization] = []
        said = []
        with names.in_(context).platform() as clients, wiring.open_windows(clients) as store:
            topology = clients.topology.load()
            ports = wiring.verification_of(clients)
            for dataset in sorted({dataset for dataset, _ in keys} & topology.datasets.keys()):
                policy = WindowPolicy.of(topology.datasets[dataset])
                if policy is None:
                    continue
                found = advance(ports, store, topology, dataset, policy, time.time())
                said.append(sentence(found))
                of_dataset = {table: key for (name, table), key in keys.items() if name == dataset}
                events += whole_windows(
                    context.instance, clients.settings, topology, found, of_dataset, context.log.warning
                )
        return dg.SensorResult(asset_events=events, skip_reason=None if events else " ".join(said))

    return [windows_sensor]


def whole_windows(
    instance: dg.DagsterInstance,
    settings: Settings,
    topology: Topology,
    found: DatasetWindows,
    tables: Mapping[str, dg.AssetKey],
    warn: Callable[[str], object],
) -> Iterator[dg.AssetMaterialization]:
    """A materialization of each window that is whole and not materialized yet: by what is, not by what happened.

    Where the table lands in a lake, its runs must have come so far, too.
    """
    dataset = topology.dataset(found.dataset)
    try:
        lake = LakePolicy.permitted(dataset, settings)
    except CdcError as error:
        warn(str(error))
        return
    shards = [shard.id for shard in topology.shards.get(found.dataset, ())]
    marks = {shard: found.marks[shard] for shard in shards}
    for table, topic in tables.items():
        key = windows_key(topic)
        have = instance.get_materialized_partitions(key)
        missing = [begin for begin in found.ended() if partition(begin) not in have]
        if missing and lake is not None and lake.takes(table):
            try:
                until = lake_reached(lake, dataset, table, marks)
            except CdcError as error:
                warn(f"{found.dataset}.{table}: how far its lake is cannot be read: {error}")
                continue
            missing = [begin for begin in missing if begin + found.seconds <= until]
        for begin in missing[:MOST]:
            yield dg.AssetMaterialization(
                key,
                partition=partition(begin),
                description=f"Whole on {len(shards)} shards.",
                metadata={"shards": len(shards), **({"left": some_of(found.left, _NAMED)} if found.left else {})},
            )


def partition(begin: int) -> str:
    """The key of the window that begins there (seconds since 1970)."""
    return datetime.fromtimestamp(begin, UTC).strftime(FORMAT)


def sentence(found: DatasetWindows) -> str:
    """How far the dataset is, and who holds it up."""
    whole = found.completeness
    until = "not complete" if whole.boundary is None else f"complete up to {partition(whole.boundary)}"
    named = [f"{shard} ({why})" for shard, why in list(whole.laggards.items())[:_NAMED]]
    return f"{found.dataset}: {until}" + (f"; {len(whole.laggards)} shards lag: {', '.join(named)}." if named else ".")
