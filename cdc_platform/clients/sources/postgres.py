"""Postgres as a source, read through psycopg."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np
import psycopg

from cdc_platform.canonical import hash_sql as engines
from cdc_platform.canonical.column_hazards import hazards
from cdc_platform.canonical.columns import Column, Shape
from cdc_platform.canonical.key_text import readable_key
from cdc_platform.canonical.postgres import by_output
from cdc_platform.clients.sources.catalog_postgres import COLUMNS, column_of
from cdc_platform.clients.sources.connecting import connect_postgres
from cdc_platform.clients.sources.errors import source_errors
from cdc_platform.clients.sources.postgres_keys import KeyColumn, keys_condition, range_condition
from cdc_platform.clients.sources.replica_identity import FACTS, facts, refusal
from cdc_platform.clients.sources.source import Captured, Inspection, Key, Slice, every_column
from cdc_platform.clients.sources.source_rules import ANY, SourceRules
from cdc_platform.errors import CdcError
from cdc_platform.model.positions import Committed, PostgresPosition
from cdc_platform.model.topology import Address, Engine

_ENGINE = Engine.POSTGRES

_KEYS = """
SELECT i.indisprimary, array_agg(a.attname::text ORDER BY k.ord), bool_and(a.attnotnull)
FROM pg_index i
CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(num, ord)
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.num
WHERE i.indrelid = %s AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
  AND k.ord <= i.indnkeyatts
GROUP BY i.indexrelid, i.indisprimary
"""

_TABLE = """
SELECT c.oid, c.relkind, c.relreplident, c.relpersistence, greatest(c.reltuples, 0)::bigint,
       has_table_privilege(c.oid, 'SELECT'), current_setting('server_encoding'), pg_is_in_recovery(),
       current_setting('wal_level'), EXISTS (SELECT FROM pg_publication p JOIN pg_publication_tables t USING (pubname)
                                              WHERE p.pubviaroot AND (t.schemaname, t.tablename) = (nspname, relname))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s
"""

_SESSION = """
SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres'; SET bytea_output = 'hex';
SET extra_float_digits = 1; SET standard_conforming_strings = on; SET xmloption = 'content';
SET client_encoding = 'UTF8'; SET row_security = off; SET jit = off; SET max_parallel_workers_per_gather = 0;
SET default_transaction_isolation = 'read committed'; SET lock_timeout = '5s'
"""

# Bytes of a row in a chunk's answer: the key and the first eight of the row's digest.
_WIDTH = 16


class PostgresSource:
    """One table on one Postgres server."""

    def __init__(
        self,
        address: Address,
        *,
        user: str,
        password: str,
        database: str,
        schema: str,
        table: str,
        key: tuple[str, ...] = (),
        captured: Captured = every_column,
        timeout: float = 30.0,
        rules: SourceRules = ANY,
    ) -> None:
        self._where = f"{address}/{database}"
        self._address, self._user, self._password, self._database = address, user, password, database
        self._schema, self._table, self._key = schema, table, key
        self._captured = captured
        self._timeout, self._rules = timeout, rules
        self._held: psycopg.Connection[Any] | None = None
        self._shape: Shape | None = None
        self._key_columns: tuple[KeyColumn, ...] = ()
        self._lsn: str | None = None
        self._only = "ONLY "

    def inspect(self) -> Inspection:
        """The table's shape and what stands against a proof."""
        found = self._rows(_TABLE, (self._schema, self._table))
        if not found:
            return Inspection(shape=None, problems=(f"the source has no table {self._schema}.{self._table}",))
        oid, kind, identity, persistence, rows, readable, encoding, standby, wal_level, by_root = found[0]
        problems = []
        if standby:
            problems.append("the server is a standby: its snapshots do not list running transactions")
        if not readable:
            problems.append(f"the user has no SELECT right on {self._schema}.{self._table}")
        # Partitions send their rows under the root's name, each with an identity of its own.
        self._only, whole = ("", False) if kind == "p" else ("ONLY ", identity == "f")
        if kind not in "rp":
            problems.append("it must be a table: what it is has no changes of its own")
        if kind == "p" and not by_root:
            problems.append("it is partitioned, and no publication sends its rows under its own name")
        if persistence != "p":
            problems.append("it is not logged: nothing of it reaches the WAL")
        if identity == "n" and kind == "r":
            problems.append("REPLICA IDENTITY NOTHING: updates and deletes are not captured")
        if encoding == "SQL_ASCII":
            problems.append("the database's encoding is SQL_ASCII: its text has no defined characters")
        if wal_level != "logical":
            problems.append(f"wal_level is {wal_level}, not logical")
        columns, types, left_out = self._columns(oid)
        problems += [
            f"column {column.name}: the type {column.type} has no canonical form"
            for column in columns
            if engines.form(_ENGINE, column) is None
        ]
        key = self._key_of(oid)
        if not key:
            problems.append("there is no primary key, nor a unique key of NOT NULL columns that the topology names")
        elif missing := [name for name in key if name not in types]:
            problems.append(f"the key column {missing[0]} is in no event")
        else:
            problems += [
                f"the key column {column.name}: keys of type {column.type} cannot be looked up"
                for column in columns
                if column.name in key and not readable_key(_ENGINE, column)
            ]
        warnings = (*self._refused(), *hazards(_ENGINE, columns, complete_rows=whole))
        if problems:
            return Inspection(shape=None, problems=tuple(problems), rows=rows, left_out=left_out, warnings=warnings)
        self._shape = Shape(engine=_ENGINE, columns=columns, key=key, complete_rows=whole)
        self._key_columns = tuple(self._key_column(self._shape.column(name), *types[name]) for name in key)
        return Inspection(shape=self._shape, rows=rows, left_out=left_out, warnings=warnings)

    def prepared(self) -> tuple[str, ...]:
        """See `Source`. The stream has a prepared transaction when it is committed."""
        return ()

    def position(self) -> PostgresPosition:
        """The snapshot of a statement now."""
        return self._position(self._rows("SELECT pg_current_snapshot()::text, pg_current_wal_insert_lsn()::text")[0])

    def beyond(self, committed: Committed) -> Committed:
        """What was committed: heartbeats carry it on."""
        return committed

    def chunk_end(self, after: Key | None, rows: int) -> Key | None:
        """The key of the `rows`-th row behind `after`; None when there are fewer."""
        where, params = range_condition(self._key_columns, after, None)
        names = ",".join(column.text for column in self._key_columns)
        columns = ",".join(self._name(name) for name in self._known.key)
        found = self._rows(
            # In one SELECT, ORDER BY would take the name for the text of the output, and sort the whole table.
            f"SELECT {names} FROM (SELECT {columns} FROM {self._only}{self._from} WHERE {where}"
            f" ORDER BY {columns} LIMIT 1 OFFSET %s) AS found",
            (*params, rows - 1),
        )
        return tuple(found[0]) if found else None

    def read_chunk(self, after: Key | None, until: Key | None) -> Slice:
        """All rows with a key above `after` up to `until`."""
        return self._slice(*range_condition(self._key_columns, after, until))

    def read_keys(self, keys: Sequence[Key]) -> Slice:
        """The rows of these keys."""
        return self._slice(*keys_condition(self._key_columns, self._from, keys))

    def find(self, after: Key | None, until: Key | None, keys: Sequence[int]) -> Mapping[int, Key]:
        """64-bit key to key."""
        where, params = range_condition(self._key_columns, after, until)
        names = ",".join(column.text for column in self._key_columns)
        wanted = [int(key).to_bytes(8, "big") for key in keys]
        found = self._rows(
            f"SELECT {self._key_word} AS w,{names} FROM {self._only}{self._from}"
            f" WHERE {where} AND {self._key_word} = ANY(%s::bytea[])",
            (*params, wanted),
            binary=True,
        )
        return {int.from_bytes(row[0], "big"): tuple(row[1:]) for row in found}

    def tokens(self, keys: Sequence[Key]) -> Mapping[Key, Mapping[str, bytes]]:
        """Key to column to canonical token."""
        where, params = keys_condition(self._key_columns, self._from, keys)
        shape = self._known
        names = [column.text for column in self._key_columns]
        for column in shape.columns:
            names.append(f"convert_to({engines.token_sql(_ENGINE, column)},'UTF8')".replace("%", "%%"))
        found = self._rows(f"SELECT {','.join(names)} FROM {self._only}{self._from} WHERE {where}", params, binary=True)
        width = len(shape.key)
        return {
            tuple(row[:width]): {column.name: bytes(row[width + at]) for at, column in enumerate(shape.columns)}
            for row in found
        }

    def another(self) -> PostgresSource:
        """The same table by a connection of its own."""
        more = copy(self)
        more._held = more._lsn = None
        return more

    def close(self) -> None:
        """Close the connection."""
        if self._held is not None:
            self._held.close()
            self._held = None

    @property
    def _known(self) -> Shape:
        if self._shape is None:
            raise RuntimeError("inspect() comes first")
        return self._shape

    @property
    def _from(self) -> str:
        return f"{self._name(self._schema)}.{self._name(self._table)}"

    @property
    def _key_word(self) -> str:
        shape = self._known
        if engines.integer_key(shape):
            return f"int8send({self._name(shape.key[0])}::int8)"
        return f"substr(sha256(textsend({engines.key_sql(shape)})),1,8)".replace("%", "%%")

    @staticmethod
    def _name(name: str) -> str:
        return engines.quote_name(_ENGINE, name).replace("%", "%%")

    def _key_column(self, column: Column, type_: str, operators: str) -> KeyColumn:
        name = self._name(column.name)
        text = by_output(name) if column.kind == "enum" else f"{name}::text"
        return KeyColumn(name=name, text=text, type=type_.replace("%", "%%"), operators=operators.replace("%", "%%"))

    def _slice(self, where: str, params: tuple[Any, ...]) -> Slice:
        if self._lsn is None:
            self.position()
        row = f"substr(sha256(textsend({engines.row_sql(self._known)})),1,8)".replace("%", "%%")
        found = self._rows(
            # One statement, one snapshot: functions in the select list see the one that reads the rows,
            # and the WAL's end is asked for after it was taken.
            f"SELECT pg_current_snapshot()::text, pg_current_wal_insert_lsn()::text,"
            f" string_agg({self._key_word}||{row},''::bytea) FROM {self._only}{self._from} WHERE {where}",
            params,
            binary=True,
        )[0]
        words = np.frombuffer(found[2] or b"", dtype=">u8").astype(np.uint64).reshape(-1, _WIDTH // 8)
        position = self._position(found)
        return Slice(keys=words[:, 0].copy(), rows=words[:, 1].copy(), low=position, high=position)

    def _position(self, found: Sequence[Any]) -> PostgresPosition:
        before, self._lsn = self._lsn, found[1]
        return PostgresPosition.of(found[0], before or "0/0", found[1])

    def _columns(self, oid: int) -> tuple[tuple[Column, ...], dict[str, tuple[str, str]], tuple[str, ...]]:
        columns, types, left_out = [], {}, []
        for _, *row in self._rows(COLUMNS, ([oid],)):
            found = column_of(row)
            if found.generated or not self._captured(found.name):
                left_out.append(found.name)
                continue
            types[found.name] = row[-2], row[-1]
            columns.append(found.column)
        return tuple(columns), types, tuple(left_out)

    def _refused(self) -> tuple[str, ...]:
        """What is wrong with publishing the table, with its cure."""
        found = facts(self._rows(FACTS, ([self._schema], [self._table])))
        refusals = [refusal(table, self._key, via_root=True) for table in found if table.kind in "rp"]
        return tuple(f"{no.table}: {no.why} ({no.cure})" for no in refusals if no)

    def _key_of(self, oid: int) -> tuple[str, ...]:
        for primary, names, filled in self._rows(_KEYS, (oid,)):
            if filled and (set(names) == set(self._key) if self._key else primary):
                return self._key or tuple(names)
        return ()

    def _rows(self, sql: str, params: Sequence[Any] = (), *, binary: bool = False) -> list[Any]:
        try:
            with source_errors(f"{self._where}: {self._schema}.{self._table}"):
                if self._held is None:
                    self._held = self._connect()
                    self._held.execute(_SESSION)
                with self._held.cursor(binary=binary) as cursor:
                    cursor.execute(sql, tuple(params))
                    return cursor.fetchall()
        except CdcError:
            self.close()
            raise

    def _connect(self) -> psycopg.Connection[Any]:
        connection = connect_postgres(
            self._address,
            self._user,
            self._password,
            database=self._database,
            seconds=self._timeout,
            connect_seconds=min(self._timeout, 10),
            purpose="verify",
            rules=self._rules,
        )
        connection.prepare_threshold = 3
        return connection
