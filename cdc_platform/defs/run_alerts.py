"""Alerts about the platform's own Dagster runs: those that failed, and a pass that waits for a slot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

import dagster as dg

from cdc_platform.alerting.conditions import INCIDENT_PATIENCE, AlertCondition, runbook
from cdc_platform.alerting.outbox import CheckView
from cdc_platform.defs.run_kinds import TAG_KIND, RunOf
from cdc_platform.defs.translator import TAG_DATASET, TAG_PLATFORM
from cdc_platform.model.alert_messages import Severity
from cdc_platform.settings import Settings

RUN = "run/"
# So long a pass may wait for a slot of Dagster's queue.
QUEUED_FOR = timedelta(minutes=2)
# Of each kind of run so many of the newest are looked at.
_NEWEST = 50

_WAITING = (dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED)
_OVER = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


def run_conditions(
    instance: dg.DagsterInstance, settings: Settings, owners: Mapping[str, Iterable[str]], now: datetime
) -> CheckView:
    """Of each kind of run and dataset the newest that is over counts; `owners` are those of each dataset."""
    present: dict[str, AlertCondition] = {}
    absent: set[str] = set()
    for kind in RunOf:
        records = instance.get_run_records(
            dg.RunsFilter(tags={TAG_PLATFORM: settings.platform, TAG_KIND: kind.value}), limit=_NEWEST
        )
        newest: dict[str, dg.RunRecord] = {}
        for record in records:
            if record.dagster_run.status in _OVER:
                newest.setdefault(record.dagster_run.tags.get(TAG_DATASET, ""), record)
        for dataset, record in newest.items():
            key = f"{RUN}{kind}/{dataset}".rstrip("/")
            if record.dagster_run.status is dg.DagsterRunStatus.FAILURE:
                present[key] = _failed(key, kind, dataset, record, settings, tuple(owners.get(dataset, ())))
            else:
                absent.add(key)
        if kind is RunOf.RECONCILE:
            waiting = [r for r in records if r.dagster_run.status in _WAITING and now - r.create_timestamp > QUEUED_FOR]
            key = f"{RUN}queued/{kind}"
            if waiting:
                present[key] = _queued(key, waiting[-1], settings, now)
            else:
                absent.add(key)
    return CheckView(present=present, absent=absent)


def _failed(
    key: str, kind: RunOf, dataset: str, record: dg.RunRecord, settings: Settings, owners: tuple[str, ...]
) -> AlertCondition:
    of = f"{kind} of {dataset}" if dataset else str(kind)
    return AlertCondition(
        key=key,
        cause=key,
        severity=Severity.CRITICAL if kind in (RunOf.RECONCILE, RunOf.BOOTSTRAP) else Severity.WARNING,
        title=f"The last run of {of} failed",
        text=f"Dagster run {record.dagster_run.run_id} of {of} failed, and no later one succeeded.",
        advice="Read the run's log; run it again when its cause is gone.",
        owners=owners,
        runbook=runbook(settings, "run-failed"),
        run=_link(settings, record),
        # The next pass is a minute away.
        patience=INCIDENT_PATIENCE if kind is RunOf.RECONCILE else timedelta(),
    )


def _queued(key: str, record: dg.RunRecord, settings: Settings, now: datetime) -> AlertCondition:
    minutes = (now - record.create_timestamp).total_seconds() / 60
    return AlertCondition(
        key=key,
        cause=key,
        severity=Severity.CRITICAL,
        title=f"A pass of {settings.platform} has been queued for {minutes:.0f} min",
        text=f"Dagster run {record.dagster_run.run_id}, a pass of the control plane, waits for a slot of Dagster's run "
        "queue. Connectors keep running, but failures are not repaired until it starts.",
        advice="See which runs fill the queue; limit the kinds of runs as dagster_home/dagster.yaml does.",
        runbook=runbook(settings, "pass-queued"),
        run=_link(settings, record),
    )


def _link(settings: Settings, record: dg.RunRecord) -> str:
    run = record.dagster_run.run_id
    return f"{settings.dagster_url.rstrip('/')}/runs/{run}" if settings.dagster_url else run
