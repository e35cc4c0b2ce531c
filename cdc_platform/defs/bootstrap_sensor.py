"""The sensor that bootstraps shards that are new, and goes on with runs whose process died."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from cdc_platform.defs.launchpad_fields import UNLISTED, Choices
from cdc_platform.defs.live_passes import fail_dead, judge, unfinished_passes
from cdc_platform.defs.names import Names
from cdc_platform.defs.run_kinds import RunOf
from cdc_platform.defs.snapshot_jobs import TAG_RUN
from cdc_platform.defs.translator import TAG_DATASET, TAG_PLATFORM, CdcTableProps
from cdc_platform.model.naming import some_of
from cdc_platform.model.topology import BootstrapMode, Topology
from cdc_platform.snapshots.run_records import Records, Run, runs
from cdc_platform.snapshots.summary import pending

SENSOR = "bootstrap_sensor"
# A run reports every ten seconds; one that waits for its executor's next process is silent for longer.
SILENT_FOR = 300.0
# How often a run that died is gone on with before it is left to the operator.
MOST_CONTINUED = 5


def build_bootstrap_sensor(
    *,
    jobs: Sequence[dg.JobDefinition],
    tables: Iterable[CdcTableProps] = (),
    name: str | None = None,
    minimum_interval_seconds: int = 60,
    max_parallel_shards: int = 16,
    max_runs: int = 3,
    default_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.RUNNING,
) -> dg.SensorDefinition:
    """The sensor that bootstraps shards that are new, and goes on with runs whose process died.

    It takes shards that are captured already and have no watermark, one run a dataset at a time; datasets
    that start at positions are left to the operator. A run that is on record as unfinished, and that no
    Dagster run works on, is gone on with up to MOST_CONTINUED times; not one that an operator has
    canceled. It changes nothing outside Dagster.

    Args:
        jobs: those of `build_snapshot_jobs`.
        tables: the ones that these were built with.
        name: the sensor's name.
        minimum_interval_seconds: between two ticks.
        max_parallel_shards: of the bootstraps that it asks for.
        max_runs: so many runs of these jobs at once, those of people included; other datasets wait for a later tick.
        default_status: RUNNING: it works as soon as the code location is loaded.
    """

    names, choices = Names.by(*jobs), Choices.of(tables)

    @dg.sensor(
        name=name or names.of(SENSOR),
        jobs=list(jobs),
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_status,
        description="Bootstraps shards that are captured and have no data yet; goes on with runs that died.",
    )
    @names.taking
    def bootstrap_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        with names.in_(context).platform() as platform:
            topology = platform.topology.load()
            records = platform.state.read()
        label = platform.settings.platform
        working = _working(context, label)
        requests = [_continuing(run, label) for run in _orphans(context.instance, runs(records).values(), working)]
        busy = {dataset for dataset, _ in working.values()}
        for new in new_shards(topology, records):
            if new.dataset not in busy:
                config = {
                    "dataset": new.dataset,
                    "shards": list(new.shards),
                    "max_parallel_shards": max_parallel_shards,
                }
                if new.tables:
                    config |= {"tables": list(new.tables), "mode": BootstrapMode.INCREMENTAL.name}
                if not (choices.has("dataset", [new.dataset]) and choices.has("tables", new.tables)):
                    # The Launchpad's list is as old as the code location.
                    config[UNLISTED] = {"dataset": config.pop("dataset"), "tables": config.pop("tables", [])}
                requests.append(_asking(RunOf.BOOTSTRAP, new.dataset, config, label, {}))
        if not requests:
            return dg.SensorResult(skip_reason="No captured shard waits for its first data.")
        now = requests[: max(0, max_runs - len(working))]
        if len(now) < len(requests):
            later = [str(request.tags[TAG_DATASET]) for request in requests[len(now) :]]
            context.log.info(f"{max_runs} runs at once: {some_of(later, 10)} come later.")
        if not now:
            return dg.SensorResult(skip_reason=f"{len(working)} runs are under way: {len(requests)} wait.")
        return dg.SensorResult(run_requests=now)

    return bootstrap_sensor


@dataclass(frozen=True, slots=True, kw_only=True)
class NewShards:
    """Shards, by id, that wait for the first data of these tables; no tables: of all, in the dataset's own mode."""

    dataset: str
    shards: tuple[str, ...]
    tables: tuple[str, ...] = ()


def new_shards(topology: Topology, records: Records) -> list[NewShards]:
    """What is captured, was never bootstrapped and is in no run. Pure.

    Shards that stream already and have got a new table are apart: just that table is read, beside the stream.
    """
    found: list[NewShards] = []
    for name, dataset in topology.datasets.items():
        if dataset.pause is not None:
            continue
        captured = [
            shard for shard in topology.shards.get(name, ()) if f"shard/{shard.name}" in records and shard.pause is None
        ]
        waiting = pending(records, dataset, captured)
        for tables in sorted(set(waiting.values())):
            shards = tuple(shard for shard, new in waiting.items() if new == tables)
            if len(tables) < len(dataset.tables):
                found.append(NewShards(dataset=name, shards=shards, tables=tables))
            elif dataset.bootstrap is not BootstrapMode.POSITION:
                found.append(NewShards(dataset=name, shards=shards))
    return found


def _asking(
    job: RunOf, dataset: str, config: Mapping[str, Any], platform: str, tags: Mapping[str, str]
) -> dg.RunRequest:
    names = Names(platform)
    return dg.RunRequest(
        job_name=names.job(job),
        run_config={"ops": {names.of(f"open_{job}"): {"config": dict(config)}}},
        tags={TAG_PLATFORM: platform, TAG_DATASET: dataset, **tags},
    )


def _continuing(run: Run, platform: str) -> dg.RunRequest:
    config = {"continues": run.id}
    return _asking(RunOf(run.kind), run.dataset, config, platform, {TAG_RUN: run.id})


def _working(context: dg.SensorEvaluationContext, platform: str) -> dict[str, tuple[str, str | None]]:
    """Dagster run id to dataset and run, for those that are under way; those that only look so are failed."""
    found: dict[str, tuple[str, str | None]] = {}
    for kind in (RunOf.BOOTSTRAP, RunOf.BACKFILL, RunOf.SHARD):
        passes = unfinished_passes(context.instance, kind=kind, platform=platform)
        dead = judge(passes, holder=None, silent_for=SILENT_FOR).dead
        for _, reason in dead:
            context.log.warning(reason)
        fail_dead(context.instance, dead)
        gone = {run_id for run_id, _ in dead}
        for one in passes:
            run = context.instance.get_run_by_id(one.run_id)
            if run is not None and one.run_id not in gone:
                found[one.run_id] = (run.tags.get(TAG_DATASET, ""), run.tags.get(TAG_RUN))
    return found


def _orphans(
    instance: dg.DagsterInstance, known: Iterable[Run], working: Mapping[str, tuple[str, str | None]]
) -> Iterator[Run]:
    """Unfinished runs that were begun from Dagster and that no process works on."""
    worked_on = {run for _, run in working.values()} | working.keys()
    for run in known:
        if run.finished is not None or run.id in worked_on or instance.get_run_by_id(run.id) is None:
            continue
        tried = instance.get_runs(dg.RunsFilter(tags={TAG_RUN: run.id}))
        canceled = any(one.status is dg.DagsterRunStatus.CANCELED for one in tried)
        if not canceled and len(tried) <= MOST_CONTINUED:
            yield run
