"""The jobs **`bootstrap`** and **`backfill`**."""

# Without `from __future__ import annotations`: Dagster reads the types of an op that is made
# inside a function, and cannot resolve them as text.

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg

from cdc_platform.clients.platform import Platform
from cdc_platform.defs.failures import as_failure
from cdc_platform.defs.launchpad_fields import REHEARSE, UNLISTED, Choices, job_fields, option_fields
from cdc_platform.defs.names import Names
from cdc_platform.defs.partitions import sync_partitions
from cdc_platform.defs.resource import CdcPlatformResource
from cdc_platform.defs.run_kinds import TAG_KIND, RunOf
from cdc_platform.defs.translator import TAG_DATASET, TAG_PLATFORM, CdcTableProps, shards_key
from cdc_platform.snapshots import run_lifecycle
from cdc_platform.snapshots.lost_positions import for_lost_shards
from cdc_platform.snapshots.observed_connectors import observe_connectors
from cdc_platform.snapshots.ports import SnapshotPorts
from cdc_platform.snapshots.progress_events import Listener, RunProgress, ShardDone
from cdc_platform.snapshots.rehearsal import rehearse
from cdc_platform.snapshots.request import Request, RunKind, bad_request
from cdc_platform.snapshots.request_options import options_of, request_of
from cdc_platform.snapshots.run_records import Phase, Run, runs, shard_states
from cdc_platform.snapshots.slice_runner import work_slice
from cdc_platform.snapshots.summary import run_summary
from cdc_platform.wiring import catalog_of, open_snapshots

TAG_RUN = "cdc/snapshot_run"
# What the Launchpads open with, beyond a dataset.
_OPENS_WITH = {"shards": [], "tables": [], REHEARSE: True}
# So long may a Dagster run take before Dagster's run monitoring ends it: days, for thousands of large shards.
MAX_RUNTIME = 7 * 24 * 3600


def build_snapshot_jobs(
    *, platform: str = "cdc", tables: Iterable[CdcTableProps] = ()
) -> tuple[dg.JobDefinition, dg.JobDefinition]:
    """The jobs **`bootstrap`** and **`backfill`**. They take the resource `cdc_platform`.

    A snapshot run is named after its first Dagster run: a re-execution goes on with it. Its shards
    are cut into slices, dynamic outputs that the executor spreads; each shard that is over logs a
    materialization of its partition.

    Args:
        platform: the platform's name.
        tables: those that the Launchpads offer; without them any text is taken.
    """
    names, choices = Names(platform), Choices.of(tables)
    tags = {TAG_PLATFORM: platform, "dagster/max_runtime": str(MAX_RUNTIME)}

    def opener(kind: RunKind) -> dg.OpDefinition:
        @dg.op(
            name=names.of(f"open_{kind}"),
            required_resource_keys={names.resource},
            config_schema={**option_fields(options_of(kind), choices), **job_fields(choices)},
            out=dg.DynamicOut(),
            tags={TAG_PLATFORM: platform},
            description="Check the request and cut its shards into slices.",
        )
        def open_run(context: dg.OpExecutionContext) -> Iterator[dg.DynamicOutput[Any]]:
            given: dict[str, Any] = dict(context.op_config)
            rehearsing, unlisted = given.pop(REHEARSE), given.pop(UNLISTED, None)
            given |= unlisted or {}
            with snapshot_ports(names.in_(context)) as ports, as_failure():
                if given["continues"]:
                    run = run_lifecycle.unfinished(ports.platform.state.read(), given["continues"])
                else:
                    request = _request(ports, kind, given)
                    if rehearsing:
                        _rehearse(context, ports, request)
                        return
                    run = run_lifecycle.open_run(ports, request, context.run.root_run_id or context.run_id)
            context.instance.add_run_tags(context.run_id, {TAG_RUN: run.id, TAG_DATASET: run.dataset})
            parts = run_lifecycle.slices(run)
            mode = f", mode {run.mode}" if run.mode else ""
            context.log.info(
                f"Run {run.id}: {len(run.shards)} shards of {run.dataset}, tables {', '.join(run.tables)}{mode}, "
                f"in {len(parts)} slices."
            )
            for number in range(len(parts)):
                yield dg.DynamicOutput({"run": run.id, "slice": number}, mapping_key=f"slice_{number:03d}")

        return open_run

    open_bootstrap, open_backfill = opener(RunKind.BOOTSTRAP), opener(RunKind.BACKFILL)

    @dg.op(name=names.of("work_slice"), required_resource_keys={names.resource}, tags={TAG_PLATFORM: platform})
    def work_on_slice(context: dg.OpExecutionContext, part: dict[str, Any]) -> dict[str, Any]:
        """Bring the shards of one slice to their end, wherever an earlier run left them."""
        with snapshot_ports(names.in_(context)) as ports, as_failure():
            run = runs(ports.platform.state.read())[part["run"]]
            if run.finished is None:
                listener = _Log(context, ports.platform, run, part["slice"])
                work_slice(ports, run, part["slice"], listener)
        return part

    @dg.op(name=names.of("close_run"), required_resource_keys={names.resource}, tags={TAG_PLATFORM: platform})
    def close_run(context: dg.OpExecutionContext, parts: list[dict[str, Any]]) -> None:
        """Close the run; it fails when a shard did."""
        if not parts:
            return
        with snapshot_ports(names.in_(context)) as ports, as_failure():
            run = runs(ports.platform.state.read())[parts[0]["run"]]
            closed = run if run.finished else run_lifecycle.finish(ports, run)
            summary = run_summary(ports.platform.state.read(), closed)
        text = (
            f"Run {run.id}: " + ", ".join(f"{count} shards {phase}" for phase, count in summary["phases"].items()) + "."
        )
        context.log.info(text)
        context.add_output_metadata({"run": run.id, "shards": summary["shards"], **summary["phases"]})
        if summary["failed"]:
            rows = [dg.TableRecord({"shard": shard, "error": str(error)}) for shard, error in summary["failed"].items()]
            raise dg.Failure(
                description=f"{text} `failed_of: {run.id}` takes the failed ones again.",
                metadata={"failed": dg.MetadataValue.table(rows[:200])},
                allow_retries=False,
            )

    @dg.job(
        name=names.job(RunOf.BOOTSTRAP),
        tags={**tags, TAG_KIND: RunOf.BOOTSTRAP.value},
        description="Give shards their first data, or start them from scratch.",
        config=choices.filled(open_bootstrap.name, **_OPENS_WITH),
    )
    def bootstrap_job() -> None:
        close_run(open_bootstrap().map(work_on_slice).collect())

    @dg.job(
        name=names.job(RunOf.BACKFILL),
        tags={**tags, TAG_KIND: RunOf.BACKFILL.value},
        description="Send rows that exist again; streams go on.",
        config=choices.filled(open_backfill.name, **_OPENS_WITH),
    )
    def backfill_job() -> None:
        close_run(open_backfill().map(work_on_slice).collect())

    return bootstrap_job, backfill_job


def _request(ports: SnapshotPorts, kind: RunKind, given: dict[str, Any]) -> Request:
    """What is asked for, checked. Raises BadInput."""
    if given["dataset"] is None:
        raise bad_request("dataset", "none is named.", "Name one.")
    request = request_of(kind, given)
    if not given.get("lost"):
        return request
    return for_lost_shards(observe_connectors(ports.platform, ports.platform.topology.load()), request)


def _rehearse(context: dg.OpExecutionContext, ports: SnapshotPorts, request: Request) -> None:
    """Say what would be done. Raises BadInput, TopologyError: it would be refused."""
    settings = ports.platform.settings
    found = rehearse(
        ports.platform.topology.load(),
        ports.platform.state.read(),
        request,
        catalog_of(settings),
        free_text=settings.permit_sql_conditions,
    )
    context.log.info(f"{found.sentence()} Nothing was changed; `{REHEARSE}: false` does it.")
    context.log_event(
        dg.AssetObservation(
            shards_key(settings.platform, request.dataset),
            description=f"Rehearsal: {found.sentence()}",
            metadata=found.document(),
        )
    )


class _Log(Listener):
    """Reports a snapshot run's progress to Dagster's event log, as part of one op."""

    def __init__(self, context: dg.OpExecutionContext, platform: Platform, run: Run, part: int) -> None:
        self._context = context
        self._run = run
        shards = run_lifecycle.slices(run)[part]
        states = shard_states(platform.state.read(), run.id)
        self._shards = len(shards)
        self._done = sum(shard in states and states[shard].phase is Phase.DONE for shard in shards)
        label = platform.settings.platform
        sync_partitions(context.instance, platform.topology.load(), platform=label, may_delete=False)
        self._key = shards_key(label, run.dataset)

    def message(self, text: str) -> None:
        """A line of the log."""
        self._context.log.info(text)

    def progress(self, progress: RunProgress) -> None:
        """A line of the log; a warning when shards failed."""
        log = self._context.log.warning if progress.failed else self._context.log.info
        log(progress.sentence())

    def over(self, shards: tuple[ShardDone, ...]) -> None:
        """A materialization of each shard that is done, under its partition."""
        for shard in shards:
            if shard.error is not None:
                self._context.log.warning(shard.sentence())
                continue
            self._done += 1
            of = f"{self._done} of {self._shards} shards"
            self._context.log_event(_materialization(self._run, shard, self._key, of=of))


def _materialization(run: Run, shard: ShardDone, key: dg.AssetKey, *, of: str) -> dg.AssetMaterialization:
    return dg.AssetMaterialization(
        asset_key=key,
        partition=shard.shard,
        description=f"{of}. {shard.sentence()}",
        metadata=shard_metadata(run, shard),
    )


def shard_metadata(run: Run, shard: ShardDone) -> dict[str, Any]:
    """What a bootstrap or backfill says of a shard that is done."""
    metadata: dict[str, Any] = {
        "run": run.id,
        "kind": str(run.kind),
        "mode": str(shard.mode or run.kind),
        "rows": sum(shard.rows.values()),
        **{f"rows_of/{table}": rows for table, rows in shard.rows.items()},
        "seconds": round(shard.seconds, 1),
        "streams_from": shard.start or "unknown",
    }
    if shard.end is not None:
        metadata["read_until"] = shard.end
    if shard.hole is not None:
        metadata["hole"] = f"{shard.hole.since} to {shard.hole.until}"
    return metadata


@contextmanager
def snapshot_ports(resource: CdcPlatformResource) -> Iterator[SnapshotPorts]:
    """What a snapshot run talks to, closed at the end."""
    with resource.platform() as platform, open_snapshots(platform) as ports:
        yield ports
