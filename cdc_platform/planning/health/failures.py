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
    NO_FREE_SLOT = "no-free-slot"
    DDL_UNPARSED = "ddl-unparsed"
    SCHEMA_MISMATCH = "schema-mismatch"
    COLUMN_UNREADABLE = "column-unreadable"
    TOPIC_MISSING = "topic-missing"
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
    Failure.NO_FREE_SLOT: Cure(
        automatic=True,
        probe=True,
        first_wait=timedelta(minutes=2),
        advice="All replication slots of the server are in use: drop one that is no longer needed, or raise "
        "`max_replication_slots` and restart the server. One shard is tried; once it runs, the others follow.",
    ),
    Failure.DDL_UNPARSED: Cure(
        automatic=False,
        probe=False,
        first_wait=timedelta(hours=1),
        advice="Debezium cannot parse a statement of the source's log, and every restart meets it again. If it "
        "changes no captured table, `cdc-platform topology skip-statement DATASET SHARD` lets the shard go on, with "
        "nothing lost; else `cdc-platform bootstrap DATASET SHARD --again` reads its rows again.",
    ),
    Failure.SCHEMA_MISMATCH: Cure(
        automatic=False,
        probe=False,
        first_wait=timedelta(hours=1),
        advice="A row in the log has other columns than the connector knows for its table: the table was changed "
        "without the log, has a hidden column, or a session does not log whole rows. Remove the cause, then "
        "`cdc-platform bootstrap DATASET SHARD --again` for just this shard reads definition and rows again.",
    ),
    Failure.COLUMN_UNREADABLE: Cure(
        automatic=False,
        probe=False,
        first_wait=timedelta(hours=1),
        advice="The log holds rows with a column type that the connector cannot read, such as MariaDB's COMPRESSED: "
        "change the column to one without it, then `cdc-platform bootstrap DATASET SHARD --again` for just this shard "
        "starts behind those rows and reads the table again.",
    ),
    Failure.TOPIC_MISSING: Cure(
        automatic=True,
        probe=False,
        first_wait=timedelta(minutes=2),
        advice="Kafka has no such topic, or no broker answered: `cdc-platform plan` shows topics that are still to be "
        "made. If no captured table has this topic, a table is captured whose name differs only in case: create the "
        "topic by hand, so that the shard goes on, and rename that table.",
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
        # Before all others: the statement that follows may hold any words.
        (Failure.DDL_UNPARSED, r"DDL statement couldn't be parsed|NoViableAltException|text\.\w*ParsingExceptions?\b"),
        (Failure.SCHEMA_MISMATCH, r"internal schema size \d+, but row size \d+"),
        # MariaDB's codes for COMPRESSED columns: the binlog client has no name for them.
        (Failure.COLUMN_UNREADABLE, r"NullPointerException.{0,80}binlog\.event\.deserialization\.ColumnType"),
        (Failure.NO_FREE_SLOT, r"all replication slots are in use"),
        (Failure.TOPIC_MISSING, r"Topic \S+ not present in metadata after"),
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


# What a trace names: the pattern, and the sentence about its groups.
# A quote that ends the statement ends its line, too; quotes within it may do so as well.
_UNPARSED = re.compile(r"DDL statement couldn't be parsed.{0,80}?the statement '(.+?)'\s*(?:\n|$)", re.DOTALL)

_NAMED: tuple[tuple[re.Pattern[str], str], ...] = (
    (_UNPARSED, "Debezium cannot parse the statement: {0}"),
    (
        re.compile(r"Error processing row in (\S+), internal schema size (\d+), but row size (\d+)"),
        "a row of table {0} has {2} columns, the connector knows {1}",
    ),
    (re.compile(r"Topic (\S+) not present in metadata after"), "Kafka did not answer for the topic {0}"),
)


def first_line(trace: str | None) -> str:
    """What a Java trace names (statement, table, topic), or else its last `Caused by`; shortened to 160 characters."""
    for pattern, sentence in _NAMED:
        if (found := pattern.search(trace or "")) is not None:
            return _shortened(sentence.format(*(_plain(group) for group in found.groups())))
    lines = [line.strip() for line in (trace or "").splitlines() if line.strip()]
    causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    return _shortened(causes[-1] if causes else (lines[0] if lines else "no trace"))


def unparsed_statement(trace: str | None) -> str | None:
    """The whole statement that Debezium could not parse; None for other traces."""
    found = _UNPARSED.search(trace or "")
    return found.group(1) if found else None


def masked(statement: str) -> str:
    """A statement on one line, as it may be shown."""
    return _shortened(_plain(statement))


def _plain(text: str) -> str:
    """On one line, and without what a statement about users may hold: alerts carry it to other systems."""
    if re.search(r"\b(IDENTIFIED|PASSWORD)\b", text, re.IGNORECASE):
        text = re.sub(r"(['\"]).*?(\1|$)", "'...'", text, flags=re.DOTALL)
    return " ".join(text.split())


def _shortened(text: str) -> str:
    return text if len(text) <= 160 else text[:157] + "..."
