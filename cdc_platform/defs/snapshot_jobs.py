"""The jobs **`bootstrap`** and **`backfill`**."""

# Without `from __future__ import annotations`: Dagster reads the types of an op that is made
# inside a function, and cannot resolve them as text.

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
from pydantic import Field

from cdc_platform.clients.platform import Platform
from cdc_platform.defs.partitions import sync_partitions
from cdc_platform.defs.resource import CdcPlatformResource
from cdc_platform.defs.translator import TAG_PLATFORM, CdcTableProps, CdcTranslator, table_props
from cdc_platform.errors import CdcError
from cdc_platform.model.topology import BootstrapMode
from cdc_platform.reconciler.run_pass import plan_pass
from cdc_platform.snapshots import run_lifecycle as opening
from cdc_platform.snapshots.lost_positions import cure
from cdc_platform.snapshots.ports import SnapshotPorts
from cdc_platform.snapshots.progress_events import RunProgress, ShardDone
from cdc_platform.snapshots.request import KeyRange, Load, Request, RunKind
from cdc_platform.snapshots.run_records import Phase, Run, runs, shard_states
from cdc_platform.snapshots.slice_runner import work_slice
from cdc_platform.snapshots.summary import run_summary
from cdc_platform.wiring import open_snapshots

BOOTSTRAP = "bootstrap"
BACKFILL = "backfill"
TAG_RUN = "cdc/snapshot_run"
# So long may a run take before Dagster's run monitoring ends it: days, for thousands of large shards.
MAX_RUNTIME = 7 * 24 * 3600


class _RunConfig(dg.Config):
    dataset: str = Field(description="The dataset's name.")
    continues: str | None = Field(
        default=None, description="Go on with this unfinished run; all else but the dataset is taken from it."
    )
    tables: list[str] = Field(default=[], description="Only these tables; empty: all.")
    shards: list[str] = Field(
        default=[], description='Shard ids and ranges, such as "00000" or "00000-00099"; empty: all that need it.'
    )
    failed_of: str | None = Field(default=None, description="Take the shards that failed in this run (its Dagster id).")
    max_parallel_shards: int = Field(default=16, ge=1, description="Shards that are worked on at once.")
    max_parallel_per_host: int = Field(default=4, ge=1, description="Of these on one source host.")
    max_rows_per_s: int | None = Field(default=None, ge=1, description="Rows a second of all shards; none: no limit.")
    max_bytes_per_s: int | None = Field(default=None, ge=1, description="Bytes a second into Kafka, by broker quotas.")

    def load(self) -> Load:
        """How hard the run may press."""
        return Load(
            max_parallel_shards=self.max_parallel_shards,
            max_parallel_per_host=self.max_parallel_per_host,
            max_rows_per_s=self.max_rows_per_s,
            max_bytes_per_s=self.max_bytes_per_s,
        )


class BootstrapConfig(_RunConfig):
    """One bootstrap, from the launchpad or a sensor."""

    mode: BootstrapMode | None = Field(
        default=None, description="LATEST, SNAPSHOT, POSITION or INCREMENTAL; none: the dataset's own."
    )
    positions: dict[str, str] = Field(default={}, description="Shard id to GTID, FILE:POS or LSN, for mode POSITION.")
    again: bool = Field(default=False, description="Reset the offsets of shards that were bootstrapped before.")
    schema_unchanged: bool = Field(
        default=False, description="For mode POSITION: no captured table was altered since the positions."
    )
    lost: bool = Field(default=False, description="Take the shards whose binlog is purged or whose slot is gone.")

    def request(self) -> Request:
        """The request, checked. Raises BadInput."""
        return Request(
            kind=RunKind.BOOTSTRAP,
            dataset=self.dataset,
            tables=tuple(self.tables),
            shards=tuple(self.shards),
            failed_of=self.failed_of,
            mode=self.mode,
            positions=dict(self.positions),
            again=self.again,
            schema_unchanged=self.schema_unchanged,
            load=self.load(),
        )


class BackfillConfig(_RunConfig):
    """One backfill, from the launchpad."""

    condition: str | None = Field(default=None, description="An SQL condition: only rows that fulfil it.")
    key_column: str | None = Field(default=None, description="The column that key_from and key_to are about.")
    key_from: str | None = Field(default=None, description="Rows from this key on.")
    key_to: str | None = Field(default=None, description="Rows before this key.")

    def request(self) -> Request:
        """The request, checked. Raises BadInput."""
        key_range = None
        if self.key_column is not None:
            key_range = KeyRange(column=self.key_column, low=self.key_from, high=self.key_to)
        return Request(
            kind=RunKind.BACKFILL,
            dataset=self.dataset,
            tables=tuple(self.tables),
            shards=tuple(self.shards),
            failed_of=self.failed_of,
            condition=self.condition,
            key_range=key_range,
            load=self.load(),
        )


def build_snapshot_jobs(*, platform: str = "cdc", translator: CdcTranslator | None = None) -> list[dg.JobDefinition]:
    """The jobs **`bootstrap`** and **`backfill`**. They take the resource `cdc_platform`.

    A run is named after the first Dagster run of its kind: a re-execution goes on with it. Its shards
    are cut into slices, dynamic outputs that the executor spreads; each shard that is over logs a
    materialization of its partition.

    Args:
        platform: the platform's name.
        translator: the one the assets were made with, so that events find them.
    """
    translator = translator or CdcTranslator()
    tags = {TAG_PLATFORM: platform, "dagster/max_runtime": str(MAX_RUNTIME)}

    def open_for(
        context: dg.OpExecutionContext, config: _RunConfig, request: Request | None, outside: SnapshotPorts
    ) -> Iterator[dg.DynamicOutput[Any]]:
        if request is None:
            run = opening.unfinished(outside.platform.state.read(), config.continues or "")
        else:
            run = opening.open_run(outside, request, context.run.root_run_id or context.run_id)
        context.instance.add_run_tags(context.run_id, {TAG_RUN: run.id, "cdc/dataset": run.dataset})
        parts = opening.slices(run)
        mode = f", mode {run.mode}" if run.mode else ""
        context.log.info(
            f"Run {run.id}: {len(run.shards)} shards of {run.dataset}, tables {', '.join(run.tables)}{mode}, "
            f"in {len(parts)} slices."
        )
        for number in range(len(parts)):
            yield dg.DynamicOutput({"run": run.id, "slice": number}, mapping_key=f"slice_{number:03d}")

    @dg.op(name="open_bootstrap", out=dg.DynamicOut(), tags={TAG_PLATFORM: platform})
    def open_bootstrap(
        context: dg.OpExecutionContext, config: BootstrapConfig, cdc_platform: CdcPlatformResource
    ) -> Iterator[dg.DynamicOutput[Any]]:
        """Check the request and cut its shards into slices."""
        with _outside(cdc_platform) as outside, _failures():
            request = None if config.continues else config.request()
            if request is not None and config.lost:
                request = cure(plan_pass(outside.platform)[0], request)
            yield from open_for(context, config, request, outside)

    @dg.op(name="open_backfill", out=dg.DynamicOut(), tags={TAG_PLATFORM: platform})
    def open_backfill(
        context: dg.OpExecutionContext, config: BackfillConfig, cdc_platform: CdcPlatformResource
    ) -> Iterator[dg.DynamicOutput[Any]]:
        """Check the request and cut its shards into slices."""
        with _outside(cdc_platform) as outside, _failures():
            yield from open_for(context, config, None if config.continues else config.request(), outside)

    @dg.op(name="work_slice", tags={TAG_PLATFORM: platform})
    def work_on_slice(
        context: dg.OpExecutionContext, part: dict[str, Any], cdc_platform: CdcPlatformResource
    ) -> dict[str, Any]:
        """Bring the shards of one slice to their end, wherever an earlier run left them."""
        with _outside(cdc_platform) as outside, _failures():
            run = runs(outside.platform.state.read())[part["run"]]
            if run.finished is None:
                listener = _Log(context, outside.platform, translator, run, part["slice"])
                work_slice(outside, run, part["slice"], listener)
        return part

    @dg.op(name="close_run", tags={TAG_PLATFORM: platform})
    def close_run(
        context: dg.OpExecutionContext, parts: list[dict[str, Any]], cdc_platform: CdcPlatformResource
    ) -> None:
        """Close the run; it fails when a shard did."""
        with _outside(cdc_platform) as outside, _failures():
            run = runs(outside.platform.state.read())[parts[0]["run"]]
            closed = run if run.finished else opening.finish(outside, run)
            told = run_summary(outside.platform.state.read(), closed)
        text = f"Run {run.id}: " + ", ".join(f"{count} shards {phase}" for phase, count in told["phases"].items()) + "."
        context.log.info(text)
        context.add_output_metadata({"run": run.id, "shards": told["shards"], **told["phases"]})
        if told["failed"]:
            rows = [dg.TableRecord({"shard": shard, "error": str(error)}) for shard, error in told["failed"].items()]
            raise dg.Failure(
                description=f"{text} `failed_of: {run.id}` takes the failed ones again.",
                metadata={"failed": dg.MetadataValue.table(rows[:200])},
                allow_retries=False,
            )

    @dg.job(name=BOOTSTRAP, tags=tags, description="Give shards their first data, or start them anew.")
    def bootstrap_job() -> None:
        close_run(open_bootstrap().map(work_on_slice).collect())

    @dg.job(name=BACKFILL, tags=tags, description="Send rows that exist again; streams go on.")
    def backfill_job() -> None:
        close_run(open_backfill().map(work_on_slice).collect())

    return [bootstrap_job, backfill_job]


class _Log:
    """Tells a run's progress to Dagster's event log, as part of one op."""

    def __init__(
        self, context: dg.OpExecutionContext, platform: Platform, translator: CdcTranslator, run: Run, part: int
    ) -> None:
        self._context = context
        self._run = run
        shards = opening.slices(run)[part]
        states = shard_states(platform.state.read(), run.id)
        self._shards = len(shards)
        self._done = sum(shard in states and states[shard].phase is Phase.DONE for shard in shards)
        topology = platform.topology.load()
        label = platform.settings.platform
        sync_partitions(context.instance, topology, platform=label, may_delete=False)
        tables = [
            props
            for props in table_props(topology, platform=label)
            if props.dataset == run.dataset and props.table in run.tables
        ]
        self._keys = [(props, translator.get_asset_spec(props).key) for props in tables]

    def say(self, text: str) -> None:
        """A line."""
        self._context.log.info(text)

    def progress(self, progress: RunProgress) -> None:
        """A line; stuck shards are a warning."""
        tell = self._context.log.warning if progress.failed else self._context.log.info
        tell(progress.sentence())

    def over(self, shards: tuple[ShardDone, ...]) -> None:
        """A materialization a table for each shard that is done."""
        for shard in shards:
            if shard.error is not None:
                self._context.log.warning(shard.sentence())
                continue
            self._done += 1
            of = f"{self._done} of {self._shards} shards"
            for props, key in self._keys:
                self._context.log_event(_materialization(self._run, shard, props, key, of=of))


def _materialization(
    run: Run, shard: ShardDone, props: CdcTableProps, key: dg.AssetKey, *, of: str
) -> dg.AssetMaterialization:
    metadata: dict[str, Any] = {
        "run": run.id,
        "kind": str(run.kind),
        "mode": str(shard.mode or run.kind),
        "rows": shard.rows.get(props.table, 0),
        "seconds": round(shard.seconds, 1),
        "streams_from": shard.start or "unknown",
    }
    if shard.end is not None:
        metadata["read_until"] = shard.end
    if shard.hole is not None:
        metadata["hole"] = f"{shard.hole.since} to {shard.hole.until}"
    return dg.AssetMaterialization(
        asset_key=key,
        partition=shard.shard,
        description=f"{of}. {shard.sentence()}",
        metadata=metadata,
    )


@contextmanager
def _outside(resource: CdcPlatformResource) -> Iterator[SnapshotPorts]:
    with resource.platform() as platform, open_snapshots(platform) as outside:
        yield outside


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except CdcError as error:
        raise dg.Failure(
            description=str(error), metadata={"error": type(error).__name__}, allow_retries=False
        ) from error
