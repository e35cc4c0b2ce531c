"""The shards of a dataset as an asset that can be materialized: one run a shard, red where it failed."""

# Without `from __future__ import annotations`: Dagster reads the types of an op that is made
# inside a function, and cannot resolve them as text.

from collections.abc import Iterable
from typing import Any

import dagster as dg

from cdc_platform.defs.failures import as_failure
from cdc_platform.defs.launchpad_fields import Choices, option_fields
from cdc_platform.defs.names import Names
from cdc_platform.defs.run_kinds import TAG_KIND, RunOf
from cdc_platform.defs.snapshot_jobs import MAX_RUNTIME, TAG_RUN, shard_metadata, snapshot_ports
from cdc_platform.defs.translator import TAG_DATASET, TAG_PLATFORM, CdcTableProps, shards_spec
from cdc_platform.snapshots import run_lifecycle
from cdc_platform.snapshots.ports import SnapshotPorts
from cdc_platform.snapshots.progress_events import Listener, RunProgress, ShardDone
from cdc_platform.snapshots.request import RunKind
from cdc_platform.snapshots.request_options import options_of
from cdc_platform.snapshots.run_records import Run, runs, shard_states
from cdc_platform.snapshots.shard_request import OPTIONS_OF_A_SHARD, request_of_shard
from cdc_platform.snapshots.slice_runner import work_slice

# A Dagster backfill of more shards needs `confirm`: as one run of a job they cost a fraction.
MOST_UNCONFIRMED = 50
CONFIRM = "confirm"
# The same as a tag of the backfill, where its dialog has no config.
TAG_CONFIRM = "cdc/confirm"
# Dagster's own, on each run of a backfill.
TAG_BACKFILL = "dagster/backfill"


def build_shards_assets(*, tables: Iterable[CdcTableProps]) -> list[dg.AssetsDefinition]:
    """The asset of the shards of each dataset, on its shard axis. They take the resource `<platform>_platform`.

    Materializing a partition gives its shard its first data, or sends its rows again. Each is a run of its own, since
    Dagster shows a partition as failed for such runs only.

    Args:
        tables: from `load_tables(resource=...)`.
    """
    datasets: dict[tuple[str, str], list[CdcTableProps]] = {}
    for props in tables:
        datasets.setdefault((props.platform, props.dataset), []).append(props)
    return [_shards_asset(props[0], Choices.of(props)) for props in datasets.values()]


def _shards_asset(props: CdcTableProps, choices: Choices) -> dg.AssetsDefinition:
    names = Names(props.platform)
    spec = shards_spec(props)
    options = [option for option in options_of(RunKind.BACKFILL) if option.name in OPTIONS_OF_A_SHARD]
    confirm = dg.Field(
        bool,
        default_value=False,
        description=f"Yes, more than {MOST_UNCONFIRMED} shards, a run each; the jobs take many in one run.",
    )

    @dg.asset(
        key=spec.key,
        description=spec.description,
        group_name=spec.group_name,
        kinds=spec.kinds,
        owners=list(spec.owners),
        tags={key: value for key, value in spec.tags.items() if not key.startswith("dagster/kind/")},
        metadata=spec.metadata,
        partitions_def=spec.partitions_def,
        config_schema={**option_fields(options, choices), CONFIRM: confirm},
        required_resource_keys={names.resource},
        op_tags={TAG_PLATFORM: props.platform, TAG_DATASET: props.dataset},
    )
    def shards(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        given: dict[str, Any] = dict(context.op_execution_context.op_config)
        tags = {TAG_PLATFORM: props.platform, TAG_DATASET: props.dataset, TAG_KIND: RunOf.SHARD.value}
        context.instance.add_run_tags(context.run.run_id, {**tags, "dagster/max_runtime": str(MAX_RUNTIME)})
        _check_number(context, names, confirmed=given.pop(CONFIRM))
        with snapshot_ports(names.in_(context)) as ports, as_failure():
            return _take(context, ports, props.dataset, given)

    return shards


def _take(
    context: dg.AssetExecutionContext, ports: SnapshotPorts, dataset: str, given: dict[str, Any]
) -> dg.MaterializeResult[None]:
    """Bring the run's one shard to its end. Raises Failure with the shard's error."""
    (shard,) = context.partition_keys
    run = _opened(context, ports, dataset, shard, given)
    context.instance.add_run_tags(context.run.run_id, {TAG_RUN: run.id})
    context.log.info(f"Run {run.id}: {run.kind} of {dataset}.{shard}, tables {', '.join(run.tables)}.")
    listener = _OneShard(context, shard)
    for number in range(len(run_lifecycle.slices(run)) if run.finished is None else 0):
        work_slice(ports, run, number, listener)
    closed = run_lifecycle.finish(ports, run)
    done = listener.done
    if closed.failed:
        error = shard_states(ports.platform.state.read(), run.id)[shard].error
        said = done.sentence() if done is not None else f"{dataset}.{shard} failed: {error}"
        raise dg.Failure(description=said, metadata={"run": run.id}, allow_retries=False)
    if done is None:
        # An earlier process has done it, and died before Dagster heard of it.
        return dg.MaterializeResult(metadata={"run": run.id, "kind": str(run.kind)})
    return dg.MaterializeResult(metadata={"state": done.sentence(), **shard_metadata(run, done)})


def _opened(
    context: dg.AssetExecutionContext, ports: SnapshotPorts, dataset: str, shard: str, given: dict[str, Any]
) -> Run:
    """The snapshot run: that of the run which this one re-executes, unless it is over, or one of its own."""
    records = ports.platform.state.read()
    before = runs(records).get(context.run.root_run_id or "")
    if before is not None and before.finished is None:
        return before
    request = request_of_shard(records, ports.platform.topology.load().dataset(dataset), shard, given)
    return run_lifecycle.open_run(ports, request, context.run.run_id)


def _check_number(context: dg.AssetExecutionContext, names: Names, *, confirmed: bool) -> None:
    """Raises Failure for a run of several shards, or of a large backfill without confirmation, and cancels that."""
    jobs = f"the jobs {names.job(RunOf.BOOTSTRAP)} and {names.job(RunOf.BACKFILL)} take many in one"
    if len(context.partition_keys) != 1:
        raise dg.Failure(f"A run takes one shard; {jobs}.", allow_retries=False)
    confirmed = confirmed or context.run.tags.get(TAG_CONFIRM) == "true"
    backfill_id = context.run.tags.get(TAG_BACKFILL)
    backfill = context.instance.get_backfill(backfill_id) if backfill_id and not confirmed else None
    data = backfill and backfill.asset_backfill_data
    if backfill is None or data is None:
        return
    count = data.get_num_partitions() or 0
    if count <= MOST_UNCONFIRMED:
        return
    # Else each of its runs would start a process to say this.
    canceling = type(backfill.status)["CANCELING"]
    if backfill.status.name == "REQUESTED":
        context.instance.update_backfill(backfill.with_status(canceling))
    raise dg.Failure(
        f"{count} shards, a run each, were not confirmed: the backfill is canceled. Launch it with the config "
        f"`{CONFIRM}: true` or the tag {TAG_CONFIRM}=true; {jobs}.",
        allow_retries=False,
    )


class _OneShard(Listener):
    """Reports to the log of the run, and keeps what was said last of the shard."""

    def __init__(self, context: dg.AssetExecutionContext, shard: str) -> None:
        self._context = context
        self._shard = shard
        self.done: ShardDone | None = None

    def message(self, text: str) -> None:
        """A line of the log."""
        self._context.log.info(text)

    def progress(self, progress: RunProgress) -> None:
        """A line of the log; a warning when the shard failed."""
        log = self._context.log.warning if progress.failed else self._context.log.info
        log(progress.sentence())

    def over(self, shards: tuple[ShardDone, ...]) -> None:
        """Keep it."""
        self.done = next((one for one in shards if one.shard == self._shard), self.done)
