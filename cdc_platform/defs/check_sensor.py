"""The sensor that has checks judged as soon as a verification has left new verdicts."""

# Without `from __future__ import annotations`: Dagster reads the types of a sensor that is made
# inside a function, and cannot resolve them as text.

import json
from collections.abc import Mapping, Sequence

import dagster as dg

from cdc_platform.defs.audit_asset import AUDIT
from cdc_platform.model.fingerprints import fingerprint

SENSOR = "checks_sensor"
JOB = "checks"


def build_check_job(
    *, checks: Sequence[dg.AssetChecksDefinition], name: str = JOB
) -> "dg.UnresolvedAssetJobDefinition":
    """The job that judges `checks` (of `build_cdc_asset_checks`), all or some of them."""
    return dg.define_asset_job(
        name,
        selection=dg.AssetSelection.checks(*checks),
        description="Judges what the last verifications, the topics and the ledgers say of each table.",
    )


def build_check_sensor(
    *,
    job: "dg.UnresolvedAssetJobDefinition",
    checks: Sequence[dg.AssetChecksDefinition],
    name: str = SENSOR,
    minimum_interval_seconds: int = 30,
    default_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.RUNNING,
) -> dg.SensorDefinition:
    """Starts `job` for the tables whose audit frame a run of `verify` has added to since they were last judged.

    What `cdc-platform verify` adds is judged with the next run: the command knows no Dagster.

    Args:
        job: of `build_check_job`.
        checks: the same as the job's.
        name: the sensor's name.
        minimum_interval_seconds: between two ticks.
        default_status: RUNNING: it works as soon as the code location is loaded.
    """
    by_table: dict[dg.AssetKey, list[dg.AssetCheckKey]] = {}
    for definition in checks:
        for key in definition.check_keys:
            by_table.setdefault(key.asset_key, []).append(key)

    @dg.sensor(
        name=name,
        job=job,
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_status,
        description="Has the checks of a table judged after each verification.",
    )
    def checks_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        judged: Mapping[str, str] = json.loads(context.cursor) if context.cursor else {}
        seen: dict[str, str] = {}
        for key in by_table:
            newest = context.instance.get_latest_materialization_event(dg.AssetKey([*key.path, AUDIT]))
            if newest is not None:
                seen[key.to_user_string()] = f"{newest.run_id} {newest.timestamp}"
        due = sorted(table for table, verdicts in seen.items() if judged.get(table) != verdicts)
        if not due:
            return dg.SensorResult(skip_reason="No verification since the checks were last judged.")
        named = json.dumps([(table, seen[table]) for table in due])
        request = dg.RunRequest(
            run_key=fingerprint(named, 32),
            asset_check_keys=[
                check for table in due for check in sorted(by_table[dg.AssetKey.from_user_string(table)], key=str)
            ],
        )
        return dg.SensorResult(run_requests=[request], cursor=json.dumps(dict(judged) | seen, sort_keys=True))

    return checks_sensor
