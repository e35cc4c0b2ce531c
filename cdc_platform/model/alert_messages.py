"""Alerts as messages: severity, event, text, and where they go."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Severity(StrEnum):
    """How bad."""

    WARNING = "warning"
    CRITICAL = "critical"


class Event(StrEnum):
    """What a message reports."""

    FIRING = "firing"
    WORSE = "worse"
    RECOVERED = "recovered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message for one route. The same transition has the same `id`, whichever process decides it; `incident`
    is the same for what fires and for what recovers.
    """

    id: str
    incident: str
    route: str
    event: Event
    severity: Severity
    title: str
    body: str
    created: datetime
    attempts: int = 0
    not_before: datetime | None = None
