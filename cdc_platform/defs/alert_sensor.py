"""The sensor that sends alerts: shards that are down, checks and runs that fail, and that all is well again."""

# Without `from __future__ import annotations`: Dagster reads the types of a sensor that is made
# inside a function, and cannot resolve them as text.

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

import dagster as dg

from cdc_platform.alerting.conditions import AlertCondition
from cdc_platform.alerting.outbox import CheckView, notify, ping_watchdogs
from cdc_platform.alerting.transitions import AlertPolicy
from cdc_platform.defs.audit_asset import AUDIT, audit_key
from cdc_platform.defs.lake_asset import lake_key
from cdc_platform.defs.latest_checks import latest_evaluations
from cdc_platform.defs.names import Names
from cdc_platform.defs.run_alerts import run_conditions
from cdc_platform.defs.translator import CdcTableProps, CdcTranslator
from cdc_platform.model.alert_messages import Severity
from cdc_platform.settings import Settings

SENSOR = "alert_sensor"
CHECK = "check/"


def build_alert_sensor(
    *,
    tables: Iterable[CdcTableProps] = (),
    platform: str = "cdc",
    translator: CdcTranslator | None = None,
    name: str | None = None,
    minimum_interval_seconds: int = 30,
    policy: AlertPolicy | None = None,
    default_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.RUNNING,
) -> dg.SensorDefinition:
    """The sensor that sends alerts. Takes the resource `cdc_platform`; routes stand in its settings.

    Incidents of shards come from the state topic; of each check of the code location on `tables`, your own included,
    the newest evaluation counts; of the platform's runs the newest of each job and dataset. What was sent is on record
    in the state topic: the sensor needs no cursor, and a tick that fails loses nothing.

    Args:
        tables: the tables whose checks are watched.
        platform: its name.
        translator: the one the assets were made with.
        name: the sensor's name.
        minimum_interval_seconds: between two ticks.
        policy: bounds of flapping and retries.
        default_status: RUNNING: it works as soon as the code location is loaded.
    """
    translator = translator or CdcTranslator()
    watched: dict[dg.AssetKey, CdcTableProps] = {}
    for props in tables:
        key = translator.get_asset_spec(props).key
        watched |= {key: props, audit_key(key): props, lake_key(key): props}
    owners = {props.dataset: props.owners for props in watched.values()}

    names = Names(platform)

    @dg.sensor(
        name=name or names.of(SENSOR),
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_status,
        description="Notifies the owners when shards go down or checks fail, once for each cause, and when it is over.",
    )
    @names.taking
    def alert_sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        with names.in_(context).alerts() as ports:
            now = datetime.now(UTC)
            settings = ports.platform.settings
            try:
                seen = failing_checks(context.instance, _checks(context), watched, settings)
                runs = run_conditions(context.instance, settings, owners, now)
            except Exception:
                # Whatever Dagster's storage has: incidents of shards go out all the same.
                notify(ports, CheckView(), now=now, policy=policy)
                raise
            view = CheckView(present={**seen.present, **runs.present}, absent={*seen.absent, *runs.absent})
            report = notify(ports, view, now=now, policy=policy)
            problems = [*report.problems, *ping_watchdogs(ports)]
            for problem in problems:
                context.log.warning(problem)
            return dg.SkipReason(" ".join([report.sentence(), *problems]))

    return alert_sensor


def _checks(context: dg.SensorEvaluationContext) -> Iterable[dg.AssetCheckKey]:
    """All checks of the code location."""
    return context.repository_def.asset_graph.asset_check_keys if context.repository_def else ()


def failing_checks(
    instance: dg.DagsterInstance,
    checks: Iterable[dg.AssetCheckKey],
    watched: Mapping[dg.AssetKey, CdcTableProps],
    settings: Settings,
) -> CheckView:
    """What the newest evaluations of the watched assets' checks say. A check that was never evaluated is in neither."""
    present: dict[str, AlertCondition] = {}
    absent: set[str] = set()
    keys = [key for key in checks if key.asset_key in watched]
    for check, found in latest_evaluations(instance, keys).items():
        # Named by the topic, as in releases whose checks stood there.
        key = f"{CHECK}{check.asset_key.to_user_string().removesuffix(f'/{AUDIT}')}/{check.name}"
        if found.evaluation.passed:
            absent.add(key)
        else:
            present[key] = _condition(key, found.evaluation, watched[check.asset_key], found.run_id, settings)
    return CheckView(present=present, absent=absent)


def _condition(
    key: str, evaluation: dg.AssetCheckEvaluation, props: CdcTableProps, run: str, settings: Settings
) -> AlertCondition:
    metadata = {name: value.value for name, value in evaluation.metadata.items() if isinstance(value.value, str)}
    owners = tuple(owner for owner in metadata.get("owner", "").split(", ") if owner) or props.owners
    text = evaluation.description or f"Check {evaluation.check_name} failed."
    anchor = f"check-{evaluation.check_name.replace('_', '-')}"
    return AlertCondition(
        key=key,
        cause=f"{CHECK}{props.dataset}/{evaluation.check_name}",
        severity=Severity.CRITICAL if evaluation.severity is dg.AssetCheckSeverity.ERROR else Severity.WARNING,
        title=f"{evaluation.check_name} fails for {props.dataset}.{props.table}",
        text=f"{props.dataset}.{props.table}: {text}",
        advice=metadata.get("advice", ""),
        owners=owners,
        runbook=metadata.get("runbook") or (f"{settings.runbook_url}#{anchor}" if settings.runbook_url else ""),
        run=f"{settings.dagster_url.rstrip('/')}/runs/{run}" if settings.dagster_url and run else run,
    )
