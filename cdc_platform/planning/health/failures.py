"""Why a connector is down, read from its task's trace, and what is done about each class of failure. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum


class Failure(StrEnum):
    """Why a connector or task is down."""

    CONNECTION = "connection"
    AUTHENTICATION = "authentication"
    STALE_LOGIN = "stale-login"
    LOG_PURGED = "log-purged"
    SCHEMA_HISTORY = "schema-history"
    SLOT_MISSING = "slot-missing"
    OUT_OF_MEMORY = "out-of-memory"
    POISON_RECORD = "poison-record"
    STUCK = "stuck"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cure:
    """What is done about a class of failure.

    `automatic`: restarts may cure it. `probe`: shards of one source host are
    tried one at a time, `first_wait` apart. `first_wait`: before the second
    restart of a shard. `patience`: before the first.
    """

    automatic: bool
    probe: bool
    first_wait: timedelta
    advice: str
    patience: timedelta = timedelta()


CURES: Mapping[Failure, Cure] = {
    Failure.CONNECTION: Cure(
        automatic=True,
        probe=True,
        first_wait=timedelta(seconds=30),
        advice="Check that the leader is up and reachable from the workers; a leader change cures it.",
    ),
    Failure.AUTHENTICATION: Cure(
        automatic=True,
        probe=True,
        first_wait=timedelta(minutes=15),
        # A wrong password that is tried again and again locks the account.
        patience=timedelta(minutes=15),
        advice="Put the right user and password into the secret file on each worker; the next try then succeeds.",
    ),
    Failure.STALE_LOGIN: Cure(
        automatic=True,
        probe=False,
        first_wait=timedelta(minutes=2),
        # Seen by two passes: who has just been restarted is about to log in.
        patience=timedelta(seconds=30),
        advice="The source lets the control plane in, and not the task, which read the secret at its start: "
        "it is restarted. If that does not help, compare the secret file of its worker.",
    ),
    Failure.LOG_PURGED: Cure(
        automatic=False,
        probe=False,
        first_wait=timedelta(hours=1),
        advice="The saved position is gone from the source: changes may be lost. "
        "`cdc-platform bootstrap` the shard, which says what and fills the hole.",
    ),
    Failure.SCHEMA_HISTORY: Cure(
        automatic=False,
        probe=False,
        first_wait=timedelta(hours=1),
        advice="`cdc-platform bootstrap` the shard: its schema history is rebuilt.",
    ),
    Failure.SLOT_MISSING: Cure(
        automatic=False,
        probe=False,
        first_wait=timedelta(hours=1),
        advice="The replication slot is gone: changes may be lost. "
        "`cdc-platform bootstrap` the shard, which makes a new slot and fills the hole.",
    ),
    Failure.OUT_OF_MEMORY: Cure(
        automatic=True,
        probe=False,
        first_wait=timedelta(minutes=2),
        advice="Lower `limits.queue_bytes` of the dataset or give the workers more heap.",
    ),
    Failure.POISON_RECORD: Cure(
        automatic=False,
        probe=False,
        first_wait=timedelta(hours=1),
        advice="One record cannot be handled: read the trace. A large one: raise `limits.producer_buffer_bytes`; "
        "a table without primary key: set its `key` in the topology.",
    ),
    Failure.STUCK: Cure(
        automatic=True,
        probe=True,
        first_wait=timedelta(minutes=2),
        # Seen silent by two passes: a task that has just been resumed is given time to beat.
        patience=timedelta(seconds=30),
        advice="Connect says RUNNING but the heartbeats stopped: check source and network.",
    ),
    Failure.UNKNOWN: Cure(
        automatic=True,
        probe=False,
        first_wait=timedelta(seconds=30),
        advice="Read the trace: `cdc-platform status DATASET SHARD`.",
    ),
}


# What is wrong with a login: the same for all shards of a dataset.
LOGIN = frozenset({Failure.AUTHENTICATION, Failure.STALE_LOGIN})


# First match wins: the specific before the general. Sources: messages of
# Debezium's BinlogStreamingChangeEventSource, PostgresStreamingChangeEventSource,
# MySQL error 1236, PostgreSQL SQLSTATE texts, Kafka producer exceptions.
_SIGNS: tuple[tuple[Failure, re.Pattern[str]], ...] = tuple(
    (failure, re.compile(pattern, re.IGNORECASE))
    for failure, pattern in (
        (Failure.OUT_OF_MEMORY, r"OutOfMemoryError|Java heap space|unable to create native thread"),
        (
            Failure.SLOT_MISSING,
            r"replication slot .{0,120}(does not exist|invalidated|can no longer|no longer available)"
            r"|can no longer get changes from replication slot|slot .{0,80}was invalidated"
            # A dropped slot: the task makes a new one, and that begins after the saved position (Debezium 3.7.0).
            r"|change stream starting at PostgresOffsetContext",
        ),
        (
            Failure.LOG_PURGED,
            # The last: an offset taken before the server's first GTID cannot be read back (Debezium 3.5.0).
            r"no longer available on the server|could not find first log file name|gtidSet\W{1,3}is null"
            r"|\b1236\b.{0,200}(purged|first log|could not find)|purged required binary logs"
            r"|could not find GTID state requested by slave|required binlog files have been purged"
            r"|requested WAL segment .{0,80}already been removed",
        ),
        (
            Failure.SCHEMA_HISTORY,
            r"(db|schema) history topic .{0,80}(missing|partial)|schema isn't known to this connector"
            r"|database schema history|Could not find existing (binlog|redo).{0,80}schema",
        ),
        (
            Failure.AUTHENTICATION,
            r"access denied for user|password authentication failed|authentication failed"
            r"|no pg_hba\.conf entry|role \".{0,64}\" (does not exist|is not permitted to log in)"
            r"|Unable to authenticate|account is locked|password has expired|must SET PASSWORD",
        ),
        (
            Failure.POISON_RECORD,
            r"RecordTooLargeException|DataException|SerializationException|SchemaBuilderException"
            # A compacted topic and a table that has no primary key.
            r"|cannot accept message without key"
            # A value that Debezium cannot convert, and a binlog event that it cannot read.
            r"|Failed to properly convert data value|EventDataDeserializationException"
            r"|Tolerance exceeded in error handler|max\.request\.size",
        ),
        (
            Failure.CONNECTION,
            r"connection refused|communications link failure|connect(ion)? timed out|connection reset"
            r"|UnknownHost|No route to host|broken pipe|EOFException|Could not connect|connection attempt failed"
            r"|terminating connection|database system is (shutting down|starting up)|SocketException"
            r"|Failed to (read|connect)|the connection .{0,40}closed|Network is unreachable",
        ),
    )
)


def classify(trace: str | None) -> Failure:
    """The class of failure that a Connect trace shows; UNKNOWN when none matches."""
    for failure, sign in _SIGNS:
        if trace and sign.search(trace):
            return failure
    return Failure.UNKNOWN


def first_line(trace: str | None) -> str:
    """The sentence of a Java trace that says most: the last `Caused by`, shortened."""
    lines = [line.strip() for line in (trace or "").splitlines() if line.strip()]
    causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    text = causes[-1] if causes else (lines[0] if lines else "no trace")
    return text if len(text) <= 160 else text[:157] + "..."
