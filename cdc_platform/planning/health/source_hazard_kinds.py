"""The kinds of hazards at a source, as data: what checks go by, and a part of docs/hazards.md. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class HazardKind(StrEnum):
    """What is wrong at a source."""

    UNPUBLISHED = "unpublished-table"
    REPLACED = "replaced-table"
    ABSENT = "absent-table"
    LOG_SETTINGS = "log-settings"
    UNREADABLE = "unreadable-table"
    UNFIT = "unfit-table"
    LEFT_OUT = "left-out-table"
    UNLOGGED = "unlogged-definition"
    CASCADE = "cascade"
    CASE_TWIN = "case-twin"
    LOG_FILLING = "log-filling"
    LOG_LOST = "log-lost"
    SLOT_GIVEN_UP = "slot-given-up"
    SHARED_DATABASE = "shared-database"


@dataclass(frozen=True, slots=True, kw_only=True)
class HazardRow:
    """What people do, what happens, the channel that names it, what asking costs the source, and the cure."""

    engines: str
    done: str
    happens: str
    channel: str
    cost: str
    cure: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KindFacts(HazardRow):
    """What all hazards of a kind have in common.

    `loses`: changes are being lost while it lasts, so the shard is INCOMPLETE and its ledger has a break. `alerts`:
    it came about while the shard was captured, and is not just how the tables are made.
    """

    loses: bool = False
    alerts: bool = True


_PROVE = "Then `cdc-platform verify` the table, and `repair` what it finds."
_ROUND = "catalog, every 5 minutes: `status`, alert, `cdc_source_hazards`"
_STATEMENT = "one statement a shard"
BINLOG, POSTGRES = "MariaDB, MySQL", "Postgres"

KINDS: Mapping[HazardKind, KindFacts] = {
    HazardKind.UNPUBLISHED: KindFacts(
        engines=POSTGRES,
        done="A table is swapped by rename, dropped and made again, or taken out of the publication; the publication "
        "gets a filter of rows, a list of columns, or a `publish` without INSERT, UPDATE or DELETE",
        happens="Its changes, or some of them, are not sent, and the task runs on",
        channel=f"{_ROUND}, `verify`, a break of the ledger",
        cost=_STATEMENT,
        cure=f"The next pass adds it to the publication, whole. {_PROVE}",
        loses=True,
    ),
    HazardKind.REPLACED: KindFacts(
        engines=POSTGRES,
        done="Another table takes the name of a captured one, and is published at once",
        happens="How the two differ never came as a change",
        channel="catalog, every 5 minutes: a break of the ledger, `verify`, the watermark's hole in `status`",
        cost=_STATEMENT,
        cure=_PROVE,
    ),
    HazardKind.ABSENT: KindFacts(
        engines=f"{BINLOG}, {POSTGRES}",
        done="A captured table is dropped, renamed or moved to another schema or database",
        happens="What is changed under its new name is not captured",
        channel=_ROUND,
        cost=_STATEMENT,
        cure="Bring it back under its name, or take it out of the dataset's tables.",
    ),
    HazardKind.LOG_SETTINGS: KindFacts(
        engines=BINLOG,
        done="`SET GLOBAL binlog_format`, `binlog_row_image`, `log_bin_compress`, `binlog_row_value_options`; "
        "`binlog_do_db` and `binlog_ignore_db`",
        happens="Changes are logged in a form that the connector passes over, or not at all",
        channel=f"server variables, {_ROUND.removeprefix('catalog, ')}, a break of the ledger; before that `verify`",
        cost="three statements a server",
        cure=f"Set it back, and have sessions that began meanwhile connect again. {_PROVE}",
        loses=True,
    ),
    HazardKind.UNREADABLE: KindFacts(
        engines=BINLOG,
        done="A captured table has a UNIQUE key over TEXT or BLOB, a COMPRESSED column, or system versioning",
        happens="Its first row in the log stops the connector",
        channel=f"{_ROUND}, `plan` before it is captured; then the task's failure",
        cost=_STATEMENT,
        cure="Change the definition, or take the table out of the dataset's tables.",
    ),
    HazardKind.UNFIT: KindFacts(
        engines=f"{BINLOG}, {POSTGRES}",
        done="A captured table loses its replica identity (Postgres), or gets a key of TIMESTAMP with a fraction "
        "(MariaDB, MySQL)",
        happens="Postgres refuses the application's UPDATE and DELETE there, or deletes go out under another row's key",
        channel=_ROUND,
        cost=_STATEMENT,
        cure="Carry out the statement that is named with it.",
    ),
    HazardKind.LEFT_OUT: KindFacts(
        engines=f"{BINLOG}, {POSTGRES}",
        done="A table that is to be captured has no usable replica identity, is not logged, or is partitioned without "
        "its root (Postgres); has a key of TIMESTAMP with a fraction, or a definition as for `unreadable-table` "
        "(MariaDB, MySQL)",
        happens="It is left out of that shard's capture, and its statements are not disturbed. The shard's other "
        "tables are captured",
        channel=f"{_ROUND}, `plan` before it is captured, `verify`, a break of the ledger",
        cost=_STATEMENT,
        cure=f"Carry out the statement that is named with it: within minutes the table is captured. Then backfill it. "
        f"{_PROVE}",
        loses=True,
    ),
    HazardKind.UNLOGGED: KindFacts(
        engines=BINLOG,
        done="A captured table is altered with `sql_log_bin=0`, or on a replica that leads later",
        happens="The connector reads rows by the definition that it knows: it stops, or takes values for other columns",
        channel=f"catalog against the schema history, {_ROUND.removeprefix('catalog, ')}; "
        "then the task's failure, `schema-mismatch`",
        cost=f"{_STATEMENT}; the schema history is read where a definition changed",
        cure="`cdc-platform bootstrap DATASET SHARD --again` for just this shard reads definition and rows again. "
        f"{_PROVE}",
    ),
    HazardKind.CASCADE: KindFacts(
        engines="MariaDB, MySQL before 9.6",
        done="A captured table has a foreign key ON DELETE or ON UPDATE CASCADE, SET NULL or SET DEFAULT",
        happens="The server changes its rows below the binlog: nothing of it is captured",
        channel="catalog, every 5 minutes: `plan`, `status`, `verify`, `cdc_source_hazards`; its effects: `verify`",
        cost=_STATEMENT,
        cure="Change such rows by statements of the application's own, or `verify` after each change of the parents.",
        alerts=False,
    ),
    HazardKind.CASE_TWIN: KindFacts(
        engines=BINLOG,
        done="There is a table whose name differs from a captured one's in case only",
        happens="The connector captures both, and stops where the second has no topic",
        channel=_ROUND,
        cost=_STATEMENT,
        cure="Rename it, or move it to another database.",
    ),
    HazardKind.LOG_FILLING: KindFacts(
        engines=f"{BINLOG}, {POSTGRES}",
        done="A connector is down or slow for long",
        happens="Postgres: its slot keeps WAL until the disk or its bound is full. MariaDB, MySQL: binlogs that it has "
        "not read are purged",
        channel="server status (slot, binlogs), every 5 minutes: `status`, alert, `cdc_source_log_bytes`, "
        "`cdc_source_log_seconds_left`. How much disk is free is not known",
        cost=_STATEMENT,
        cure="Bring the connector back (`cdc-platform status`), or give the source room. The dataset's `source_log` "
        "says whether a slot is given up before it is full.",
    ),
    HazardKind.LOG_LOST: KindFacts(
        engines=f"{BINLOG}, {POSTGRES}",
        done="Binlogs are purged that a connector has not read; its slot is dropped, or lost its WAL; a new leader has "
        "no such slot",
        happens="The connector cannot go on from its place: changes are lost",
        channel="server status (slot, binlogs) against the connector's committed place, every 5 minutes: `status`, "
        "alert, `cdc_source_hazards`, a break of the ledger",
        cost=f"{_STATEMENT}, two short ones a MariaDB or MySQL server",
        cure=f"`cdc-platform bootstrap DATASET SHARD --again`. {_PROVE}",
        loses=True,
    ),
    HazardKind.SLOT_GIVEN_UP: KindFacts(
        engines=POSTGRES,
        done="The topology says `when_full: give_up_slot`, and a slot keeps nearly what it may",
        happens="A pass stops the connector and drops the slot: changes until the shard is bootstrapped are lost",
        channel="the pass's report, `slot-missing`, a break of the ledger",
        cost="nothing",
        cure="`cdc-platform bootstrap DATASET SHARD --again`, then `verify`.",
    ),
    HazardKind.SHARED_DATABASE: KindFacts(
        engines=f"{BINLOG}, {POSTGRES}",
        done="Two shards of a dataset read one database, be it by two addresses; or two datasets read one table",
        happens="Each row is in the topic twice, under two shards; of two datasets, each topic has it",
        channel=f"by the topology: `topology import` refuses, `plan`; by the servers: {_ROUND}, and `plan` before it "
        "is captured",
        cost="one statement a server (Postgres: none more)",
        cure="Correct the address or the database of one of them.",
    ),
}

# What no check of this list finds; the last are those that nothing tells before a proof.
OTHERS: tuple[HazardRow, ...] = (
    HazardRow(
        engines=BINLOG,
        done="Statements that the connector cannot parse, anywhere on the server",
        happens="Every connector of the server stops",
        channel="the task's failure, `ddl-unparsed`",
        cost="nothing",
        cure="See [ddl-unparsed](operations.md#ddl-unparsed).",
    ),
    HazardRow(
        engines="MariaDB",
        done="Rows of a table with a COMPRESSED column change, in any database of the server",
        happens="Every connector of the server stops",
        channel="the task's failure, `column-unreadable`",
        cost="nothing",
        cure="See [column-unreadable](operations.md#column-unreadable).",
    ),
    HazardRow(
        engines=POSTGRES,
        done="`ALTER DATABASE`, `ALTER ROLE` or `ALTER SYSTEM SET` of `bytea_output`, `IntervalStyle`, "
        "`extra_float_digits`, `DateStyle`, `TimeZone`",
        happens="Nothing: the connector and the proof set their own",
        channel="not needed",
        cost="nothing",
        cure="None is needed.",
    ),
    HazardRow(
        engines=BINLOG,
        done="`SET GLOBAL` of `sql_mode`, `time_zone`, `character_set_*`, `init_connect`, `group_concat_max_len`",
        happens="Nothing: the connector and the proof set their own, and rows are logged in a form of their own",
        channel="not needed",
        cost="nothing",
        cure="None is needed.",
    ),
    HazardRow(
        engines=BINLOG,
        done="Another table with other rows takes the name of a captured one (`RENAME TABLE`)",
        happens="How the two differ never came as a change; what is changed from then on does",
        channel="none: only a proof finds it",
        cost="a proof",
        cure=f"Swap copies that hold the same rows, as gh-ost and pt-online-schema-change do. {_PROVE}",
    ),
    HazardRow(
        engines=BINLOG,
        done="A session sets `binlog_row_image` for itself",
        happens="The connector stops at its rows",
        channel="the task's failure, `schema-mismatch`",
        cost="nothing",
        cure="See [schema-mismatch](operations.md#schema-mismatch).",
    ),
    HazardRow(
        engines=BINLOG,
        done="A session sets `binlog_format=STATEMENT` for itself",
        happens="The connector passes over its changes",
        channel="none: only a proof finds it",
        cost="a proof",
        cure=f"Grant no application the right to set it (SUPER, BINLOG ADMIN, SESSION_VARIABLES_ADMIN). {_PROVE}",
    ),
    HazardRow(
        engines=BINLOG,
        done="A session sets `sql_log_bin=0`",
        happens="Its changes are in no log",
        channel="none: only a proof finds it",
        cost="a proof",
        cure=f"Grant no application the right to set it. {_PROVE}",
    ),
)
