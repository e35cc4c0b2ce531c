"""Messages to people: Slack, e-mail, PagerDuty, webhooks and what else `apprise` knows, by URL.

A URL holds secrets: it is resolved for one sending and shows in no log or error. `apprise` is the extra
`alerts` (`wiring.open_alerts` asks for it) and slow to import, so that it is imported where a message is sent.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import httpx

from cdc_platform.clients.secrets import resolve
from cdc_platform.errors import AlertUndelivered, SettingsError
from cdc_platform.model.alert_messages import Event, Message, Severity
from cdc_platform.model.plain_text import for_chat, for_pager
from cdc_platform.settings import AlertTarget

# What apprise itself logs may show parts of a URL.
logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)

_TIMEOUT = 10.0


class Notifiers(Protocol):
    """Sends messages, one after the other. Raises AlertUndelivered, SecretUnresolved and SettingsError."""

    def send(self, message: Message) -> None:
        """Deliver it to its route: returns once the receiver has taken it."""

    def ping(self, route: str) -> None:
        """Tell a watchdog that we live."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppriseNotifiers:
    """`Notifiers` over the settings' alert table."""

    targets: Mapping[str, AlertTarget]

    def send(self, message: Message) -> None:
        """Deliver one message. Raises AlertUndelivered, SecretUnresolved, SettingsError."""
        from apprise import NotifyFormat, NotifyType

        plugin = self._plugin(message.route)
        # Only PagerDuty has incidents, and it shows what it is given.
        shown = for_pager if _set_incident(plugin, message.incident) else for_chat
        kind = NotifyType.FAILURE if message.severity is Severity.CRITICAL else NotifyType.WARNING
        if message.event is Event.RECOVERED:
            kind = NotifyType.SUCCESS
        try:
            taken = plugin.notify(
                title=shown(message.title), body=shown(f"{message.body}\nId: {message.id}"), notify_type=kind,
                body_format=NotifyFormat.TEXT,
            )  # fmt: skip
        # A plugin may raise of every kind, with the URL in it: one bad route must not stop the others.
        except Exception as error:  # noqa: BLE001
            raise _undelivered(message, f": {type(error).__name__}") from None
        if not taken:
            raise _undelivered(message)

    def ping(self, route: str) -> None:
        """GET the watchdog's URL. Raises AlertUndelivered, SecretUnresolved."""
        url = resolve(self._target(route).url)
        try:
            answer = httpx.get(str(url), timeout=_TIMEOUT, follow_redirects=True)
            problem = None if answer.is_success else f"answered {answer.status_code}"
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            problem = type(error).__name__
        if problem:
            raise AlertUndelivered(
                f"the watchdog was not reached: {problem}.",
                where=f"alert route {route}",
                cure="See that its URL is right and that this host may reach it.",
            )

    def _target(self, route: str) -> AlertTarget:
        if route not in self.targets:
            raise SettingsError("there is no such route.", where="alerts", field=route, cure="Add it, or remove it.")
        return self.targets[route]

    def _plugin(self, route: str) -> Any:
        import apprise

        target = self._target(route)
        plugin = apprise.Apprise.instantiate(str(resolve(target.url)), suppress_exceptions=True)
        if plugin is None:
            raise SettingsError(
                "what it refers to is no URL that apprise knows.",
                where=target.url,
                field=f"alerts.{route}.url",
                cure="See https://github.com/caronc/apprise/wiki for the form of URLs.",
            )
        # Some services limit how fast one sends; the library's waits would hold up the others.
        plugin.socket_connect_timeout = plugin.socket_read_timeout = _TIMEOUT
        return plugin


def _undelivered(message: Message, why: str = "") -> AlertUndelivered:
    return AlertUndelivered(
        f"message {message.id} was not taken{why}.",
        where=f"alert route {message.route}",
        cure="Try the URL behind the reference with `apprise -vv -b test URL`.",
    )


def _set_incident(plugin: Any, incident: str) -> bool:
    """PagerDuty: the recovery resolves the incident that the firing opened. False for other services."""
    if not (hasattr(plugin, "dedup") and hasattr(plugin, "action")):
        return False
    plugin.dedup, plugin.action = incident, "map"
    return True
