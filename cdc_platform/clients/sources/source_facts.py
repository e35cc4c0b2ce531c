"""Reads `SourceFacts`: a connection for each server or database, a short statement for each shard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import psycopg
import pymysql

from cdc_platform.clients.sources.binlog_tables import binlog_tables
from cdc_platform.clients.sources.catalog_binlog import as_text
from cdc_platform.clients.sources.errors import is_missing_right
from cdc_platform.clients.sources.publication import Demand, check, demand, refusals
from cdc_platform.clients.sources.shard_sessions import ShardSessions
from cdc_platform.clients.sources.source_rules import ANY, SourceRules
from cdc_platform.connectors.engines.registry import ENGINES
from cdc_platform.connectors.identity import Identity
from cdc_platform.errors import CdcError, SourceRejected
from cdc_platform.model.source_facts import LogFile, RetainedLog, SourceFacts, SourceTable, Unfit
from cdc_platform.model.topology import Dataset, Engine, Shard

# What was read of a shard, or why it was not.
Answers = Mapping[str, SourceFacts | CdcError]

_POSTGRES = """
WITH wanted AS (SELECT * FROM unnest(%(schemas)s::text[], %(tables)s::text[]) AS u(s, t)),
     now AS (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END AS lsn)
SELECT (SELECT array_to_string(array_remove(ARRAY[CASE WHEN NOT pubinsert THEN 'INSERT' END,
                                                CASE WHEN NOT pubupdate THEN 'UPDATE' END,
                                                CASE WHEN NOT pubdelete THEN 'DELETE' END], NULL), ', ')
          FROM pg_publication WHERE pubname = %(publication)s),
       (SELECT coalesce(json_agg(json_build_array(w.s, w.t, c.oid::bigint, p.pubname IS NOT NULL,
                                                        pg_has_role(c.relowner, 'USAGE'), concat_ws(' and ',
                                                        CASE WHEN to_jsonb(r) ->> 'prqual' <> '' THEN 'rows' END,
                                                        CASE WHEN to_jsonb(r) ->> 'prattrs' <> '' THEN 'columns' END))),
                       '[]')
          FROM wanted w JOIN pg_namespace n ON n.nspname = w.s
          JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.t AND c.relkind IN ('r', 'p')
          LEFT JOIN pg_publication_tables p
            ON p.pubname = %(publication)s AND p.schemaname = w.s AND p.tablename = w.t
          LEFT JOIN pg_publication b ON b.pubname = %(publication)s
          LEFT JOIN pg_publication_rel r ON r.prpubid = b.oid AND r.prrelid = c.oid),
       (SELECT json_build_array(s.wal_status, s.safe_wal_size,
                                greatest(0, pg_wal_lsn_diff(now.lsn, s.restart_lsn))::bigint,
                                greatest(0, pg_wal_lsn_diff(now.lsn, s.confirmed_flush_lsn))::bigint)
          FROM pg_replication_slots s WHERE s.slot_name = %(slot)s),
       pg_wal_lsn_diff(now.lsn, '0/0')::bigint,
       (SELECT concat_ws('/', c.system_identifier, d.oid)
          FROM pg_control_system() c, pg_database d WHERE d.datname = current_database())
  FROM now
"""


class SourceFactsReader(Protocol):
    """Asks the leader of some shards of one dataset."""

    def read(self, dataset: Dataset, shards: Sequence[tuple[Shard, Identity]]) -> Answers:
        """By shard (`<dataset>.<shard>`); all have the same leader. Raises nothing: an error is an answer."""


class RealSourceFacts:
    """Asks the real servers as the dataset's own user. Safe to call from many threads."""

    def __init__(self, *, timeout: float = 5.0, secrets_dirs: Sequence[str] = (), rules: SourceRules = ANY) -> None:
        self._sessions = ShardSessions(purpose="facts", timeout=timeout, secrets_dirs=secrets_dirs, rules=rules)

    def read(self, dataset: Dataset, shards: Sequence[tuple[Shard, Identity]]) -> Answers:
        """See `SourceFactsReader`."""
        return self._sessions.ask_each(
            dataset,
            shards,
            postgres=lambda cursor, shard, own: _postgres_facts(cursor, dataset, shard, own),
            binlog=lambda cursor, own: _binlog_facts(cursor, dataset, own),
        )


def _binlog_facts(
    cursor: pymysql.cursors.Cursor, dataset: Dataset, shards: Sequence[Shard]
) -> Iterator[tuple[Shard, SourceFacts]]:
    variables = _variables(cursor)
    settings, log = _log_settings(cursor, dataset.engine), binlogs(cursor, variables)
    if log is not None:
        log = replace(log, begins=tuple(_begin(cursor, dataset.engine, file) for file in log.begins))
    server = server_identity(cursor, dataset.engine)
    for shard in shards:
        # Servers that carry out cascades as statements do, MySQL from 9.6 on, log them.
        logged = variables.get("innodb_native_foreign_keys") == "OFF"
        tables, alike = binlog_tables(cursor, dataset, shard, cascades=not logged)
        place = f"{server}/{filed_name(shard.database, variables)}"
        yield shard, SourceFacts(tables=tables, settings=settings, twins=alike, log=log, place=place)


def _postgres_facts(cursor: psycopg.Cursor[Any], dataset: Dataset, shard: Shard, own: Identity) -> SourceFacts:
    wanted = demand(dataset, shard, own.publication or "")
    names = list(wanted.tables)
    cursor.execute(
        _POSTGRES,
        {
            "schemas": [schema for schema, _ in names],
            "tables": [name for _, name in names],
            "publication": wanted.publication,
            "slot": own.slot,
        },
    )
    ((withheld, found, slot, written, place),) = cursor.fetchall()
    unfit = {pair: Unfit(why=no.why, cure=no.cure) for pair, no in refusals(cursor, wanted).items()} if found else {}
    # An operator's own publication may leave out the columns that the connector is not to have.
    kept = {name: withheld or (narrow if wanted.ours or "rows" in narrow else "") for _, name, *_, narrow in found}
    tables = {
        name: SourceTable(number=number, published=sent, withheld=kept[name], unfit=unfit.get((schema, name)))
        for schema, name, number, sent, *_ in found
    }
    there = withheld is not None
    unpublishable = ""
    if lacking := [(f"{schema}.{name}", own) for schema, name, _, sent, own, _ in found if not sent or kept[name]]:
        unpublishable = _unpublishable(cursor, wanted, there, lacking)
    log = None
    if slot:
        state, left, kept_bytes, unread = slot
        log = RetainedLog(bytes=kept_bytes or 0, written=written, left=left, state=state or "lost", unread=unread)
    return SourceFacts(
        tables=tables,
        publication=there,
        slotless=log is None,
        unpublishable=unpublishable,
        log=log,
        place=str(place),
    )


def _unpublishable(
    cursor: psycopg.Cursor[Any], wanted: Demand, there: bool, lacking: Sequence[tuple[str, bool]]
) -> str:
    """Why a pass cannot add tables that the publication lacks, with the cure; empty when it can."""
    if not there:
        return f"There is no publication {wanted.publication}: `cdc-platform bootstrap` the shard with --again."
    if not wanted.ours:
        return f"The owner of publication {wanted.publication} must add it."
    if foreign := [name for name, owned in lacking if not owned]:
        return f"The connector's user must own {foreign[0]}: ALTER TABLE {foreign[0]} OWNER TO it."
    try:
        check(cursor, wanted)
    except SourceRejected as error:
        return f"It may not be published: {error.message} {error.cure}"
    return ""


def _log_settings(cursor: pymysql.cursors.Cursor, engine: Engine) -> dict[str, str]:
    """The variables, and the filters of the binlog, that are not as they must be."""
    needed = ENGINES[engine].server_variables
    cursor.execute("SELECT " + ",".join(f"@@global.{name}" for name in needed))
    (values,) = cursor.fetchall()
    wrong = {name: str(value) for name, value in zip(needed, values, strict=True) if str(value) != needed[name]}
    return wrong | log_filters(cursor, engine)


def log_filters(cursor: pymysql.cursors.Cursor, engine: Engine) -> dict[str, str]:
    """The filters of the binlog that are set."""
    try:
        cursor.execute("SHOW MASTER STATUS" if engine is Engine.MARIADB else "SHOW BINARY LOG STATUS")
    except pymysql.err.ProgrammingError:
        cursor.execute("SHOW MASTER STATUS")  # MySQL 8.0
    row = cursor.fetchone()
    filters = (("binlog_do_db", 2), ("binlog_ignore_db", 3))
    return {} if row is None else {name: str(row[at]) for name, at in filters if row[at]}


# `max_binlog_total_size` (MariaDB 11.4) and `binlog_space_limit` (Percona) bound all binlogs together.
_VARIABLES = (
    *("binlog_expire_logs_seconds", "max_binlog_size", "max_binlog_total_size", "binlog_space_limit"),
    *("innodb_native_foreign_keys", "lower_case_table_names"),
)


def server_identity(cursor: pymysql.cursors.Cursor, engine: Engine) -> str:
    """What a MariaDB or MySQL server says of itself, the same by whichever address it is reached."""
    name = "@@server_uuid" if engine is Engine.MYSQL else "CONCAT_WS(':', @@hostname, @@port, @@datadir)"
    cursor.execute(f"SELECT {name}")
    ((identity,),) = cursor.fetchall()
    return str(identity)


def filed_name(database: str, variables: Mapping[str, str]) -> str:
    """The database's name as the server files it: names that differ in case only may be one database."""
    return database if variables.get("lower_case_table_names") == "0" else database.lower()


def _variables(cursor: pymysql.cursors.Cursor) -> dict[str, str]:
    """Those of `_VARIABLES` that the server has."""
    cursor.execute("SHOW GLOBAL VARIABLES WHERE Variable_name IN %s", (_VARIABLES,))
    return {str(name): str(value) for name, value in cursor.fetchall()}


def binlogs(cursor: pymysql.cursors.Cursor, variables: Mapping[str, str]) -> RetainedLog | None:
    """All binlogs together; `variables` are the bounds that the server shows. None: it writes none."""
    cursor.execute("SHOW BINARY LOGS")
    sizes = [(str(row[0]), int(row[1])) for row in cursor.fetchall()]
    values = {name: int(value) for name, value in variables.items() if value.isdigit()}
    if not sizes:
        return None
    # Files are full, or nearly so, when the next one is begun: their numbers count what was written in all.
    number = int(sizes[-1][0].rpartition(".")[2])
    return RetainedLog(
        bytes=sum(size for _, size in sizes),
        written=(number - len(sizes) + 1) * values["max_binlog_size"] + sum(size for _, size in sizes),
        left=values.get("max_binlog_total_size") or values.get("binlog_space_limit") or None,
        seconds=values.get("binlog_expire_logs_seconds") or None,
        begins=tuple(LogFile(name, "") for name, _ in sizes[:2]),
    )


def _begin(cursor: pymysql.cursors.Cursor, engine: Engine, file: LogFile) -> LogFile:
    """The binlog with the position of the server where it begins; without, where it was purged just now."""
    if engine is Engine.MARIADB:
        cursor.execute("SELECT BINLOG_GTID_POS(%s, 4)", (file.name,))
        ((position,),) = cursor.fetchall()
        return replace(file, position=as_text(position))
    try:
        cursor.execute("SHOW BINLOG EVENTS IN %s LIMIT 2", (file.name,))
    except pymysql.Error as error:
        if is_missing_right(error) or error.args[0] == pymysql.constants.ER.ERROR_WHEN_EXECUTING_COMMAND:
            return file
        raise
    events = {as_text(row[2]): as_text(row[5]) for row in cursor.fetchall()}
    return replace(file, position=events.get("Previous_gtids", ""))
