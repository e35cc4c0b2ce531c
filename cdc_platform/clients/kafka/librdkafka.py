"""librdkafka under our own rules: its configuration, its logs, its errors."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException

from cdc_platform.clients.secrets import resolve_all
from cdc_platform.errors import (
    CdcError,
    Fenced,
    KafkaRejected,
    KafkaUnavailable,
    SecretUnresolved,
    SettingsError,
)
from cdc_platform.model.topology import EMPTY

C = TypeVar("C")

_QUIET_SECONDS = 60.0


class _Once(logging.Filter):
    """librdkafka says the same of a broker that is away many times a second: once a minute is enough."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        said = re.sub(r"\(after \d+ms|#\w+-\d+", "", record.getMessage())
        now = time.monotonic()
        with self._lock:
            if now - self._said.get(said, -_QUIET_SECONDS) < _QUIET_SECONDS:
                return False
            self._said = {text: at for text, at in self._said.items() if now - at < _QUIET_SECONDS}
            self._said[said] = now
        return True


# librdkafka's own lines go here instead of to stderr.
log = logging.getLogger("cdc_platform.librdkafka")
log.addFilter(_Once())

_UNAVAILABLE = frozenset(
    {
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._RESOLVE,
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        # A record that was not delivered in time.
        KafkaError._MSG_TIMED_OUT,
        KafkaError._WAIT_COORD,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NOT_CONTROLLER,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.NOT_COORDINATOR,
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    }
)
_FENCED = frozenset(
    {
        KafkaError._FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.PRODUCER_FENCED,
        KafkaError.TRANSACTION_COORDINATOR_FENCED,
    }
)


def open_client(kind: Callable[..., C], config: Mapping[str, str], own: Mapping[str, Any] = EMPTY) -> C:
    """A client of `config`, references resolved, with our `own` options on top; nothing is connected yet.

    Raises:
        SecretUnresolved: a `${...}` in it has no value here.
        SettingsError: librdkafka does not accept the configuration.
    """
    try:
        return kind({"client.id": "cdc-platform", **resolve_all(config), **own}, logger=log)
    except SecretUnresolved:
        raise
    except (KafkaException, CdcError, ValueError, TypeError) as error:
        raise SettingsError(
            f"librdkafka refuses it: {_text(error)}.",
            where="settings",
            field="kafka",
            cure="See librdkafka's CONFIGURATION.md for names and values.",
        ) from None


def servers_of(config: Mapping[str, str]) -> str:
    """The bootstrap servers, for messages."""
    return config.get("bootstrap.servers", "(no bootstrap.servers)")


def remaining(end: float) -> float:
    """Seconds until `end` on the monotonic clock, at least 0.1: librdkafka takes 0 for "do not wait"."""
    return max(0.1, end - time.monotonic())


def timed_out() -> KafkaException:
    """What librdkafka itself raises at a deadline."""
    return KafkaException(KafkaError(KafkaError._TIMED_OUT))


@contextmanager
def kafka_errors(what: str, config: Mapping[str, str]) -> Iterator[None]:
    """Raises KafkaUnavailable, KafkaRejected or Fenced for librdkafka's errors; `what` was asked of `config`."""
    try:
        yield
    except KafkaException as error:
        raise translated(error, what, servers_of(config)) from None


def translated(error: Exception, what: str, servers: str) -> CdcError:
    """KafkaException as one of ours. `what` was asked of `servers`."""
    found = error.args[0] if isinstance(error, KafkaException) and error.args else error
    where = f"Kafka {servers}"
    message = f"{what}: {_text(error)}."
    if isinstance(found, KafkaError):
        if found.code() in _FENCED:
            return Fenced(message, where=where, cure="Another control plane has taken over: nothing to do.")
        if found.code() in _UNAVAILABLE or found.retriable():
            return KafkaUnavailable(message, where=where, cure="Check that the brokers are up and reachable.")
    return KafkaRejected(message, where=where)


def _text(error: Exception) -> str:
    found = error.args[0] if isinstance(error, KafkaException) and error.args else error
    text = f"{found.name()}: {found.str()}" if isinstance(found, KafkaError) else str(found)
    return text.rstrip(". ")
