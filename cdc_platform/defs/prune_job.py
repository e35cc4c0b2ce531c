"""The job **`prune`**: old runs of the platform's jobs leave Dagster's storage, with their logs."""

# Without `from __future__ import annotations`: Dagster reads the types of an op that is made
# inside a function, and cannot resolve them as text.

from collections import Counter
from datetime import UTC, datetime, timedelta

import dagster as dg
from pydantic import Field

from cdc_platform.defs.names import Names
from cdc_platform.defs.run_kinds import TAG_KIND, RunOf
from cdc_platform.defs.translator import TAG_DATASET, TAG_PLATFORM

# Of each kind and dataset so many of the newest stay, however old they are: alerts and people look at them.
MOST_KEPT = 50
OLD = 30.0

_OVER = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
_PAGE = 500


class PruneConfig(dg.Config):
    """Which runs go."""

    older_than_days: float = Field(default=OLD, ge=0, description="Runs that were created before that many days.")
    most: int = Field(default=5000, ge=1, description="At most so many at once; the others go with the next run.")


def build_prune_job(*, platform: str = "cdc") -> dg.JobDefinition:
    """**`<platform>_prune`**: deletes old runs that are over and that carry this platform's tags; no one else's.

    The newest runs of each kind and dataset stay, and so does a run whose event is the newest materialization of an
    asset or a partition: without it Dagster would show a shard as missing, an idle topic without its last numbers.

    Args:
        platform: the platform's name.
    """
    names, tags = Names(platform), {TAG_PLATFORM: platform}

    @dg.op(name=names.of("prune_runs"), tags=tags)
    def prune_runs(context: dg.OpExecutionContext, config: PruneConfig) -> None:
        old = _old_runs(context.instance, platform, datetime.now(UTC) - timedelta(days=config.older_than_days))
        newest = _NewestRuns(context.instance)
        deleted: Counter[str] = Counter()
        kept = 0
        for run in old:
            if deleted.total() >= config.most:
                context.log.info(f"{len(old) - kept - deleted.total()} more are left to the next run.")
                break
            if newest.shows(run.run_id):
                kept += 1
                continue
            context.instance.delete_run(run.run_id)
            deleted[run.tags[TAG_KIND]] += 1
        said = ", ".join(f"{count} of {kind}" for kind, count in sorted(deleted.items())) or "none"
        context.log.info(f"Deleted runs: {said}; {kept} are the newest of an asset or shard, and stay.")
        context.add_output_metadata({"deleted": deleted.total(), "kept_as_newest": kept})

    @dg.job(
        name=names.job(RunOf.PRUNE),
        tags={**tags, TAG_KIND: RunOf.PRUNE.value},
        description="Deletes old runs of the platform's jobs from Dagster's storage.",
        executor_def=dg.in_process_executor,
    )
    def prune_job() -> None:
        prune_runs()

    return prune_job


def build_prune_schedule(
    *,
    job: dg.JobDefinition,
    older_than_days: float = OLD,
    default_status: dg.DefaultScheduleStatus = dg.DefaultScheduleStatus.RUNNING,
) -> dg.ScheduleDefinition:
    """Once a day, `<job>_daily`.

    Args:
        job: of `build_prune_job`.
        older_than_days: what its runs delete.
        default_status: RUNNING: it works as soon as the code location is loaded.
    """
    names = Names.by(job)
    config = {"older_than_days": older_than_days}
    return dg.ScheduleDefinition(
        name=names.of("prune_daily"),
        job=job,
        cron_schedule="15 5 * * *",
        execution_timezone="UTC",
        run_config={"ops": {names.of("prune_runs"): {"config": config}}},
        default_status=default_status,
        description=f"Deletes the platform's runs that are older than {older_than_days:g} days.",
    )


def _old_runs(instance: dg.DagsterInstance, platform: str, before: datetime) -> list[dg.DagsterRun]:
    """Those that are over and created before, the oldest first; without the newest of each kind and dataset."""
    found: list[dg.DagsterRun] = []
    for kind in RunOf:
        seen: Counter[str] = Counter()
        cursor = None
        wanted = dg.RunsFilter(tags={TAG_PLATFORM: platform, TAG_KIND: kind.value}, statuses=_OVER)
        while records := instance.get_run_records(wanted, limit=_PAGE, cursor=cursor):
            cursor = records[-1].dagster_run.run_id
            for record in records:
                run = record.dagster_run
                dataset = run.tags.get(TAG_DATASET, "")
                seen[dataset] += 1
                if seen[dataset] > MOST_KEPT and record.create_timestamp < before:
                    found.append(run)
    return found[::-1]


class _NewestRuns:
    """By which runs Dagster shows assets and partitions as materialized; each is asked for once."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._runs: dict[tuple[dg.AssetKey, str | None], str | None] = {}

    def shows(self, run_id: str) -> bool:
        """Whether one of the run's events is the newest materialization of an asset or of a partition."""
        cursor = None
        while True:
            page = self._instance.get_records_for_run(
                run_id, cursor=cursor, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION, limit=_PAGE
            )
            made = [record.event_log_entry.asset_materialization for record in page.records]
            if any(one is not None and self._of(one.asset_key, one.partition) == run_id for one in made):
                return True
            if not page.has_more:
                return False
            cursor = page.cursor

    def _of(self, key: dg.AssetKey, partition: str | None) -> str | None:
        if (key, partition) not in self._runs:
            wanted = dg.AssetRecordsFilter(asset_key=key, asset_partitions=None if partition is None else [partition])
            newest = self._instance.fetch_materializations(wanted, limit=1).records
            self._runs[key, partition] = newest[0].run_id if newest else None
        return self._runs[key, partition]
