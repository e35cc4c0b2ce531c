"""What Kafka Connect's REST API says, as our values and errors.

The shapes are those of Kafka 4.3's `connect/runtime/rest/entities`; fields that
are not needed are skipped by the decoder, so that 3,000 connectors cost tens of
milliseconds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar, cast

import msgspec

from cdc_platform.errors import ConnectUnavailable
from cdc_platform.model import bounded_json
from cdc_platform.model.masking import without_secrets
from cdc_platform.model.observed import ObservedConnector, ObservedTask

T = TypeVar("T")

# Connect's own word for a connector without a report yet.
UNASSIGNED = "UNASSIGNED"

# A Debezium trace is some 10 KB; thousands of them at once must stay cheap.
TRACE_LIMIT = 6000

# 409 on POST /connectors is the one 409 that does not pass (AbstractHerder).
_EXISTS = re.compile(r"Connector .* already exists\Z", re.DOTALL)

# RebalanceNeededException as such (DistributedHerder.checkRebalanceNeeded).
_REBALANCE = re.compile(r"Request cannot be completed because a rebalance is expected")

# 500s that say nothing about the request itself: HerderRequestHandler and
# RestClient (a timeout, a leader that cannot be reached) and a config topic
# that could not be written. What was asked may have happened all the same.
_TRANSIENT = re.compile(
    r"Request timed out|Request interrupted|IO [Ee]rror|Error (trying to forward|forwarding)"
    r"|Failed to write to config topic|Failed to read to end of config topic"
)


class _Task(msgspec.Struct, gc=False):
    id: int
    state: str
    worker_id: str
    trace: str | None = None


class _Connector(msgspec.Struct, gc=False):
    state: str
    worker_id: str
    trace: str | None = None


class Status(msgspec.Struct, gc=False):
    """GET /connectors/{name}/status."""

    connector: _Connector
    tasks: list[_Task] = msgspec.field(default_factory=list)


class Info(msgspec.Struct, gc=False):
    """GET /connectors/{name}. A config value that was PUT as null comes back as null."""

    config: dict[str, str | None]

    def without_nulls(self) -> dict[str, str]:
        """The config; the very same dictionary where nothing has to be left out, as ever."""
        if None in self.config.values():
            return {key: value for key, value in self.config.items() if value is not None}
        return cast("dict[str, str]", self.config)


class Entry(msgspec.Struct, gc=False):
    """One connector of GET /connectors?expand=..."""

    info: Info | None = None
    status: Status | None = None


class Server(msgspec.Struct):
    """GET /: what tells a Connect worker from another HTTP server."""

    version: str
    kafka_cluster_id: str


class Health(msgspec.Struct):
    """GET /health (KIP-1017): healthy, starting or unhealthy."""

    status: str
    message: str


class Plugin(msgspec.Struct):
    """One entry of GET /connector-plugins."""

    class_name: str = msgspec.field(name="class")
    type: str = "unknown"
    version: str | None = None


class _Offsets(msgspec.Struct):
    offsets: list[dict[str, Any]]


class _Error(msgspec.Struct):
    error_code: int
    message: str | None = None


entries = msgspec.json.Decoder(dict[str, Entry])
names = msgspec.json.Decoder(list[str])
info = msgspec.json.Decoder(Info)
status = msgspec.json.Decoder(Status)
server = msgspec.json.Decoder(Server)
health = msgspec.json.Decoder(Health)
plugins = msgspec.json.Decoder(list[Plugin])
offsets = msgspec.json.Decoder(_Offsets)
_error = msgspec.json.Decoder(_Error)


def decode(decoder: msgspec.json.Decoder[T], body: bytes, where: str) -> T:
    """The body as the decoder's type. Raises ConnectUnavailable on a broken or foreign answer."""
    try:
        return bounded_json.decode(decoder, body)
    except msgspec.DecodeError as error:
        # The answer itself stays out of the message: it may be a whole config.
        raise ConnectUnavailable(
            f"broken answer of {len(body)} bytes: {error}.",
            where=where,
            cure="Read again; if it stays, look at the worker and at what stands between.",
        ) from None


def observed(name: str, found: Info, seen: Status | None) -> ObservedConnector:
    """A connector as one value. Without a status (right after a create) it is UNASSIGNED without tasks."""
    config = found.without_nulls()
    if seen is None:
        return ObservedConnector(name=name, config=config, state=UNASSIGNED, worker="")
    return ObservedConnector(
        name=name,
        config=config,
        state=seen.connector.state,
        worker=seen.connector.worker_id,
        trace=shown_trace(seen.connector.trace),
        tasks=tuple(
            ObservedTask(id=task.id, state=task.state, worker=task.worker_id, trace=shown_trace(task.trace))
            for task in sorted(seen.tasks, key=lambda task: task.id)
        ),
    )


def error_message(body: bytes) -> str | None:
    """The message of Connect's error document, without secrets; None when the body is no such document."""
    try:
        return without_secrets(bounded_json.decode(_error, body).message or "")
    except msgspec.DecodeError:
        return None


def says_rebalance(status: int, message: str) -> bool:
    """True when nothing was done because the group is about to rebalance, or has no leader.

    That is a 409, but for the one that says "already exists"; and, from the
    requests that Kafka 4.3 does not translate, a 500 with a message of its own.
    """
    if status == 409:
        return _EXISTS.fullmatch(message) is None
    return status == 500 and _REBALANCE.match(message) is not None


def is_transient(message: str) -> bool:
    """True for a 500 that says nothing about the request: it may have been applied, or not."""
    return _TRANSIENT.match(message) is not None


def shorten_trace(trace: str) -> str:
    """At most TRACE_LIMIT characters: every cause stays as long as it fits, stack frames go first."""
    if len(trace) <= TRACE_LIMIT:
        return trace
    causes = "\n".join(line for line in trace.splitlines() if not line.startswith(("\tat ", "\t... ")))
    if len(causes) <= TRACE_LIMIT:
        return causes
    # The first line says what failed, the last "Caused by" why.
    half = TRACE_LIMIT // 2 - 3
    return f"{causes[:half]}\n...\n{causes[-half:]}"


def with_references(message: str, config: Mapping[str, str | None]) -> str:
    """The message with references in place of the values that Connect resolved from them, whatever their names say.

    Connect validates after it has replaced `${...}`, and ConfigException prints
    the offending value ("Invalid value X for configuration K").
    """
    for key, value in config.items():
        if value is not None and "${" in value and key in message:
            pattern = rf"Invalid value (?s:.*?) for configuration {re.escape(key)}(?![\w.])"
            replacement = f"Invalid value (of {value}) for configuration {key}"
            message = re.sub(pattern, replacement.replace("\\", r"\\"), message)
    return message


def shown_trace(trace: str | None) -> str | None:
    """A trace as it may be kept, shown and sent: without secrets, and short."""
    return trace and shorten_trace(without_secrets(trace))
