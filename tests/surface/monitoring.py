"""What monitoring is built on: metrics, alerts, and the words that states and verdicts have."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import SimpleNamespace
from typing import Any

import dagster as dg
from prometheus_client.core import Metric

from cdc_platform.alerting.outbox import AlertPorts, CheckView, notify
from cdc_platform.defs.alert_sensor import failing_checks
from cdc_platform.defs.translator import CdcTranslator, table_props
from cdc_platform.errors import AlertUndelivered
from cdc_platform.model.agent_report import AgentReport
from cdc_platform.model.alert_messages import Event, Message, Severity
from cdc_platform.model.topology import BootstrapMode, Engine
from cdc_platform.monitoring.exporter import registry
from cdc_platform.planning.canary import CanaryRecord
from cdc_platform.planning.health.failures import CURES, Failure
from cdc_platform.planning.health.source_hazard_kinds import HazardKind
from cdc_platform.settings import AlertTarget, Settings
from cdc_platform.snapshots.request import RunKind
from cdc_platform.snapshots.run_lifecycle import RequestedState
from cdc_platform.snapshots.run_records import Phase
from cdc_platform.verification.continuity.breaks import BreakKind
from cdc_platform.verification.duplicates.causes import Cause
from cdc_platform.verification.proof.verdicts import Verdict
from tests.defs.harness import topology
from tests.surface.documents import state_topic, store
from tests.surface.samples import NOW, sample

_RUNBOOK = "https://runbook"


def metrics() -> dict[str, Any]:
    """Name of each sample to its type and labels, from a topic with a record of each kind."""
    found: dict[str, Any] = {}
    for family in registry(store()).collect():
        assert family.samples, f"{family.name} has no sample here"
        for one in family.samples:
            found[one.name] = _described(family, one.labels)
    broken: Any = SimpleNamespace(read=lambda: {"pass/last": {}})
    for family in registry(broken).collect():
        for one in family.samples:
            found.setdefault(one.name, _described(family, one.labels))
    return found


def _described(family: Metric, labels: Mapping[str, str]) -> dict[str, Any]:
    return {"type": family.type, "labels": sorted(labels), "help": family.documentation}


class _Store:
    """Records in a mapping."""

    def __init__(self) -> None:
        self.records: dict[str, Any] = dict(state_topic())

    def read(self) -> Mapping[str, Any]:
        return dict(self.records)

    def write(self, news: Mapping[str, Any]) -> None:
        self.records |= news


class _Refusing:
    def send(self, message: Message) -> None:
        raise AlertUndelivered("refused.")

    def ping(self, route: str) -> None:
        return None


def alerts() -> dict[str, Any]:
    """The records of one round that had all there is to tell and could send nothing: ids, keys, fields, runbooks."""
    settings = Settings(
        alerts={"ops": AlertTarget(url="${env:OPS_URL}")}, runbook_url=_RUNBOOK, dagster_url="https://dagster"
    )
    known = topology()
    report = sample(AgentReport).to_document() | {"held": {"pins.00000": "text"}, "split": {"pins.00001": "text"}}
    platform: Any = SimpleNamespace(
        settings=settings, topology=SimpleNamespace(load=lambda: known, agents=lambda: {"w0": report})
    )
    kept: Any = _Store()
    outside = AlertPorts(platform=platform, store=kept, notifiers=_Refusing())
    notify(outside, _failing_check(settings), now=NOW.replace(year=NOW.year + 1))
    return {key: value for key, value in kept.records.items() if key.startswith(("alert/", "outbox/"))}


def _failing_check(settings: Settings) -> CheckView:
    """What the alert sensor sees of a check that fails."""
    props = table_props(topology(), platform="cdc")
    watched = {CdcTranslator().get_asset_spec(one).key: one for one in props}
    key = next(key for key, one in watched.items() if one.table == "pins")
    with dg.DagsterInstance.ephemeral() as instance:
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(asset_key=key, check_name="complete", passed=False, metadata={"advice": "text"})
        )
        return failing_checks(instance, [dg.AssetCheckKey(key, "complete")], watched, settings)


def words() -> dict[str, Any]:
    """Words that documents, columns and messages hold."""
    kinds: Mapping[str, type[StrEnum]] = {
        "bootstrap mode": BootstrapMode,
        "cause of duplicates": Cause,
        "engine": Engine,
        "event of an alert": Event,
        "failure": Failure,
        "kind of a break": BreakKind,
        "kind of a run": RunKind,
        "hazard at a source": HazardKind,
        "order to a run": RequestedState,
        "phase of a shard": Phase,
        "severity": Severity,
        "verdict": Verdict,
        "verdict on a rollout": type(sample(CanaryRecord).verdict),
    }
    return {name: sorted(map(str, kind)) for name, kind in kinds.items()} | {
        "advice by failure": {str(failure): cure.advice for failure, cure in CURES.items()}
    }
