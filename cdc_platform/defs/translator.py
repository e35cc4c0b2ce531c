"""From one captured table to the asset that stands for its topic."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import dagster as dg

from cdc_platform.errors import TopologyError
from cdc_platform.lake.policy import LakePolicy
from cdc_platform.model.fingerprints import fingerprint
from cdc_platform.model.topology import Dataset, Topology
from cdc_platform.verification.ports import VerificationPolicy
from cdc_platform.verification.windows.boundaries import WindowPolicy

log = logging.getLogger(__name__)

TAG_PLATFORM = "cdc/platform"
TAG_DATASET = "cdc/dataset"


@dataclass(frozen=True, slots=True, kw_only=True)
class CdcTableProps:
    """What is known of one (dataset, table) when the code location loads.

    `table` is the name inside the dataset, `source_table` the one in each shard's
    database (with its schema where the engine has them), `owners` as the dataset has them.
    `verify_schedule` is a cron line, `verify_shards` how many shards one of its runs takes (0: all, or a seventh
    where the dataset has no schedule of its own). `lake`: it lands in one. `window_minutes`: the length of the
    dataset's windows, from the day `windows_since` on; 0: it has none.
    """

    platform: str
    dataset: str
    table: str
    source_table: str
    engine: str
    topic: str
    partitions: int
    replication: int
    bootstrap: str
    clusters: tuple[str, ...] = ()
    key_columns: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    verify_schedule: str = ""
    verify_shards: int = 0
    lake: bool = False
    window_minutes: int = 0
    windows_since: str = ""

    @property
    def shards_partition(self) -> str:
        """The name of the dataset's dynamic partition axis; its keys are the shard ids."""
        return shards_partition(self.platform, self.dataset)


def shards_partition(platform: str, dataset: str) -> str:
    """**`cdc_<dataset>_shards`** for the default platform `cdc`."""
    return f"{platform}_{dataset}_shards"


def shards_key(platform: str, dataset: str) -> dg.AssetKey:
    """The asset of a dataset's shards, on the shard axis: a partition is materialized when its shard is captured."""
    return dg.AssetKey([platform, dataset, "shards"])


def platform_key(platform: str) -> dg.AssetKey:
    """The asset of the platform as a whole: one observation a pass."""
    return dg.AssetKey([platform, "platform"])


def table_props(topology: Topology, *, platform: str) -> tuple[CdcTableProps, ...]:
    """All tables of the topology, in the order of datasets and tables."""
    return tuple(
        props for name in sorted(topology.datasets) for props in _dataset_props(topology.datasets[name], platform)
    )


def _dataset_props(dataset: Dataset, platform: str) -> Iterator[CdcTableProps]:
    try:
        policy = VerificationPolicy.of(dataset)
    except TopologyError as error:
        # A verification says so when it is asked for; the assets are there all the same.
        log.error("%s", error)
        policy = VerificationPolicy()
    lands, windows = _lands(dataset), _windows(dataset)
    for table in dataset.tables:
        yield CdcTableProps(
            platform=platform,
            dataset=dataset.name,
            table=table.name,
            source_table=f"{table.schema}.{table.name}" if table.schema else table.name,
            engine=str(dataset.engine),
            topic=dataset.topic(table),
            partitions=dataset.topics.partitions,
            replication=dataset.topics.replication,
            bootstrap=str(dataset.bootstrap),
            clusters=dataset.clusters,
            key_columns=table.key,
            owners=dataset.owners,
            verify_schedule=default_schedule(dataset.name) if policy.schedule is None else policy.schedule,
            verify_shards=policy.scheduled_shards,
            lake=table.name in lands,
            window_minutes=windows.minutes if windows else 0,
            windows_since=windows.since if windows else "",
        )


def _windows(dataset: Dataset) -> WindowPolicy | None:
    try:
        return WindowPolicy.of(dataset)
    except TopologyError as error:
        log.error("%s", error)
        return None


def _lands(dataset: Dataset) -> frozenset[str]:
    """The tables that land in the dataset's lake."""
    try:
        policy = LakePolicy.of(dataset)
    except TopologyError as error:
        log.error("%s", error)
        return frozenset()
    return frozenset(table.name for table in dataset.tables if policy is not None and policy.takes(table.name))


def default_schedule(dataset: str) -> str:
    """Once a night between 1 and 5 UTC, as a cron line; each dataset at a time of its own: not all begin at once."""
    minute = int(fingerprint(dataset, 8), 16) % 240
    return f"{minute % 60} {1 + minute // 60} * * *"


class CdcTranslator:
    """Subclass it and override `get_asset_spec` to name, group or tag the assets another way.

    The specs are external: connectors move the data, no process materializes a topic by
    clicking. A topic has no partitions in Dagster: its shards are an asset of their own, upstream of it.
    """

    def get_asset_spec(self, props: CdcTableProps) -> dg.AssetSpec:
        """The asset of the table's topic, with key `[platform, dataset, table]`."""
        return dg.AssetSpec(
            key=dg.AssetKey([props.platform, props.dataset, props.table]),
            description=(
                f"Changes of table `{props.source_table}` in all shards of `{props.dataset}` "
                f"({props.engine}), captured by Debezium into Kafka topic `{props.topic}`."
            ),
            group_name=group_of(props.platform, props.dataset),
            kinds={"kafka", props.engine},
            owners=accepted_owners(props.owners, props.dataset),
            tags={TAG_PLATFORM: props.platform, TAG_DATASET: props.dataset},
            deps=[dg.AssetDep(shards_key(props.platform, props.dataset), partition_mapping=dg.AllPartitionMapping())],
            metadata={
                "dagster/table_name": props.topic,
                "dagster/storage_kind": "kafka",
                "dagster/uri": f"kafka://{props.topic}",
                "topic": props.topic,
                "topic_partitions": props.partitions,
                "topic_replication": props.replication,
                "engine": props.engine,
                "source_table": props.source_table,
                "key_columns": ", ".join(props.key_columns) or "primary key",
                "bootstrap": props.bootstrap,
                "connect_clusters": ", ".join(props.clusters),
            },
        )


def shards_spec(props: CdcTableProps) -> dg.AssetSpec:
    """The asset of the shards of the table's dataset: which are captured, and since when they have data."""
    return dg.AssetSpec(
        key=shards_key(props.platform, props.dataset),
        description=(
            f"The shards of `{props.dataset}` ({props.engine}), a partition each: materialized when its connector "
            "runs for the first time, and by each bootstrap or backfill. Materialize one to give it its first data, or "
            "to send its rows again. Observed when one goes down or comes back."
        ),
        group_name=group_of(props.platform, props.dataset),
        kinds={"debezium", props.engine},
        owners=accepted_owners(props.owners, props.dataset),
        tags={TAG_PLATFORM: props.platform, TAG_DATASET: props.dataset},
        partitions_def=dg.DynamicPartitionsDefinition(name=props.shards_partition),
        metadata={"bootstrap": props.bootstrap, "connect_clusters": ", ".join(props.clusters)},
    )


def platform_spec(platform: str, *, problem: str | None = None) -> dg.AssetSpec:
    """The asset of the platform as a whole; `problem` is what is wrong with the list of its tables."""
    return dg.AssetSpec(
        key=platform_key(platform),
        description=(
            f"The change data capture platform `{platform}`. Each pass of its control plane reports here: "
            "what it put right, what it refused, how many shards are up."
        ),
        group_name="cdc_platform",
        kinds={"debezium", "kafka"},
        tags={TAG_PLATFORM: platform},
        metadata={"tables_problem": problem} if problem else {},
    )


@cache
def group_of(platform: str, dataset: str) -> str:
    """`cdc/pins`: a group of its own below the platform's. Releases of Dagster that take no `/` show `pins`."""
    name = f"{re.sub(r'[^A-Za-z0-9_]', '_', platform)}/{dataset}"
    try:
        dg.AssetSpec("grouped", group_name=name)
    except dg.DagsterInvalidDefinitionError:
        return dataset
    return name


@cache
def accepted_owners(owners: tuple[str, ...], dataset: str) -> list[str]:
    """Those in a form that Dagster accepts; a plain name becomes a team. The others are left out, with a warning."""
    found = []
    for text in filter(None, map(str.strip, owners)):
        owner = text if "@" in text or text.startswith("team:") else f"team:{text}"
        try:
            dg.AssetSpec("owned", owners=[owner])
        except dg.DagsterInvalidDefinitionError as error:
            log.warning("dataset %s: owner %r is left out in Dagster: %s", dataset, text, error)
        else:
            found.append(owner)
    return found
