"""Reads `SourceFacts`: a connection for each server or database, a short statement for each shard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import psycopg
import pymysql

from cdc_platform.clients.sources.binlog_tables import binlog_tables
from cdc_platform.clients.sources.publication import Demand, check, demand, refusals
from cdc_platform.clients.sources.shard_sessions import ShardSessions
from cdc_platform.clients.sources.source_rules import ANY, SourceRules
from cdc_platform.connectors.engines.registry import ENGINES
from cdc_platform.connectors.identity import Identity
from cdc_platform.errors import CdcError, SourceRejected
from cdc_platform.model.source_facts import RetainedLog, SourceFacts, SourceTable, Unfit
from cdc_platform.model.topology import Dataset, Engine, Shard

# What was read of a shard, or why it was not.
Answers = Mapping[str, SourceFacts | CdcError]

_POSTGRES = """
WITH wanted AS (SELECT * FROM unnest(%(schemas)s::text[], %(tables)s::text[]) AS u(s, t)),
     now AS (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END AS lsn)
SELECT (SELECT count(*) FROM pg_publication WHERE pubname = %(publication)s),
       (SELECT coalesce(json_agg(json_build_array(w.s, w.t, c.oid::bigint, p.pubname IS NOT NULL,
                                                        pg_has_role(c.relowner, 'USAGE'))), '[]')
          FROM wanted w JOIN pg_namespace n ON n.nspname = w.s
          JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.t AND c.relkind IN ('r', 'p')
          LEFT JOIN pg_publication_tables p
            ON p.pubname = %(publication)s AND p.schemaname = w.s AND p.tablename = w.t),
       (SELECT json_build_array(s.wal_status, s.safe_wal_size,
                                greatest(0, pg_wal_lsn_diff(now.lsn, s.restart_lsn))::bigint)
          FROM pg_replication_slots s WHERE s.slot_name = %(slot)s),
       pg_wal_lsn_diff(now.lsn, '0/0')::bigint
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
    for shard in shards:
        # Servers that carry out cascades as statements do, MySQL from 9.6 on, log them.
        logged = variables.get("innodb_native_foreign_keys") == "OFF"
        tables, alike = binlog_tables(cursor, dataset, shard, cascades=not logged)
        yield shard, SourceFacts(tables=tables, settings=settings, twins=alike, log=log)


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
    ((publications, found, slot, written),) = cursor.fetchall()
    unfit = {pair: Unfit(why=no.why, cure=no.cure) for pair, no in refusals(cursor, wanted).items()} if found else {}
    tables = {
        name: SourceTable(number=number, published=published, unfit=unfit.get((schema, name)))
        for schema, name, number, published, _ in found
    }
    unpublishable = ""
    if lacking := [(f"{schema}.{name}", owned) for schema, name, _, published, owned in found if not published]:
        unpublishable = _unpublishable(cursor, wanted, bool(publications), lacking)
    log = RetainedLog(bytes=slot[2] or 0, written=written, left=slot[1], state=slot[0] or "lost") if slot else None
    return SourceFacts(tables=tables, publication=bool(publications), unpublishable=unpublishable, log=log)


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
    "innodb_native_foreign_keys",
)


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
    )
