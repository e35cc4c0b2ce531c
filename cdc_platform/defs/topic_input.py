"""Topics as inputs of assets: read as tables, folded by source position, typed as at the source."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
import pyarrow as pa
from pydantic import Field

from cdc_platform.clients.platform import Platform
from cdc_platform.defs.resource import CdcPlatformResource
from cdc_platform.defs.translator import shards_partition
from cdc_platform.errors import BadInput
from cdc_platform.model.naming import some_of
from cdc_platform.model.positions import Position, parse_position
from cdc_platform.model.topology import Topology
from cdc_platform.reading.batches import SHARD
from cdc_platform.reading.frames import to_duckdb, to_pandas, to_polars
from cdc_platform.reading.topic_reader import TopicReader
from cdc_platform.wiring import verification_of

if TYPE_CHECKING:
    import duckdb
    import pandas as pd
    import polars as pl

# What an input may be annotated with, by module and name: nothing is imported before it is asked for.
_FORMS = {
    "pyarrow.lib.RecordBatchReader": lambda batches: batches,
    "pyarrow.lib.Table": lambda batches: batches.read_all(),
    "polars.DataFrame": to_polars,
    "polars.LazyFrame": lambda batches: to_polars(batches).lazy(),
    "pandas.DataFrame": to_pandas,
    "duckdb.DuckDBPyRelation": to_duckdb,
}


class CdcTopic(dg.ConfigurableResource):  # type: ignore[type-arg]
    """One table's topic, read as a table. Each call reads the topic as it is then.

    `shards` are ids; all when None. Rows are those of docs/reading.md. Raises what `TopicReader` raises.
    """

    cdc_platform: CdcPlatformResource = Field(
        default=CdcPlatformResource(), description="Where ZooKeeper and Kafka are; by default as for the CLI."
    )
    dataset: str = Field(description="The dataset's name.")
    table: str = Field(description="The table's name in the dataset.")

    def batches(self, shards: Sequence[str] | None = None) -> pa.RecordBatchReader:
        """The current rows, for one pass, in bounded memory."""
        with self.cdc_platform.platform() as platform:
            return self._reader(platform, platform.topology.load(), shards).state()

    def changes(self, since: Mapping[str, str], shards: Sequence[str] | None = None) -> pa.RecordBatchReader:
        """The rows that changed behind a position of each shard, as verdicts have it (`proven_to`), for one pass."""
        with self.cdc_platform.platform() as platform:
            topology = platform.topology.load()
            engine = topology.dataset(self.dataset).engine
            positions: dict[str, Position] = {shard: parse_position(engine, text) for shard, text in since.items()}
            return self._reader(platform, topology, shards).changes(positions)

    def polars(self, shards: Sequence[str] | None = None) -> pl.DataFrame:
        """The current rows as a Polars frame. Raises ExtraMissing."""
        return to_polars(self.batches(shards))

    def pandas(self, shards: Sequence[str] | None = None) -> pd.DataFrame:
        """The current rows as a pandas frame of Arrow's types."""
        return to_pandas(self.batches(shards))

    def duckdb(self, connection: Any = None, shards: Sequence[str] | None = None) -> duckdb.DuckDBPyRelation:
        """The current rows as the temporary table `topic` of a connection. Raises ExtraMissing."""
        return to_duckdb(self.batches(shards), connection)

    def _reader(self, platform: Platform, topology: Topology, shards: Sequence[str] | None) -> TopicReader:
        return TopicReader(verification_of(platform), topology, self.dataset, self.table, shards)


class TopicInputs(abc.ABC):
    """Topics as inputs, whatever they are read from."""

    @abc.abstractmethod
    def batches(self, context: dg.InputContext) -> pa.RecordBatchReader:
        """The rows of the asset that is loaded."""

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Nothing is written to a topic from here: connectors do that."""
        raise BadInput(
            f"{context.asset_key.to_user_string()} is a topic, which only its connectors write.",
            cure="Give your asset another I/O manager.",
        )

    def load_input(self, context: dg.InputContext) -> Any:
        """The rows in the form that the input is annotated with; as `pyarrow.RecordBatchReader` without one."""
        wanted = context.dagster_type.typing_type
        if wanted is Any or wanted is None:
            return self.batches(context)
        # A package's public name for a class is not where the class stands.
        name = f"{wanted.__module__.partition('.')[0]}.{wanted.__name__}"
        known = {f"{form.partition('.')[0]}.{form.rpartition('.')[2]}": make for form, make in _FORMS.items()}
        name = name.removeprefix("_")
        if name not in known:
            raise BadInput(
                f"a topic cannot be loaded as {wanted.__module__}.{wanted.__qualname__}.",
                where=f"input {context.name}",
                cure=f"Annotate it with one of {', '.join(sorted(known))}.",
            )
        return known[name](self.batches(context))


class CdcTopicIOManager(TopicInputs, dg.ConfigurableIOManager):
    """Loads a topic's asset as a table: `spec.with_io_manager_key("cdc_topic")`, and a resource of that key.

    A run on the shard axis of the topic's dataset, alone or as a dimension, reads the shards of its partition; any
    other run reads all of them.
    """

    cdc_platform: CdcPlatformResource = Field(
        default=CdcPlatformResource(), description="Where ZooKeeper and Kafka are; by default as for the CLI."
    )

    def batches(self, context: dg.InputContext) -> pa.RecordBatchReader:
        """The current rows of the topic."""
        topic = topic_of(context)
        with self.cdc_platform.platform() as platform:
            topology = platform.topology.load()
            for dataset in topology.datasets.values():
                for table in dataset.tables:
                    if dataset.topic(table) == topic:
                        axis = shards_partition(platform.settings.platform, dataset.name)
                        ports = verification_of(platform)
                        chosen, warn = run_shards(context, axis), context.log.warning
                        return TopicReader(ports, topology, dataset.name, table.name, chosen, warn=warn).state()
        raise BadInput(
            f"no table of the topology has the topic {topic}.",
            where=f"asset {context.asset_key.to_user_string()}",
            cure="Reload the code location: the table may be gone.",
        )


class FakeCdcTopicIOManager(TopicInputs, dg.IOManager):
    """For tests of assets downstream of topics: the rows given by the user key of each topic's asset.

    Rows have the column `cdc_shard`, by which those of the run's partition are picked.
    """

    def __init__(self, rows: Mapping[str, pa.Table]) -> None:
        self._rows = dict(rows)

    def batches(self, context: dg.InputContext) -> pa.RecordBatchReader:
        """The rows of the asset."""
        key = context.asset_key
        name = key.to_user_string()
        if name not in self._rows:
            raise BadInput(
                f"there are no rows for {name}.", cure=f"There are rows for {some_of(sorted(self._rows), 10)}."
            )
        found = self._rows[name]
        shards = run_shards(context, shards_partition(*key.path[:2])) if len(key.path) > 2 else None
        if shards is not None:
            found = found.filter(pa.compute.is_in(found[SHARD], pa.array(shards, pa.string())))
        return found.to_reader()


def topic_of(context: dg.InputContext) -> str:
    """The topic of the asset that is loaded. Raises BadInput when it is none."""
    upstream = context.upstream_output
    topic = (upstream.definition_metadata or {}).get("topic") if upstream is not None else None
    if topic is None:
        raise BadInput(
            f"{context.asset_key.to_user_string()} is not the asset of a topic.",
            cure="Take its spec from `build_cdc_assets` or `CdcTranslator`.",
        )
    return str(getattr(topic, "value", topic))


def run_shards(context: dg.InputContext, axis: str) -> tuple[str, ...] | None:
    """The shards that the consuming run is about, by its partition on the axis; None: it has none there."""
    step = context.step_context
    if not step.has_partitions:
        return None
    partitions = step.run_partitions_def
    if not step.has_partition_key:
        # A run over a range of partitions: what is not on this axis alone is read whole.
        return _range(context, axis) if _is_axis(partitions, axis) else None
    if isinstance(partitions, dg.MultiPartitionsDefinition):
        names = [each.name for each in partitions.partitions_defs if _is_axis(each.partitions_def, axis)]
        key = step.partition_key
        return (key.keys_by_dimension[names[0]],) if names and isinstance(key, dg.MultiPartitionKey) else None
    return (step.partition_key,) if _is_axis(partitions, axis) else None


def _range(context: dg.InputContext, axis: str) -> tuple[str, ...]:
    found = context.step_context.partition_key_range
    keys = list(context.instance.get_dynamic_partitions(axis))
    return tuple(keys[keys.index(found.start) : keys.index(found.end) + 1])


def _is_axis(partitions: Any, axis: str) -> bool:
    return isinstance(partitions, dg.DynamicPartitionsDefinition) and partitions.name == axis
