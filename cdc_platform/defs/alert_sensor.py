"""The sensor that sends alerts: shards that are down, checks that fail, and that all is well again."""

# Without `from __future__ import annotations`: Dagster reads the types of a sensor that is made
# inside a function, and cannot resolve them as text.

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import dagster as dg

from cdc_platform.alerting.conditions import AlertCondition
from cdc_platform.alerting.outbox import CheckView, notify, ping_watchdogs
from cdc_platform.alerting.transitions import AlertPolicy
from cdc_platform.defs.resource import CdcPlatformResource
from cdc_platform.defs.translator import CdcTableProps, CdcTranslator
from cdc_platform.model.alert_messages import Severity
from cdc_platform.settings import Settings

SENSOR = "alert_sensor"
CHECK = "check/"

# How far a first tick looks back where events have one order.
MOST_EVENTS = 1_000

# Seconds that are read again where runs, not events, are ordered: a run is touched after its events.
OVERLAP = 3600.0


def build_alert_sensor(
    *,
    tables: Iterable[CdcTableProps] = (),
    translator: CdcTranslator | None = None,
    name: str = SENSOR,
    minimum_interval_seconds: int = 30,
    policy: AlertPolicy | None = None,
    default_status: dg.DefaultSensorStatus = dg.DefaultSensorStatus.RUNNING,
) -> dg.SensorDefinition:
    """The sensor that sends alerts. Takes the resource `cdc_platform`; routes stand in its settings.

    Incidents of shards come from the state topic, checks from Dagster's event log behind the cursor.
    A tick that fails moves neither: the next one sees the same again. A lost cursor begins at the
    newest evaluation; what was sent before stays on record.

    Args:
        tables: the tables whose checks are watched.
        translator: the one the assets were made with.
        name: the sensor's name.
        minimum_interval_seconds: between two ticks.
        policy: bounds of flapping and retries.
        default_status: RUNNING: it works as soon as the code location is loaded.
    """
    translator = translator or CdcTranslator()
    watched = {translator.get_asset_spec(props).key: props for props in tables}

    @dg.sensor(
        name=name,
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=default_status,
        description="Notifies the owners when shards go down or checks fail, once for each cause, and when it is over.",
    )
    def alert_sensor(context: dg.SensorEvaluationContext, cdc_platform: CdcPlatformResource) -> dg.SkipReason:
        with cdc_platform.alerts() as ports:
            checks, cursor = checks_behind(context.instance, context.cursor, watched, ports.platform.settings)
            report = notify(ports, checks, now=datetime.now(UTC), policy=policy)
            # Only now: a round that failed is done again with the same evaluations.
            context.update_cursor(cursor)
            problems = [*report.problems, *ping_watchdogs(ports)]
            for problem in problems:
                context.log.warning(problem)
            return dg.SkipReason(" ".join([report.sentence(), *problems]))

    return alert_sensor


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPosition:
    """Where in the event log the sensor is.

    Event ids order a log that is one table (Postgres). SQLite keeps a file a run, each with ids of
    its own: there the log is read by the time of the runs, and `last` says, by check, which
    evaluations were read already. Both are kept, so that nothing asks which storage it is.
    """

    id: int = 0
    at: float = 0.0
    last: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str | None) -> "EventPosition | None":
        """None for no cursor, or one that is none of ours."""
        try:
            raw = json.loads(text or "")
            return cls(id=int(raw["id"]), at=float(raw["at"]), last={str(k): float(v) for k, v in raw["last"].items()})
        except (ValueError, TypeError, KeyError, AttributeError):
            return None

    def dump(self) -> str:
        """The cursor's text; what is older than the overlap is not read again and need not be known."""
        last = {key: seen for key, seen in self.last.items() if seen >= self.at - OVERLAP}
        return json.dumps({"id": self.id, "at": self.at, "last": last})


def checks_behind(
    instance: dg.DagsterInstance,
    cursor: str | None,
    watched: Mapping[dg.AssetKey, CdcTableProps],
    settings: Settings,
) -> tuple[CheckView, str]:
    """What the evaluations behind the cursor say, and the next cursor. The last of a check counts."""
    kind = dg.DagsterEventType.ASSET_CHECK_EVALUATION
    position = EventPosition.parse(cursor)
    if position is None:
        newest = instance.get_event_records(dg.EventRecordsFilter(kind), limit=1, ascending=False)
        # Without a cursor: all there is for a new instance, which is little, else from the newest on.
        position = EventPosition(id=max(0, newest[0].storage_id - MOST_EVENTS) if newest else 0)
    behind = dg.RunShardedEventsCursor(
        id=position.id, run_updated_after=datetime.fromtimestamp(max(0.0, position.at - OVERLAP), UTC)
    )
    records = instance.get_event_records(dg.EventRecordsFilter(kind, after_cursor=behind), ascending=True)
    present: dict[str, AlertCondition] = {}
    absent: set[str] = set()
    last, at, newest_id = dict(position.last), position.at, position.id
    for record in sorted(records, key=lambda found: (found.timestamp, found.storage_id)):
        at, newest_id = max(at, record.timestamp), max(newest_id, record.storage_id)
        event = record.event_log_entry.dagster_event
        if event is None or event.asset_check_evaluation_data.asset_key not in watched:
            continue
        evaluation = event.asset_check_evaluation_data
        key = f"{CHECK}{evaluation.asset_key.to_user_string()}/{evaluation.check_name}"
        if record.timestamp <= last.get(key, 0.0):
            continue
        last[key] = record.timestamp
        if evaluation.passed:
            present.pop(key, None)
            absent.add(key)
        else:
            absent.discard(key)
            run = record.event_log_entry.run_id
            present[key] = _condition(key, evaluation, watched[evaluation.asset_key], run, settings)
    return CheckView(present=present, absent=absent), EventPosition(id=newest_id, at=at, last=last).dump()


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
