"""The sensor that has checks judged: after each verification, and on a cadence of their own."""

# Without `from __future__ import annotations`: Dagster reads the types of a sensor that is made
# inside a function, and cannot resolve them as text.

import time
from collections.abc import Iterable, Mapping, Sequence

import dagster as dg

from cdc_platform.defs.latest_checks import Evaluated, latest_evaluations
from cdc_platform.defs.names import Names
from cdc_platform.defs.run_kinds import TAG_KIND, RunOf
from cdc_platform.defs.translator import TAG_PLATFORM

SENSOR = "checks_sensor"

# A failed run is repeated after so many seconds.
RETRY = 600.0


def build_check_job(
    *, checks: Sequence[dg.AssetChecksDefinition], name: str | None = None, platform: str = "cdc"
) -> "dg.UnresolvedAssetJobDefinition":
    """The job that judges `checks` (of `build_cdc_asset_checks`), all or some of them."""
    return dg.define_asset_job(
        name or Names(platform).job(RunOf.CHECKS),
        selection=dg.AssetSelection.checks(*checks),
        description="Judges what the last verifications, the topics and the ledgers say of each table.",
        tags={TAG_PLATFORM: platform, TAG_KIND: RunOf.CHECKS.value},
    )


def build_check_sensor(
    *,
    job: "dg.UnresolvedAssetJobDefinition",
    checks: Sequence[dg.AssetChecksDefinition],
    platform: str = "cdc",
    name: str | None = None,
    minimum_interval_seconds: int = 30,
    cadence_seconds: float = 3600.0,
    default_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.RUNNING,
) -> dg.SensorDefinition:
    """Starts `job` for the checks of tables that were verified since they were last judged, and for verdicts grown old.

    One run at a time. What is due is read from Dagster, not remembered: a run that died is asked for again. What
    `cdc-platform verify` adds is judged with the next run: the command knows no Dagster.

    Args:
        job: of `build_check_job`.
        checks: the same as the job's.
        platform: its name.
        name: the sensor's name.
        minimum_interval_seconds: between two ticks.
        cadence_seconds: a verified table is judged at least this often: verdicts get old, duplicates and breaks come
            without a verification.
        default_status: RUNNING: it works as soon as the code location is loaded.
    """
    keys = sorted({key for definition in checks for key in definition.check_keys}, key=str)

    @dg.sensor(
        name=name or Names(platform).of(SENSOR),
        job=job,
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_status,
        description="Has the checks of a table judged after each verification, and each hour.",
    )
    def checks_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        instance, now = context.instance, time.time()
        tags = {TAG_PLATFORM: platform, TAG_KIND: RunOf.CHECKS.value}
        for record in instance.get_run_records(dg.RunsFilter(tags=tags), limit=1):
            run = record.dagster_run
            if not run.is_finished:
                return dg.SensorResult(skip_reason=f"Run {run.run_id} is under way.")
            ended = now - record.update_timestamp.timestamp()
            if run.status is dg.DagsterRunStatus.FAILURE and ended < RETRY:
                return dg.SensorResult(skip_reason=f"Run {run.run_id} failed; the next in {RETRY - ended:.0f} s.")
        verified = {
            record.asset_entry.asset_key: newest.timestamp
            for record in instance.get_asset_records(list({key.asset_key for key in keys}))
            if (newest := record.asset_entry.last_materialization_record) is not None
        }
        due = due_checks(keys, verified, latest_evaluations(instance, keys), now - cadence_seconds)
        if not due:
            return dg.SensorResult(skip_reason="No verification since the checks were last judged.")
        return dg.SensorResult(run_requests=[dg.RunRequest(asset_check_keys=due, tags=tags)])

    return checks_sensor


def due_checks(
    keys: Iterable[dg.AssetCheckKey],
    verified: Mapping[dg.AssetKey, float],
    judged: Mapping[dg.AssetCheckKey, Evaluated],
    old: float,
) -> list[dg.AssetCheckKey]:
    """The checks of verified tables that were judged before the last verification, before `old`, or never. Pure.

    Args:
        keys: all checks.
        verified: when the audit frame of a table got its last verdicts, in seconds since the epoch.
        judged: the newest evaluation of each check.
        old: evaluations before that are too old.
    """
    return [
        key
        for key in keys
        if key.asset_key in verified and (key not in judged or judged[key].at < max(verified[key.asset_key], old))
    ]
