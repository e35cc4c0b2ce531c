"""The logs of the sources: where a stream may begin, slots, and how far replicas are behind.

Few and short questions to a shard's leader, as the dataset's own user. Everything a
start position can be wrong about is found here, before any connector is stopped.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

import psycopg
import pymysql

from cdc_platform.clients.sources import binlog_demands, publication
from cdc_platform.clients.sources.open_source import address_of
from cdc_platform.clients.sources.replication import channels, replication_status
from cdc_platform.clients.sources.sessions import mysql_cursor, postgres_cursor
from cdc_platform.clients.sources.source_rules import ANY, SourceRules
from cdc_platform.clients.sources.table_keys import Keys, count_sql, counted, mysql_keys, postgres_keys
from cdc_platform.connectors.identity import Identity
from cdc_platform.connectors.tables import DEFAULT_SCHEMA, container
from cdc_platform.errors import BadInput, SecretUnresolved, SourceRejected, SourceUnavailable
from cdc_platform.model.position_codec import format_lsn, parse_lsn
from cdc_platform.model.positions import MariaDbPosition, MySqlPosition
from cdc_platform.model.topology import Address, Dataset, Engine, Shard, Table

T = TypeVar("T")

_FILE_POS = re.compile(r"([A-Za-z0-9._-]+):(\d+)")

# Of a slot: does it hold what is needed, and was the publication there before it? A change that
# was made before the publication is refused once by pgoutput and then silently left out
# (tried, Postgres 17), so a younger publication would be a hole.
_SLOT = """
SELECT s.wal_status, s.confirmed_flush_lsn::text, pg_current_wal_lsn()::text, s.active,
       (SELECT count(*) FROM pg_publication p WHERE p.pubname = %(publication)s),
       (SELECT bool_and(age(x.xmin) >= age(s.catalog_xmin)) FROM (
            SELECT p.xmin FROM pg_publication p WHERE p.pubname = %(publication)s
            UNION ALL
            SELECT r.xmin FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
             WHERE p.pubname = %(publication)s) x)
  FROM pg_replication_slots s WHERE s.slot_name = %(slot)s
"""

_ROW_BYTES = """
SELECT max(pg_table_size(c.oid) / c.reltuples) FROM pg_class c
 WHERE c.reltuples > 0 AND c.oid = ANY (SELECT to_regclass(quote_ident(split_part(t, '.', 1)) || '.'
                                              || quote_ident(split_part(t, '.', 2))) FROM unnest(%s::text[]) t)
"""

# A replica that is further behind, in seconds, is not asked how many rows a table has.
_REPLICA_BEHIND = 5.0

# Debezium's own walsender is no replica.
_STANDBYS = """
SELECT max(extract(epoch FROM r.replay_lag)), count(*) FILTER (WHERE r.state IS NULL)
  FROM pg_stat_replication r
 WHERE NOT EXISTS (SELECT 1 FROM pg_replication_slots s WHERE s.active_pid = r.pid AND s.slot_type = 'logical')
"""


class SourceLogs(Protocol):
    """What a bootstrap needs of a shard's source. Raises SourceUnavailable and SourceRejected."""

    def start_offset(self, dataset: Dataset, shard: Shard, own: Identity, position: str) -> Mapping[str, Any]:
        """Debezium's source offset for a position. Raises BadInput: purged, not reached yet, or unreadable."""

    def drop_slot(self, dataset: Dataset, shard: Shard, own: Identity) -> None:
        """Drop the shard's replication slot (Postgres); a slot that is not there is no error."""

    def check(self, dataset: Dataset, shard: Shard) -> None:
        """Raises unless the leader answers the dataset's user."""

    def replica_lag(self, dataset: Dataset, shard: Shard) -> float | None:
        """Seconds that the slowest replica of the shard's leader is behind; None: it has no replica.

        Infinite where one has stopped. SourceRejected: the dataset's user may not see it.
        """

    def row_bytes(self, dataset: Dataset, shard: Shard, tables: Sequence[Table]) -> int | None:
        """Bytes of an average row of the widest of these tables by the server's statistics; None: it has none."""

    def key_columns(self, dataset: Dataset, shard: Shard, tables: Sequence[Table]) -> Keys:
        """Table to its key: without columns where it has none, or is not there."""

    def count_rows(self, dataset: Dataset, shard: Shard, table: Table, condition: str | None, seconds: float) -> int:
        """The rows of a table that a condition (SQL) is true for, counted by one statement of so many seconds.

        On a replica where the dataset's proof reads one. SourceRejected: it took longer, or may not be asked;
        SourceUnavailable also while the replica is behind.
        """

    def settled_transaction(self, dataset: Dataset, shard: Shard) -> int | None:
        """The newest transaction id of which it and all before have ended: 64 bits of Postgres, None of others."""

    def publish(self, dataset: Dataset, shard: Shard, own: Identity) -> None:
        """Make the shard's publication hold just the dataset's tables that are there (Postgres).

        Without a publication nothing: Debezium makes it. Debezium 3.7.0 cannot alter it: with `skipped.operations=t`
        its ALTER PUBLICATION has a WITH where none may be, and the task fails. It leaves a right one alone.
        One that an operator keeps (`publication.autocreate.mode=disabled`) is only looked at: SourceRejected.
        So is raised for tables that must not be published, and then nothing is altered.
        MariaDB and MySQL publish nothing: as `check_publication`.
        """

    def check_publication(self, dataset: Dataset, shard: Shard, own: Identity) -> None:
        """Raises SourceRejected for tables of the dataset that must not be published; changes nothing.

        MariaDB, MySQL: for a server from which nothing could be captured.
        """


class RealSourceLogs:
    """Asks the real servers; satisfies `SourceLogs`. A connection a question. Safe to call from many threads."""

    def __init__(self, *, timeout: float = 10.0, secrets_dirs: Sequence[str] = (), rules: SourceRules = ANY) -> None:
        self._timeout = timeout
        self._dirs, self._rules = tuple(secrets_dirs), rules

    def start_offset(self, dataset: Dataset, shard: Shard, own: Identity, position: str) -> Mapping[str, Any]:
        """See `SourceLogs`.

        MariaDB: a GTID position or `FILE:POS`; MySQL: a GTID set or `FILE:POS`; Postgres: an LSN, within
        what the shard's slot still holds.
        """
        if dataset.engine is Engine.POSTGRES:
            return self._with_postgres(dataset, shard, lambda c: _postgres_offset(c, own, position, shard.name))
        find = _mariadb_offset if dataset.engine is Engine.MARIADB else _mysql_offset
        return self._with_mysql(dataset, shard.leader, shard.name, lambda c: find(c, position, shard.name))

    def drop_slot(self, dataset: Dataset, shard: Shard, own: Identity) -> None:
        """See `SourceLogs`."""
        if dataset.engine is not Engine.POSTGRES or own.slot is None:
            return
        self._with_postgres(dataset, shard, lambda c: _drop(c, own.slot or ""))

    def check(self, dataset: Dataset, shard: Shard) -> None:
        """See `SourceLogs`."""
        if dataset.engine is Engine.POSTGRES:
            self._with_postgres(dataset, shard, lambda c: c.execute("SELECT 1"))
        else:
            self._with_mysql(dataset, shard.leader, shard.name, lambda c: c.execute("SELECT 1"))

    def replica_lag(self, dataset: Dataset, shard: Shard) -> float | None:
        """See `SourceLogs`. Postgres asks the leader of its standbys, the others each replica of the topology."""
        if dataset.engine is Engine.POSTGRES:
            return self._with_postgres(dataset, shard, _standby_lag)
        lags = [
            self._with_mysql(dataset, replica, shard.name, lambda c: _replica_lag(c, dataset.engine))
            for replica in shard.replicas
        ]
        return max((lag for lag in lags if lag is not None), default=None)

    def row_bytes(self, dataset: Dataset, shard: Shard, tables: Sequence[Table]) -> int | None:
        """See `SourceLogs`. Counts what is stored out of line, too."""
        if dataset.engine is Engine.POSTGRES:
            names = [f"{table.schema or DEFAULT_SCHEMA}.{table.name}" for table in tables]
            return self._with_postgres(dataset, shard, lambda c: _postgres_row_bytes(c, names))
        own = [table.name for table in tables]
        return self._with_mysql(dataset, shard.leader, shard.name, lambda c: _mysql_row_bytes(c, shard.database, own))

    def key_columns(self, dataset: Dataset, shard: Shard, tables: Sequence[Table]) -> Keys:
        """See `SourceLogs`."""
        if dataset.engine is Engine.POSTGRES:
            return self._with_postgres(dataset, shard, lambda c: postgres_keys(c, tables))
        return self._with_mysql(
            dataset, shard.leader, shard.name, lambda c: mysql_keys(c, dataset.engine, shard, tables)
        )

    def count_rows(self, dataset: Dataset, shard: Shard, table: Table, condition: str | None, seconds: float) -> int:
        """See `SourceLogs`."""
        sql = count_sql(dataset.engine, container(dataset, shard, table), table.name, condition)
        began = time.monotonic()
        try:
            if dataset.engine is Engine.POSTGRES:
                return self._with_postgres(dataset, shard, lambda c: counted(c, sql), answer=seconds)
            server = address_of(dataset, shard, replicas=bool(dataset.verification.get("replicas")))
            behind = None if server == shard.leader else dataset.engine

            def count(cursor: pymysql.cursors.Cursor) -> int:
                lag = None if behind is None else _replica_lag(cursor, behind)
                if lag is not None and lag > _REPLICA_BEHIND:
                    raise SourceUnavailable(f"the replica {server} is {lag:.0f} s behind.", cure="It is tried again.")
                return counted(cursor, sql)

            return self._with_mysql(dataset, server, shard.name, count, answer=seconds)
        except SourceUnavailable as error:
            if time.monotonic() - began < seconds:
                raise
            raise SourceRejected(
                f"counting {table.name} took longer than {seconds:.0f} s.",
                where=error.where,
                cure="Give it more time: count_seconds.",
            ) from None

    def settled_transaction(self, dataset: Dataset, shard: Shard) -> int | None:
        """See `SourceLogs`."""
        if dataset.engine is not Engine.POSTGRES:
            return None
        return self._with_postgres(dataset, shard, _settled)

    def publish(self, dataset: Dataset, shard: Shard, own: Identity) -> None:
        """See `SourceLogs`."""
        if own.publication is None:
            # What cannot be asked from here is not refused: Connect asks by itself when it is given the config.
            with suppress(SourceUnavailable, SecretUnresolved):
                self.check_publication(dataset, shard, own)
            return
        demand = publication.demand(dataset, shard, own.publication)
        self._with_postgres(dataset, shard, lambda c: publication.publish(c, demand))

    def check_publication(self, dataset: Dataset, shard: Shard, own: Identity) -> None:
        """See `SourceLogs`."""
        if own.publication is None:
            self._with_mysql(dataset, shard.leader, shard.name, lambda c: binlog_demands.check(c, dataset, shard))
            return
        demand = publication.demand(dataset, shard, own.publication)
        self._with_postgres(dataset, shard, lambda c: publication.check(c, demand))

    def _with_postgres(
        self, dataset: Dataset, shard: Shard, ask: Callable[[psycopg.Cursor[Any]], T], *, answer: float | None = None
    ) -> T:
        with postgres_cursor(
            shard.leader,
            dataset,
            database=shard.database,
            timeout=self._timeout,
            name=shard.name,
            purpose="bootstrap",
            dirs=self._dirs,
            answer=answer,
            rules=self._rules,
        ) as cursor:
            return ask(cursor)

    def _with_mysql(
        self,
        dataset: Dataset,
        server: Address,
        name: str,
        ask: Callable[[pymysql.cursors.Cursor], T],
        *,
        answer: float | None = None,
    ) -> T:
        with mysql_cursor(
            server,
            dataset,
            timeout=self._timeout,
            name=name,
            dirs=self._dirs,
            rules=self._rules,
            answer=answer,
        ) as cursor:
            return ask(cursor)


def _mariadb_offset(cursor: pymysql.cursors.Cursor, position: str, name: str) -> dict[str, Any]:
    found = _FILE_POS.fullmatch(position)
    text = position
    if found:
        text = str(_one(cursor, "SELECT BINLOG_GTID_POS(%s, %s)", (found[1], int(found[2]))) or "")
        if not text:
            raise _refused(name, f"{position} does not lie between two events of this server's binlog, or is purged.")
    wanted = _parsed(MariaDbPosition.parse, text, name, "a GTID position as in 0-1-50, or FILE:POS")
    oldest_file = _first_log(cursor, name)
    oldest = MariaDbPosition.parse(str(_one(cursor, "SELECT BINLOG_GTID_POS(%s, 4)", (oldest_file,)) or ""))
    if not wanted.covers(oldest):
        raise _refused(name, f"what follows {wanted} is purged: the oldest is {oldest} in {oldest_file}.")
    now = MariaDbPosition.parse(str(_one(cursor, "SELECT @@gtid_binlog_pos") or ""))
    if not now.covers(wanted):
        raise _refused(name, f"{wanted} is not reached yet: the server is at {now}.")
    # With GTIDs the server finds file and position itself (tried, Debezium 3.5.0); without them
    # its binlog client dies of a null pointer.
    return {"file": "", "pos": 4, "gtids": str(wanted)}


def _mysql_offset(cursor: pymysql.cursors.Cursor, position: str, name: str) -> dict[str, Any]:
    found = _FILE_POS.fullmatch(position)
    if found:
        cursor.execute("SHOW BINARY LOGS")
        sizes = {str(row[0]): int(row[1]) for row in cursor.fetchall()}
        if found[1] not in sizes:
            raise _refused(name, f"{found[1]} is purged: the oldest is {min(sizes, default='none')}.")
        if int(found[2]) > sizes[found[1]]:
            raise _refused(name, f"{position} is beyond the end of that file.")
        return {"file": found[1], "pos": int(found[2])}
    wanted = str(_parsed(MySqlPosition.parse, position, name, "a GTID set, or FILE:POS"))
    if not _one(cursor, "SELECT GTID_SUBSET(@@GLOBAL.gtid_purged, %s)", (wanted,)):
        raise _refused(name, f"what follows {wanted} is purged.")
    if not _one(cursor, "SELECT GTID_SUBSET(%s, @@GLOBAL.gtid_executed)", (wanted,)):
        raise _refused(name, f"{wanted} is not reached yet.")
    return {"file": _first_log(cursor, name), "pos": 4, "gtids": wanted}


def _postgres_offset(cursor: psycopg.Cursor[Any], own: Identity, position: str, name: str) -> dict[str, Any]:
    wanted = _parsed(parse_lsn, position, name, "an LSN as in 16/B374D848")
    cursor.execute(_SLOT, {"publication": own.publication, "slot": own.slot})
    row = cursor.fetchone()
    if row is None:
        raise _refused(
            name,
            f"there is no slot {own.slot}: Postgres keeps nothing for a reader that has none.",
            "Make publication and slot before the time you want to start from, or use mode incremental.",
        )
    status, flushed, now, _, publications, older = row
    if status == "lost" or flushed is None:
        raise _refused(name, f"slot {own.slot} has lost its WAL.", "Use mode incremental.")
    if not publications:
        raise _refused(name, f"there is no publication {own.publication}: what was changed so far would be left out.")
    if not older:
        raise _refused(
            name,
            f"publication {own.publication} may be younger than the slot: changes from before it are left out.",
            # A new slot's catalog_xmin is that of the oldest slot of the server, standbys' feedback included.
            "Create the slot again, half a minute after the publication, or use mode incremental.",
        )
    if wanted < parse_lsn(flushed):
        raise _refused(name, f"slot {own.slot} begins at {flushed}, after {format_lsn(wanted)}.")
    if wanted > parse_lsn(now):
        raise _refused(name, f"{format_lsn(wanted)} is not reached yet: the server is at {now}.")
    return {"lsn": wanted}


def _drop(cursor: psycopg.Cursor[Any], slot: str) -> None:
    cursor.execute(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s AND NOT active",
        (slot,),
    )
    cursor.execute("SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s", (slot,))
    left = cursor.fetchone()
    if left is not None:
        raise SourceUnavailable(f"slot {slot} is in use by process {left[0]}.", cure="It is tried again.")


def _settled(cursor: psycopg.Cursor[Any]) -> int:
    cursor.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint - 1")
    (found,) = cursor.fetchall()
    return int(found[0])


def _standby_lag(cursor: psycopg.Cursor[Any]) -> float | None:
    cursor.execute(_STANDBYS)
    ((lag, hidden),) = cursor.fetchall()
    if hidden:
        raise SourceRejected(
            "the lag of its standbys is hidden from the dataset's user.", cure="GRANT pg_read_all_stats TO the user."
        )
    return None if lag is None else float(lag)


def _replica_lag(cursor: pymysql.cursors.Cursor, engine: Engine) -> float | None:
    cursor.execute(replication_status(engine))
    return max((math.inf if c.behind is None else c.behind for c in channels(cursor)), default=None)


def _mysql_row_bytes(cursor: pymysql.cursors.Cursor, database: str, tables: Sequence[str]) -> int | None:
    widest = "SELECT MAX(avg_row_length) FROM information_schema.tables WHERE table_schema = %s AND table_name IN %s"
    found = _one(cursor, widest, (database, tuple(tables)))
    return int(found) if found else None


def _postgres_row_bytes(cursor: psycopg.Cursor[Any], tables: Sequence[str]) -> int | None:
    # As stored: values that are compressed there travel at their full length.
    cursor.execute(_ROW_BYTES, (list(tables),))
    row = cursor.fetchone()
    return None if row is None or row[0] is None else int(row[0])


def _first_log(cursor: pymysql.cursors.Cursor, name: str) -> str:
    cursor.execute("SHOW BINARY LOGS")
    row = cursor.fetchone()
    if row is None:
        raise _refused(name, "this server writes no binlog.", "Set log_bin.")
    return str(row[0])


def _one(cursor: pymysql.cursors.Cursor, sql: str, params: tuple[Any, ...] = ()) -> Any:
    cursor.execute(sql, params)
    row = cursor.fetchone()
    return row[0] if row else None


def _parsed(parse: Callable[[str], T], text: str, name: str, form: str) -> T:
    try:
        if not text.strip():
            raise BadInput("it is empty.")
        return parse(text.strip())
    except BadInput:
        raise _refused(name, f"{text!r} is not a valid position.", f"Write {form}.") from None


def _refused(name: str, message: str, cure: str = "Choose another position, or mode incremental.") -> BadInput:
    return BadInput(message, where=f"shard {name}", field="positions", cure=cure)
