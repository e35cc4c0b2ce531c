"""Alerts: what is wrong now, decided on, written down, sent, crossed off.

| key | document (fields of) |
|---|---|
| `alert/<condition>` | `transitions.AlertRecord` |
| `outbox/<route>/<id>` | `alert_messages.Message`: not sent yet |

One transaction writes what is remembered together with what is to be sent; a message leaves
the outbox after its receiver has taken it.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

import msgspec

from cdc_platform.alerting.transitions import AlertCondition, AlertPolicy, AlertRecord, Route, decide, due, failed
from cdc_platform.clients.notifiers import Notifiers
from cdc_platform.clients.platform import Platform
from cdc_platform.clients.protocols import StateStore
from cdc_platform.errors import CdcError
from cdc_platform.model.agent_report import AgentReport, reports_by_worker
from cdc_platform.model.alert_messages import Message, Severity
from cdc_platform.model.topology import EMPTY, Topology
from cdc_platform.planning.health.incidents import Incident
from cdc_platform.planning.health.restarts import RestartRecord
from cdc_platform.reconciler.last_pass import KEY as LAST_PASS
from cdc_platform.reconciler.last_pass import age
from cdc_platform.reconciler.state_records import read_memory
from cdc_platform.settings import Settings

log = logging.getLogger(__name__)

ALERT = "alert/"
OUTBOX = "outbox/"
INCIDENT = "trouble/"
PASS = "pass"
LEADER = "leader/"

# Most incidents are cured by the next passes: nobody is woken for those.
INCIDENT_PATIENCE = timedelta(minutes=2)
# No pass for so long: the control plane itself is the incident.
SILENT_PASSES = timedelta(minutes=15)

_AT_ONCE = 8
# A round sends no longer than this and leaves the rest to the next: Dagster gives a sensor's tick a minute.
SEND_SECONDS = 20.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertPorts:
    """The outside systems. `store` is a writer of the state topic of its own name."""

    platform: Platform
    store: StateStore
    notifiers: Notifiers


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertReport:
    """What one round did. `open` counts conditions that people were told of; `problems` are sentences."""

    sent: tuple[Message, ...] = ()
    waiting: int = 0
    open: int = 0
    problems: tuple[str, ...] = ()

    def sentence(self) -> str:
        """The round in one sentence."""
        told = ", ".join(f"{message.event} to {message.route}" for message in self.sent) or "nothing to tell"
        late = f"; {self.waiting} messages wait" if self.waiting else ""
        return f"Alerts: {told}; {self.open} open{late}."


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckView:
    """What a caller has seen: conditions by key, and keys that are right again."""

    present: Mapping[str, AlertCondition] = EMPTY
    absent: Collection[str] = field(default_factory=tuple)


def tell(
    outside: AlertPorts,
    seen: CheckView,
    *,
    now: datetime,
    policy: AlertPolicy | None = None,
    patience: timedelta = INCIDENT_PATIENCE,
) -> AlertReport:
    """One round: decide on `seen` and on the incidents in the state topic, then send what is in the outbox.

    Raises:
        KafkaUnavailable, KafkaRejected: nothing was lost, call again with the same.
        Fenced: another round runs elsewhere. ZooKeeperUnavailable.
    """
    policy = policy or AlertPolicy()
    settings = outside.platform.settings
    routes = [
        Route(name=name, owners=target.owners, severities=tuple(Severity(word) for word in target.severities))
        for name, target in sorted(settings.alerts.items())
        if not target.watchdog
    ]
    documents = outside.store.read()
    records = _read(documents, ALERT, AlertRecord)
    topology = outside.platform.topology.load()
    standing = _standing(documents, topology, settings, now, patience)
    standing |= _leaders(reports_by_worker(outside.platform.topology.agents()).values(), topology, settings, patience)
    gone = {key for key in records if key.startswith((INCIDENT, LEADER, f"{PASS}/")) and key not in standing}
    decision = decide({**standing, **seen.present}, {*seen.absent, *gone}, records, routes, now, policy)
    news: dict[str, Mapping[str, Any] | None] = {
        f"{ALERT}{key}": None if record is None else msgspec.to_builtins(record)
        for key, record in decision.records.items()
    }
    news |= {_place(message): msgspec.to_builtins(message) for message in decision.messages}
    if news:
        outside.store.write(news)
    waiting = {**_read(documents, OUTBOX, Message), **{_name(message): message for message in decision.messages}}
    problems = [f"Nobody is told of: {title}." for title in decision.unrouted]
    sent = _send(outside, waiting, now, policy, problems)
    after = {**records, **decision.records}
    return AlertReport(
        sent=tuple(sent),
        waiting=len(waiting) - len(sent),
        open=sum(1 for record in after.values() if record is not None and record.open),
        problems=tuple(problems),
    )


def ping_watchdogs(outside: AlertPorts) -> tuple[str, ...]:
    """Call the watchdogs; the problems as sentences."""
    problems = []
    for name, target in sorted(outside.platform.settings.alerts.items()):
        if target.watchdog:
            try:
                outside.notifiers.ping(name)
            except CdcError as error:
                problems.append(str(error))
    return tuple(problems)


def _send(
    outside: AlertPorts, waiting: Mapping[str, Message], now: datetime, policy: AlertPolicy, problems: list[str]
) -> list[Message]:
    """Send what is due, routes side by side, each in order; each is crossed off as soon as it is taken."""

    end = time.monotonic() + SEND_SECONDS

    def one_route(messages: list[Message]) -> tuple[list[Message], Message | None, str]:
        done: list[Message] = []
        for message in messages:
            if time.monotonic() > end:
                break
            try:
                outside.notifiers.send(message)
            except CdcError as error:
                return done, message, str(error)
            outside.store.write({_place(message): None})
            done.append(message)
        return done, None, ""

    sent: list[Message] = []
    batches = list(due(waiting.values(), now).values())
    if not batches:
        return sent
    with ThreadPoolExecutor(min(_AT_ONCE, len(batches)), thread_name_prefix="alert") as pool:
        for done, stuck, problem in pool.map(one_route, batches):
            sent += done
            if stuck is None:
                continue
            later = failed(stuck, now, policy)
            outside.store.write({_place(stuck): None if later is None else msgspec.to_builtins(later)})
            problems.append(f"{problem} Given up: {stuck.title}" if later is None else problem)
    return sent


def _standing(
    documents: Mapping[str, Mapping[str, Any]],
    topology: Topology,
    settings: Settings,
    now: datetime,
    patience: timedelta,
) -> dict[str, AlertCondition]:
    """What the state topic says is wrong now."""
    memory = read_memory(
        {key: doc for key, doc in documents.items() if key.startswith((INCIDENT, RestartRecord.key_of("")))}
    )
    restarts = memory.of(RestartRecord)
    hosts: dict[tuple[str, str], set[str]] = defaultdict(set)
    for dataset, shard in topology.all_shards():
        record = restarts.get(shard.name)
        if record is not None:
            hosts[str(record.failure), str(shard.leader)].add(dataset.name)
    found = {}
    for key, incident in memory.of(Incident).items():
        if not incident.down and f"{ALERT}{INCIDENT}{key}" not in documents:
            continue  # it recovers, and nobody was told of it
        # An incident names some of its shards; restart records name the others, credentials their dataset.
        concerned = {incident.place, *hosts[str(incident.failure), incident.place]} | {
            name.partition(".")[0] for name in incident.sample
        }
        found[f"{INCIDENT}{key}"] = _of_incident(incident, concerned, topology, settings, patience)
    silent = age(documents.get(LAST_PASS), now)
    if silent is not None and silent > SILENT_PASSES.total_seconds():
        name = settings.platform
        found[f"{PASS}/{name}"] = AlertCondition(
            key=f"{PASS}/{name}",
            cause=f"{PASS}/{name}",
            severity=Severity.CRITICAL,
            title=f"The control plane of {name} has not looked for {silent / 60:.0f} min",
            text=f"The last pass was at {documents[LAST_PASS]['at']}; connectors run on, but nobody mends them.",
            advice="See whether reconcile_sensor ticks and why its runs fail.",
            runbook=_runbook(settings, "no-pass"),
        )
    return found


def _leaders(
    reports: Iterable[AgentReport], topology: Topology, settings: Settings, patience: timedelta
) -> dict[str, AlertCondition]:
    """What agents say of leaders: old ones that take writes (told at once), new ones that are not fit."""
    found = {}
    shards = {shard.name: (dataset, shard) for dataset, shard in topology.all_shards()}
    for report in reports:
        for anchor, severity, wait, texts, advice in (
            ("split-brain", Severity.CRITICAL, timedelta(), report.split, "Fence the old leader now."),
            ("leader-not-fit", Severity.CRITICAL, patience, report.blocked, "Finish the promotion."),
        ):
            for name, text in texts.items():
                if name not in shards:
                    continue
                dataset, shard = shards[name]
                key = f"{LEADER}{anchor}/{name}"
                found[key] = AlertCondition(
                    key=key,
                    # A host's shards move together: one message.
                    cause=f"{LEADER}{anchor}/{shard.leader}",
                    severity=severity,
                    title=f"{anchor.replace('-', ' ').capitalize()}: {name} at {shard.leader}",
                    text=f"{name}: {text}",
                    advice=advice,
                    owners=tuple(sorted(dataset.owners)),
                    runbook=_runbook(settings, anchor),
                    patience=wait,
                )
    return found


def _of_incident(
    incident: Incident, datasets: set[str], topology: Topology, settings: Settings, patience: timedelta
) -> AlertCondition:
    owners = {owner for name in datasets if name in topology.datasets for owner in topology.datasets[name].owners}
    count = f"{incident.down} shard{'' if incident.down == 1 else 's'} down" if incident.down else "Shards recover"
    return AlertCondition(
        key=f"{INCIDENT}{incident.key}",
        cause=f"{INCIDENT}{incident.key}",
        severity=Severity.CRITICAL,
        title=f"{count}: {incident.failure} at {incident.place}",
        text=f"{incident.sentence()}.",
        advice=incident.advice,
        owners=tuple(sorted(owners)),
        runbook=_runbook(settings, str(incident.failure)),
        patience=patience,
    )


def _runbook(settings: Settings, anchor: str) -> str:
    return f"{settings.runbook_url}#{anchor}" if settings.runbook_url else ""


def _read(documents: Mapping[str, Mapping[str, Any]], prefix: str, kind: type[T]) -> dict[str, T]:
    found = {}
    for key, document in documents.items():
        if key.startswith(prefix):
            try:
                found[key.removeprefix(prefix)] = msgspec.convert(document, kind)
            except msgspec.ValidationError as error:
                log.warning("state record %s is left out: %s", key, error)
    return found


def _name(message: Message) -> str:
    return f"{message.route}/{message.id}"


def _place(message: Message) -> str:
    return f"{OUTBOX}{_name(message)}"
