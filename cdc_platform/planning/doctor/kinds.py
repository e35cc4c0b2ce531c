"""The kinds of what the doctor finds, as data: what it judges by, and what docs/hazards.md is made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cdc_platform.errors import TopologyError
from cdc_platform.model.naming import one_of
from cdc_platform.model.topology import Dataset
from cdc_platform.planning.health import source_hazard_kinds
from cdc_platform.planning.health.source_hazard_kinds import BINLOG, POSTGRES, HazardKind, HazardRow


class Severity(StrEnum):
    """What a finding means for the shard.

    ERROR: no connector is created over it. WARNING: something of it will be lost, stop or stay unproven. NOTE: it
    depends on values, or is just to be known; alone it is not a finding.
    """

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Ailment(StrEnum):
    """What is wrong before a shard is captured, beside the hazards that passes look for, too."""

    MISSING_RIGHT = "missing-right"
    NO_KEY = "no-key"
    KEY_NOT_READ_IN_CHUNKS = "key-not-read-in-chunks"
    RESERVED_NAME = "reserved-name"
    PUBLICATION = "narrow-publication"
    MISSING_TABLE = "missing-table"
    NOT_A_TABLE = "not-a-table"
    UNPROVABLE = "unprovable-column"
    VALUES = "values-to-know"
    LARGE_VALUES = "large-values"
    GENERATED = "generated-column"
    HIDDEN = "hidden-column"
    PARTITIONED = "partitioned-table"
    NOT_TRANSACTIONAL = "not-transactional"
    ROW_SECURITY = "row-security"
    ONLINE_CHANGE = "online-change"
    SHARDS_DIFFER = "shards-differ"
    SLOT_TAKEN = "slot-taken"
    NO_ROOM = "no-room"
    RETENTION = "short-retention"
    UNBOUNDED_LOG = "unbounded-log"
    FOLLOWS = "leader-follows"
    PREPARED = "prepared-transaction"
    SESSION_LIMITS = "session-limits"
    SMALL_PACKETS = "small-packets"
    CLOCK = "clock"


Kind = Ailment | HazardKind


@dataclass(frozen=True, slots=True, kw_only=True)
class AilmentFacts(HazardRow):
    """What all findings of a kind have in common."""

    severity: Severity


_EVERY = f"{BINLOG}, {POSTGRES}"
_CHANNEL = "`doctor`; `plan` and `topology import` for what is new"
_COST = "a dozen short statements a shard"


def _facts(
    engines: str,
    done: str,
    happens: str,
    cure: str,
    severity: Severity = Severity.WARNING,
    channel: str = _CHANNEL,
) -> AilmentFacts:
    return AilmentFacts(
        engines=engines, done=done, happens=happens, channel=channel, cost=_COST, cure=cure, severity=severity
    )


AILMENTS: Mapping[Ailment, AilmentFacts] = {
    Ailment.MISSING_RIGHT: _facts(
        _EVERY,
        "The connector's user lacks a right (`cdc-platform grants`)",
        "The connector does not start, or the table is not read",
        "The GRANT that is printed.",
        Severity.ERROR,
    ),
    Ailment.NO_KEY: _facts(
        _EVERY,
        "A table has no primary key, or the `key` of the topology is not a unique key of NOT NULL columns",
        "Its events have no key that tells rows apart: compacted topics refuse them, and the task stops",
        "Add a primary key, or name the columns of a unique key as `key` of the table.",
        Severity.ERROR,
    ),
    Ailment.KEY_NOT_READ_IN_CHUNKS: _facts(
        _EVERY,
        "A column of a table's key is an ENUM, SET, TIME, FLOAT, BIT(n), or an unsigned BIGINT above 2^63 - 1; on "
        "Postgres `money`, `hstore` or an array",
        "Its rows cannot be read in chunks: bootstraps and backfills refuse the table",
        "Another key, or `bootstrap: snapshot`.",
    ),
    Ailment.RESERVED_NAME: _facts(
        _EVERY,
        "A key column is called `shard`",
        "The field that tells shards apart takes its place: rows of one shard count for those of another",
        "Rename the column, or name another unique key as `key` of the table.",
        Severity.ERROR,
    ),
    Ailment.PUBLICATION: _facts(
        POSTGRES,
        "A publication of the shard's name lacks a table, rows, columns, or an operation",
        "What it lacks is not sent",
        "The ALTER PUBLICATION that is printed.",
        Severity.ERROR,
    ),
    Ailment.MISSING_TABLE: _facts(
        _EVERY,
        "A table of the dataset is not in a shard",
        "Nothing of it is captured there",
        "Create it, or take it out of the dataset's tables.",
    ),
    Ailment.NOT_A_TABLE: _facts(
        _EVERY,
        "A name of the dataset's tables is a view, a sequence or a foreign table",
        "It has no changes of its own, and nothing of it is captured",
        "Name the tables below it, or take it out of the dataset's tables.",
    ),
    Ailment.UNPROVABLE: _facts(
        _EVERY,
        "A column's type has no form in which table and topic could be compared, or keys of it cannot be looked up; "
        "the database's encoding is SQL_ASCII",
        "The table is `unverifiable`",
        "Another type; or name the column among the policy's `ignore_columns`.",
    ),
    Ailment.VALUES: _facts(
        _EVERY,
        "A column's type has values that the connector captures in another form, or cannot",
        "Depends on the values: [verification](verification.md) lists them",
        "Avoid such values.",
        Severity.NOTE,
    ),
    Ailment.LARGE_VALUES: _facts(
        POSTGRES,
        "A table with long columns has a replica identity other than FULL",
        "A large value that an update leaves unchanged is not sent, and compaction may take the last event with it",
        "`ALTER TABLE ... REPLICA IDENTITY FULL`.",
    ),
    Ailment.GENERATED: _facts(
        POSTGRES,
        "A captured table has generated columns",
        "Their values are in no event",
        "Compute them downstream, or make them plain columns that a trigger fills.",
    ),
    Ailment.HIDDEN: _facts(
        "MySQL",
        "A captured table has INVISIBLE columns, or a primary key that the server made by itself",
        "Events carry columns that `SELECT *` does not show: what reads topic and table sees two shapes",
        "`ALTER TABLE ... ALTER COLUMN ... SET VISIBLE`.",
    ),
    Ailment.PARTITIONED: _facts(
        _EVERY,
        "A captured table is partitioned",
        "`DROP`, `TRUNCATE`, `EXCHANGE`, `DETACH` and `ATTACH PARTITION` change rows without a row in the log: they "
        "stay in the topic, or are not in it",
        "Delete such rows by statements, or `verify` and `repair --tombstones` after it.",
    ),
    Ailment.NOT_TRANSACTIONAL: _facts(
        BINLOG,
        "A captured table is kept by MyISAM, MEMORY, CSV or another engine without transactions",
        "What failed half-way stays changed, a snapshot is not of one moment, and a MEMORY table is emptied by a "
        "restart without a row in the log",
        "`ALTER TABLE ... ENGINE = InnoDB`.",
    ),
    Ailment.ROW_SECURITY: _facts(
        POSTGRES,
        "Policies hide rows of a captured table from the connector's user",
        "Snapshots and the proof do not read the hidden rows, the stream has them",
        "`ALTER ROLE ... BYPASSRLS`.",
        Severity.ERROR,
    ),
    Ailment.ONLINE_CHANGE: _facts(
        _EVERY,
        "A captured table has the triggers of an online schema change (pt-online-schema-change, pg_repack)",
        "It is about to be swapped for a copy in the middle of the bootstrap",
        "Let the change end, or drop what an interrupted one left.",
    ),
    Ailment.SHARDS_DIFFER: _facts(
        _EVERY,
        "A table's columns, types, keys or collations are not those of most shards",
        "One topic holds rows of two shapes: readers and the proof meet columns that are not everywhere",
        "Make the definitions alike; the statement to compare with is printed.",
    ),
    Ailment.SLOT_TAKEN: _facts(
        POSTGRES,
        "A slot of the shard's name is there that the connector cannot use: of another database or plugin, in use, "
        "or without its WAL",
        "The connector does not start",
        "`SELECT pg_drop_replication_slot(...)`, once it is known whose it is.",
        Severity.ERROR,
    ),
    Ailment.NO_ROOM: _facts(
        _EVERY,
        "The server has fewer slots, WAL senders or connections left than its shards need",
        "The connectors of some of them do not start",
        "Raise the setting that is named.",
    ),
    Ailment.RETENTION: _facts(
        BINLOG,
        "Binlogs are kept for less than the longest outage (`source_log.outage_seconds`)",
        "After an outage what was purged is lost, and the shard must be bootstrapped again",
        "`SET GLOBAL binlog_expire_logs_seconds`, and in the configuration file.",
    ),
    Ailment.UNBOUNDED_LOG: _facts(
        POSTGRES,
        "`max_slot_wal_keep_size` is -1, and the dataset's `source_log` names no bound",
        "A slot whose connector is down keeps WAL until the disk is full. How much is free the server does not tell",
        "Set `max_slot_wal_keep_size`, or `source_log`.",
        Severity.NOTE,
    ),
    Ailment.FOLLOWS: _facts(
        _EVERY,
        "The leader of the topology applies what another server sends",
        "It is a replica: no publication can be made there, or its log is another's",
        "`cdc-platform topology set-leader`.",
    ),
    Ailment.PREPARED: _facts(
        _EVERY,
        "A transaction is prepared (XA, PREPARE TRANSACTION) and neither committed nor rolled back",
        "A slot is not made before it ends; the connector commits nothing behind it",
        "Commit it or roll it back.",
    ),
    Ailment.SESSION_LIMITS: _facts(
        POSTGRES,
        "`ALTER ROLE` or `ALTER DATABASE SET` of time limits or of `default_transaction_read_only` for the "
        "connector's user",
        "The server ends its long reads, or it can make neither slot nor publication",
        "`ALTER ROLE ... RESET`.",
    ),
    Ailment.SMALL_PACKETS: _facts(
        BINLOG,
        "`max_allowed_packet` is less than 16 MiB",
        "Longer values cannot be proven",
        "`SET GLOBAL max_allowed_packet`, and in the configuration file.",
    ),
    Ailment.CLOCK: _facts(
        _EVERY,
        "The server's clock differs from ours by more than a minute",
        "Lags, and what is held against a time, are wrong by as much",
        "See that both follow the same time.",
    ),
}

# Hazards that passes look for, and that the doctor names before.
BEFORE: Mapping[HazardKind, Severity] = {
    HazardKind.LOG_SETTINGS: Severity.ERROR,
    HazardKind.UNREADABLE: Severity.ERROR,
    HazardKind.LEFT_OUT: Severity.WARNING,
    HazardKind.CASCADE: Severity.WARNING,
    HazardKind.CASE_TWIN: Severity.ERROR,
    HazardKind.LOG_FILLING: Severity.WARNING,
    HazardKind.SHARED_DATABASE: Severity.ERROR,
}


def severity(kind: Kind) -> Severity:
    """What a finding of the kind means, unless it says otherwise."""
    return AILMENTS[kind].severity if isinstance(kind, Ailment) else BEFORE[kind]


def happens(kind: Kind) -> str:
    """What it leads to."""
    return AILMENTS[kind].happens if isinstance(kind, Ailment) else source_hazard_kinds.KINDS[kind].happens


def table() -> Iterator[str]:
    """docs/hazards.md's table, line by line: the doctor's kinds, then those of passes, then the others."""
    yield "| name | engine | what people do | what happens | channel | costs the source | cure |"
    yield "|---|---|---|---|---|---|---|"
    named: list[tuple[str, HazardRow, str]] = [(f"`{kind}`", row, row.channel) for kind, row in AILMENTS.items()]
    for kind, found in source_hazard_kinds.KINDS.items():
        named.append((f"`{kind}`", found, f"`doctor`; {found.channel}" if kind in BEFORE else found.channel))
    named += [("", row, row.channel) for row in source_hazard_kinds.OTHERS]
    for name, row, channel in named:
        yield f"| {' | '.join((name, row.engines, row.done, row.happens, channel, row.cost, row.cure))} |"


def check_accepted(dataset: Dataset, where: Path | str) -> None:
    """Raises TopologyError when the dataset accepts what is no kind of finding, or one of a table that it lacks."""
    known = [str(kind) for kind in (*AILMENTS, *BEFORE)]
    for accepted in dataset.accepted_hazards:
        kind, colon, table = accepted.partition(":")
        cure = None
        if kind not in known:
            cure = one_of(kind, known, most=len(known))
        elif colon and table not in {one.name for one in dataset.tables}:
            cure = one_of(table, (one.name for one in dataset.tables))
        if cure is not None:
            field = f"datasets.{dataset.name}.accepted_hazards"
            raise TopologyError(
                f"{accepted!r} is not a finding of the doctor.", where=str(where), field=field, cure=cure
            )
