"""Who is notified of what, and when: on transitions, once, grouped by cause. Pure.

A condition is something wrong: one incident of many shards (`planning/health/incidents.py`), one failing
check. Its record says whether it lasts and what was notified. A message is decided together
with its records, and both are written in one transaction before anything is sent: so a
control plane that dies loses no message, and one that starts again repeats none. Only a
death between sending and the note that it was sent repeats that one message, under the same id.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from msgspec import Struct, structs

from cdc_platform.alerting.conditions import AlertCondition
from cdc_platform.model.alert_messages import Event, Message, Severity
from cdc_platform.model.backoff import Backoff
from cdc_platform.model.fingerprints import fingerprint
from cdc_platform.model.topology import EMPTY


class AlertRecord(Struct, frozen=True, kw_only=True, rename={"notified": "told", "notified_severity": "told_severity"}):
    """What is remembered of a condition.

    `changed` is when it last came or went; `notified` the last event that went out, to `routes`; `fired` are the
    times at which it went out as firing, newest last.
    """

    condition: AlertCondition
    active: bool
    since: datetime
    changed: datetime
    notified: Event | None = None
    notified_severity: Severity | None = None
    routes: tuple[str, ...] = ()
    fired: tuple[datetime, ...] = ()

    @property
    def open(self) -> bool:
        """True while its receivers take it to last."""
        return self.notified in (Event.FIRING, Event.WORSE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where messages go. `owners` and `severities` choose conditions; empty takes all."""

    name: str
    owners: tuple[str, ...] = ()
    severities: tuple[Severity, ...] = ()

    def takes(self, condition: AlertCondition, severity: Severity) -> bool:
        """True when the condition is for this route."""
        return (not self.owners or bool(set(self.owners) & set(condition.owners))) and (
            not self.severities or severity in self.severities
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertPolicy:
    """Bounds. A condition notified `flap_limit` times within `flap_window` counts as recovered only after
    `flap_quiet`. A message that cannot be delivered is tried again by `retry`, for `keep` at most.
    """

    flap_limit: int = 3
    flap_window: timedelta = timedelta(hours=1)
    flap_quiet: timedelta = timedelta(minutes=30)
    retry: Backoff = field(default_factory=lambda: Backoff(first=30.0, longest=900.0))
    keep: timedelta = timedelta(days=7)
    names: int = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertDecision:
    """`records` to write (None deletes), then `messages` to send; `unrouted` are titles that no route takes."""

    records: Mapping[str, AlertRecord | None] = EMPTY
    messages: tuple[Message, ...] = ()
    unrouted: tuple[str, ...] = ()


# An event that goes out now, its condition's record, and the routes.
_Notified = tuple[Event, AlertRecord, tuple[str, ...]]


def decide(
    present: Mapping[str, AlertCondition],
    absent: Collection[str],
    records: Mapping[str, AlertRecord],
    routes: Sequence[Route],
    now: datetime,
    policy: AlertPolicy,
) -> AlertDecision:
    """What changes, and who is notified.

    Args:
        present: what is known to be wrong, by key.
        absent: keys known to be right. What is in neither is as it was.
        records: by key.
    """
    changes: dict[str, AlertRecord | None] = {}
    notified: list[_Notified] = []
    unrouted: list[str] = []
    for key in sorted({*present, *records}):
        before = records.get(key)
        after = _observed(before, present.get(key), key in absent, now)
        if after is None:
            continue
        event = _due(after, now, policy)
        if event is not None:
            chosen = _routes(after, event, routes)
            if not chosen and event is not Event.RECOVERED:
                unrouted.append(after.condition.title)
            notified.append((event, after, chosen))
            after = _after_notice(after, event, chosen, now, policy)
        expired = not after.active and not after.open and now - after.changed > policy.flap_window
        if expired or (not after.active and after.notified is None):
            if before is not None:
                changes[key] = None
        elif after != before:
            changes[key] = after
    return AlertDecision(records=changes, messages=tuple(_messages(notified, now, policy)), unrouted=tuple(unrouted))


def _observed(
    before: AlertRecord | None, condition: AlertCondition | None, gone: bool, now: datetime
) -> AlertRecord | None:
    if condition is not None:
        if before is None:
            return AlertRecord(condition=condition, active=True, since=now, changed=now)
        if before.active:
            return structs.replace(before, condition=condition)
        # A new incident, unless the end of the last one was never notified.
        since = before.since if before.open else now
        return structs.replace(before, condition=condition, active=True, since=since, changed=now)
    if before is not None and before.active and gone:
        return structs.replace(before, active=False, changed=now)
    return before


def _due(record: AlertRecord, now: datetime, policy: AlertPolicy) -> Event | None:
    if record.active:
        if not record.open:
            return Event.FIRING if now - record.since >= record.condition.patience else None
        critical = record.condition.severity is Severity.CRITICAL
        return Event.WORSE if critical and record.notified_severity is not Severity.CRITICAL else None
    if record.open and now - record.changed >= _calm(record, now, policy):
        return Event.RECOVERED
    return None


def _calm(record: AlertRecord, now: datetime, policy: AlertPolicy) -> timedelta:
    """How long it must be away to be over."""
    lately = [at for at in record.fired if now - at <= policy.flap_window]
    return policy.flap_quiet if len(lately) >= policy.flap_limit else timedelta()


def _after_notice(
    record: AlertRecord, event: Event, routes: tuple[str, ...], now: datetime, policy: AlertPolicy
) -> AlertRecord:
    if event is Event.RECOVERED:
        return structs.replace(record, notified=event, notified_severity=None, routes=())
    fired = tuple(at for at in record.fired if now - at <= policy.flap_window)
    if event is Event.FIRING:
        fired = (*fired, now)
    return structs.replace(
        record,
        notified=event,
        notified_severity=record.condition.severity,
        routes=tuple(sorted({*record.routes, *routes} if event is Event.WORSE else routes)),
        fired=fired,
    )


def _routes(record: AlertRecord, event: Event, routes: Sequence[Route]) -> tuple[str, ...]:
    """Receivers of the beginning receive the end, as long as the route exists."""
    if event is Event.RECOVERED:
        known = {route.name for route in routes}
        return tuple(name for name in record.routes if name in known)
    return tuple(route.name for route in routes if route.takes(record.condition, record.condition.severity))


def _messages(notified: Sequence[_Notified], now: datetime, policy: AlertPolicy) -> list[Message]:
    """One message for each event, cause and route."""
    groups: dict[tuple[Event, str, str], list[AlertRecord]] = defaultdict(list)
    for event, record, routes in notified:
        for route in routes:
            groups[event, record.condition.cause, route].append(record)
    return [
        _message(event, route, sorted(records, key=lambda record: record.condition.key), now, policy)
        for (event, _, route), records in groups.items()
    ]


def _message(event: Event, route: str, records: Sequence[AlertRecord], now: datetime, policy: AlertPolicy) -> Message:
    conditions = [record.condition for record in records]
    first = conditions[0]
    more = f" and {len(conditions) - 1} more" if len(conditions) > 1 else ""
    recovered = event is Event.RECOVERED
    word = "RECOVERED" if recovered else str(max((c.severity for c in conditions), key=_rank)).upper()
    incident = _hash(route, *(f"{record.condition.key} {record.since.isoformat()}" for record in records))
    since = min(record.since for record in records)
    lines = [condition.text for condition in conditions[: policy.names]]
    if len(conditions) > policy.names:
        lines.append(f"and {len(conditions) - policy.names} more.")
    if recovered:
        lasted = now - since
        lines = [f"{condition.title}: over." for condition in conditions[: policy.names]]
        lines.append(f"It lasted {str(lasted).partition('.')[0]}, from {since:%Y-%m-%d %H:%M:%S}Z.")
    else:
        lines.append(f"Since {since:%Y-%m-%d %H:%M:%S}Z.")
        if first.advice:
            lines.append(f"What to do: {first.advice}")
    owners = sorted({owner for condition in conditions for owner in condition.owners})
    for name, value in (("Owner", ", ".join(owners)), ("Runbook", first.runbook), ("Dagster run", first.run)):
        if value:
            lines.append(f"{name}: {value}")
    return Message(
        id=_hash(incident, str(event), str(len(records[0].fired))),
        incident=incident,
        route=route,
        event=event,
        severity=max((condition.severity for condition in conditions), key=_rank),
        title=f"[{word}] {first.title}{more}",
        body="\n".join(lines),
        created=now,
    )


def failed(message: Message, now: datetime, policy: AlertPolicy) -> Message | None:
    """The message to be tried again later; None when it has been tried for long enough."""
    if now - message.created > policy.keep:
        return None
    wait = timedelta(seconds=policy.retry.wait(message.attempts + 1))
    return replace(message, attempts=message.attempts + 1, not_before=now + wait)


def due(messages: Collection[Message], now: datetime) -> dict[str, list[Message]]:
    """By route what is to be sent now, in order. Those behind one that has to wait, wait too."""
    found: dict[str, list[Message]] = {}
    waiting: set[str] = set()
    for message in sorted(messages, key=lambda item: (item.created, item.event is Event.RECOVERED, item.id)):
        if message.not_before is not None and message.not_before > now:
            waiting.add(message.route)
        if message.route not in waiting:
            found.setdefault(message.route, []).append(message)
    return found


def _rank(severity: Severity) -> int:
    return list(Severity).index(severity)


def _hash(*parts: str) -> str:
    return fingerprint("\n".join(parts))
