"""The round of alerts: conditions, who is to be notified, messages in the outbox until their receivers have them.

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
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

import msgspec

from cdc_platform.alerting import conditions
from cdc_platform.alerting.conditions import INCIDENT_PATIENCE, AlertCondition
from cdc_platform.alerting.transitions import AlertPolicy, AlertRecord, Route, decide, due, failed
from cdc_platform.clients.notifiers import Notifiers
from cdc_platform.clients.platform import Platform
from cdc_platform.clients.protocols import StateStore
from cdc_platform.errors import CdcError
from cdc_platform.model.agent_report import reports_by_worker
from cdc_platform.model.alert_messages import Message, Severity
from cdc_platform.model.topology import EMPTY

log = logging.getLogger(__name__)

OUTBOX = "outbox/"

_AT_ONCE = 8
# A round sends no longer than this and leaves the rest to the next: Dagster gives a sensor's tick a minute.
SEND_SECONDS = 20.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertPorts:
    """The ports systems. `store` is a writer of the state topic of its own name."""

    platform: Platform
    store: StateStore
    notifiers: Notifiers


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertReport:
    """What one round did. `open` counts conditions that receivers were notified of; `problems` are sentences."""

    sent: tuple[Message, ...] = ()
    waiting: int = 0
    open: int = 0
    problems: tuple[str, ...] = ()

    def sentence(self) -> str:
        """The round in one sentence."""
        sent = ", ".join(f"{message.event} to {message.route}" for message in self.sent) or "nothing new"
        waiting = f"; {self.waiting} messages wait" if self.waiting else ""
        return f"Alerts: {sent}; {self.open} open{waiting}."


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckView:
    """What a caller observed: conditions by key, and keys that are right again."""

    present: Mapping[str, AlertCondition] = EMPTY
    absent: Collection[str] = field(default_factory=tuple)


def notify(
    ports: AlertPorts,
    view: CheckView,
    *,
    now: datetime,
    policy: AlertPolicy | None = None,
    patience: timedelta = INCIDENT_PATIENCE,
) -> AlertReport:
    """One round: decide on `view` and on the incidents in the state topic, then send what is in the outbox.

    Raises:
        KafkaUnavailable, KafkaRejected: nothing was lost, call again with the same.
        Fenced: another round runs elsewhere. ZooKeeperUnavailable.
    """
    policy = policy or AlertPolicy()
    settings = ports.platform.settings
    routes = [
        Route(name=name, owners=target.owners, severities=tuple(Severity(word) for word in target.severities))
        for name, target in sorted(settings.alerts.items())
        if not target.watchdog
    ]
    documents = ports.store.read()
    records = _read(documents, conditions.ALERT, AlertRecord)
    topology = ports.platform.topology.load()
    present = conditions.recorded_conditions(documents, topology, settings, now, patience)
    agents = reports_by_worker(ports.platform.topology.agents()).values()
    present |= conditions.leader_conditions(agents, topology, settings, patience)
    gone = {key for key in records if key.startswith(conditions.OBSERVED_HERE) and key not in present}
    decision = decide({**present, **view.present}, {*view.absent, *gone}, records, routes, now, policy)
    changes: dict[str, Mapping[str, Any] | None] = {
        f"{conditions.ALERT}{key}": None if record is None else msgspec.to_builtins(record)
        for key, record in decision.records.items()
    }
    changes |= {_key(message): msgspec.to_builtins(message) for message in decision.messages}
    if changes:
        ports.store.write(changes)
    waiting = {**_read(documents, OUTBOX, Message), **{_name(message): message for message in decision.messages}}
    problems = [f"No route takes: {title}." for title in decision.unrouted]
    sent = _send(ports, waiting, now, policy, problems)
    after = {**records, **decision.records}
    return AlertReport(
        sent=tuple(sent),
        waiting=len(waiting) - len(sent),
        open=sum(1 for record in after.values() if record is not None and record.open),
        problems=tuple(problems),
    )


def ping_watchdogs(ports: AlertPorts) -> tuple[str, ...]:
    """Call the watchdogs; the problems as sentences."""
    problems = []
    for name, target in sorted(ports.platform.settings.alerts.items()):
        if target.watchdog:
            try:
                ports.notifiers.ping(name)
            except CdcError as error:
                problems.append(str(error))
    return tuple(problems)


def _send(
    ports: AlertPorts, waiting: Mapping[str, Message], now: datetime, policy: AlertPolicy, problems: list[str]
) -> list[Message]:
    """Send what is due, routes side by side, each in order; a message is deleted as soon as it is taken."""

    end = time.monotonic() + SEND_SECONDS

    def one_route(messages: list[Message]) -> tuple[list[Message], Message | None, str]:
        done: list[Message] = []
        for message in messages:
            if time.monotonic() > end:
                break
            try:
                ports.notifiers.send(message)
            except CdcError as error:
                return done, message, str(error)
            ports.store.write({_key(message): None})
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
            ports.store.write({_key(stuck): None if later is None else msgspec.to_builtins(later)})
            problems.append(f"{problem} Given up: {stuck.title}" if later is None else problem)
    return sent


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


def _key(message: Message) -> str:
    return f"{OUTBOX}{_name(message)}"
