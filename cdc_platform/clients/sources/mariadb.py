"""MariaDB as a source, and MySQL where it speaks the same grammar, read through pymysql.

A chunk is one row of the answer: GROUP_CONCAT packs key and digest of all its
rows, so that the driver parses next to nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pymysql

from cdc_platform.canonical import hash_sql as engines
from cdc_platform.canonical.catalog import CatalogTable
from cdc_platform.canonical.column_hazards import hazards, refused, spelled_twice
from cdc_platform.canonical.columns import Column, Shape
from cdc_platform.canonical.key_text import readable_key
from cdc_platform.clients.sources.binlog_demands import replica_logs
from cdc_platform.clients.sources.binlog_tail import BinlogTail
from cdc_platform.clients.sources.catalog_binlog import COLUMNS, INDEXES, columns_of, indexes_of
from cdc_platform.clients.sources.connecting import connect_mysql
from cdc_platform.clients.sources.errors import source_errors
from cdc_platform.clients.sources.mariadb_keys import (
    escaped,
    key_texts,
    key_word,
    keys_condition,
    quoted,
    range_condition,
)
from cdc_platform.clients.sources.replication import replication_status
from cdc_platform.clients.sources.source import Captured, Inspection, Key, Slice, every_column
from cdc_platform.clients.sources.source_rules import ANY, SourceRules
from cdc_platform.connectors.engines.registry import ENGINES
from cdc_platform.errors import CdcError, SourceRejected
from cdc_platform.model.positions import Committed, MariaDbPosition, MySqlPosition, Position
from cdc_platform.model.topology import Address, Engine

_TABLE = """
SELECT TABLE_TYPE, COALESCE(TABLE_ROWS, 0) FROM information_schema.TABLES
WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s
"""
_SESSION = (
    "SET time_zone = '+00:00', sql_mode = '', group_concat_max_len = 268435456,"
    " transaction_isolation = 'READ-COMMITTED', lock_wait_timeout = 5"
)

# Stands for a token that the server does not give.
_TOO_LONG = b"(longer than max_allowed_packet)"

# Hex digits of a row in a chunk's answer: the key and the first eight bytes of the row's digest.
_WIDTH = 32


class MariaDbSource:
    """One table on one MariaDB (or MySQL) server."""

    def __init__(
        self,
        address: Address,
        *,
        user: str,
        password: str,
        database: str,
        table: str,
        key: tuple[str, ...] = (),
        captured: Captured = every_column,
        engine: Engine = Engine.MARIADB,
        timeout: float = 30.0,
        rules: SourceRules = ANY,
    ) -> None:
        self._where = f"{address}/{database}"
        self._address, self._user, self._password = address, user, password
        self._database, self._table, self._key = database, table, key
        self._captured = captured
        self._engine = engine
        self._timeout, self._rules = timeout, rules
        self._held: Any = None
        self._shape: Shape | None = None
        self._tail = BinlogTail(engine, self._binlog)

    def inspect(self) -> Inspection:
        """The table's shape and what stands against a proof."""
        name = (self._database, self._table)
        found = self._rows(_TABLE, name)
        if not found:
            return Inspection(shape=None, problems=(f"the source has no table {self._table} that this user may see",))
        kind, rows = found[0]
        # Columns that the user may not read are not listed either: without this they would go unproven unsaid.
        self._rows(f"SELECT * FROM {self._from} LIMIT 0")
        problems = [] if kind == "BASE TABLE" else [f"it is a {kind}, not a table"]
        problems += self._server_problems()
        columns, left_out = self._columns(name)
        problems += [
            f"column {column.name}: the type {column.type} has no canonical form"
            for column in columns
            if engines.form(self._engine, column) is None
        ]
        problems += [reason for column in columns if (reason := refused(self._engine, column)) is not None]
        key = self._key_of(name)
        known = {column.name: column for column in columns}
        if not key:
            problems.append("there is no primary key, nor a unique key of NOT NULL columns that the topology names")
        for column in key:
            if column not in known:
                problems.append(f"the key column {column} is in no event")
            elif not readable_key(self._engine, known[column]):
                problems.append(f"the key column {column}: keys of type {known[column].type} cannot be looked up")
        warnings = hazards(self._engine, columns) + tuple(
            f"the key column {name}: a snapshot spells a TIMESTAMP's fraction otherwise than the stream, so that"
            " one row may have two keys in the topic"
            for name in key
            if name in known and spelled_twice(self._engine, known[name])
        )
        if problems:
            return Inspection(
                shape=None, problems=tuple(problems), rows=int(rows), left_out=left_out, warnings=warnings
            )
        self._shape = Shape(engine=self._engine, columns=columns, key=key)
        return Inspection(shape=self._shape, rows=int(rows), left_out=left_out, warnings=warnings)

    def prepared(self) -> tuple[str, ...] | None:
        """See `Source`. MySQL tells them to users with XA_RECOVER_ADMIN."""
        mysql = self._engine is Engine.MYSQL
        try:
            rows = self._rows("XA RECOVER" if mysql else "XA RECOVER FORMAT='SQL'")
        except SourceRejected:
            return None
        return tuple(
            bytes(row[3]).decode(errors="replace") if isinstance(row[3], bytes | bytearray) else str(row[3])
            for row in rows
        )

    def position(self) -> Position:
        """The position of the last transaction in the binlog."""
        if self._engine is Engine.MYSQL:
            return MySqlPosition.parse(str(self._rows("SELECT @@global.gtid_executed")[0][0]))
        return MariaDbPosition.parse(str(self._rows("SELECT @@global.gtid_binlog_pos")[0][0]))

    def beyond(self, committed: Committed) -> Committed:
        """What was committed, and the DDL statements that follow it in the binlog."""
        return replace(committed, position=self._tail.beyond(committed, self.position))

    def _binlog(self, file: str, place: int, events: int) -> list[Any]:
        return self._rows(f"SHOW BINLOG EVENTS IN %s FROM {place:d} LIMIT {events:d}", (file,))

    def chunk_end(self, after: Key | None, rows: int) -> Key | None:
        """The key of the `rows`-th row behind `after`; None when there are fewer."""
        where, params = range_condition(self._known, after, None)
        order = ",".join(quoted(name) for name in self._known.key)
        found = self._rows(
            f"SELECT {key_texts(self._known)} FROM {self._from} WHERE {where} ORDER BY {order}"
            f" LIMIT 1 OFFSET {rows - 1:d}",
            params,
        )
        return _key(found[0]) if found else None

    def read_chunk(self, after: Key | None, until: Key | None) -> Slice:
        """All rows with a key above `after` up to `until`."""
        return self._slice(*range_condition(self._known, after, until))

    def read_keys(self, keys: Sequence[Key]) -> Slice:
        """The rows of these keys."""
        return self._slice(*keys_condition(self._known, keys))

    def find(self, after: Key | None, until: Key | None, keys: Sequence[int]) -> Mapping[int, Key]:
        """64-bit key to key."""
        where, params = range_condition(self._known, after, until)
        wanted = ",".join(f"'{key:016X}'" for key in keys)
        found = self._rows(
            f"SELECT {key_word(self._known)} AS w,{key_texts(self._known)} FROM {self._from} WHERE {where}"
            f" HAVING UPPER(w) IN ({wanted})",
            params,
        )
        return {int(row[0], 16): _key(row[1:]) for row in found}

    def tokens(self, keys: Sequence[Key]) -> Mapping[Key, Mapping[str, bytes]]:
        """Key to column to canonical token."""
        where, params = keys_condition(self._known, keys)
        shape = self._known
        # As bytes, and not in hex, which would be twice as long as a value that the server can just return.
        parts = [escaped(f"CAST(CONCAT({engines.token_sql(self._engine, c)}) AS BINARY)") for c in shape.columns]
        found = self._rows(f"SELECT {key_texts(self._known)},{','.join(parts)} FROM {self._from} WHERE {where}", params)
        width = len(shape.key)
        return {
            _key(row[:width]): {
                column.name: _TOO_LONG if row[width + at] is None else bytes(row[width + at])
                for at, column in enumerate(shape.columns)
            }
            for row in found
        }

    def another(self) -> MariaDbSource:
        """The same table by a connection of its own."""
        more = copy(self)
        more._held = None
        return more

    def close(self) -> None:
        """Close the connection."""
        if self._held is not None:
            held, self._held = self._held, None
            try:
                held.close()
            except pymysql.Error:
                # It is closed by the other side already: that is all that was wanted.
                return

    @property
    def _known(self) -> Shape:
        if self._shape is None:
            raise RuntimeError("inspect() comes first")
        return self._shape

    @property
    def _from(self) -> str:
        return f"{quoted(self._database)}.{quoted(self._table)}"

    def _slice(self, where: str, params: tuple[str, ...]) -> Slice:
        row = escaped(engines.digest_sql(self._engine, engines.row_sql(self._known)))
        low = self.position()
        count, packed = self._rows(
            f"SELECT COUNT(*),GROUP_CONCAT({key_word(self._known)},{row} SEPARATOR '') FROM {self._from} WHERE {where}",
            params,
        )[0]
        high = self.position()
        text = _text(packed or "")
        if len(text) != count * _WIDTH:
            raise self._incomplete(count, len(text), where, params)
        words = np.frombuffer(bytes.fromhex(text), dtype=">u8").astype(np.uint64).reshape(-1, 2)
        return Slice(keys=words[:, 0].copy(), rows=words[:, 1].copy(), low=low, high=high)

    def _incomplete(self, count: int, length: int, where: str, params: tuple[str, ...]) -> SourceRejected:
        """Why a chunk's answer lacks rows: the server cut it, or gives NULL for values that are too long for it."""
        limit, row = int(self._rows("SELECT @@max_allowed_packet")[0][0]), engines.row_sql(self._known)
        what = f"GROUP_CONCAT gave {length} characters for {count} rows."
        if length % _WIDTH == 0 and length + _WIDTH <= limit:
            # Not one of these rows may count as proven: the server says NULL, and so might the topic.
            condition = escaped(f"({row}) IS NULL")
            names = " or ".join(
                column.name
                for column in self._known.columns
                if (form := engines.form(self._engine, column)) is not None and form.long
            )
            lost = self._rows(f"SELECT COUNT(*) FROM {self._from} WHERE {where} AND {condition}", params)[0][0]
            what = f"{lost} rows are longer in canonical form than the server lets a function return (column {names})."
        return SourceRejected(
            what,
            where=f"{self._where}: {self._table}",
            field=f"max_allowed_packet, which is {limit}",
            cure="Raise it on the server to more than twice the longest row, and to 16 MiB or more; "
            "the table cannot be proven until then.",
        )

    def _server_problems(self) -> list[str]:
        needed = dict(ENGINES[self._engine].server_variables)
        if self._replica():
            # Without it a replica's own position stands still.
            needed[replica_logs(self._engine)] = "1"
        values = self._rows("SELECT " + ",".join(f"@@global.{name}" for name in needed))[0]
        return [
            f"{name} is {value}, not {wanted or 'empty'}"
            for (name, wanted), value in zip(needed.items(), values, strict=True)
            if str(value) != wanted
        ]

    def _replica(self) -> bool:
        """Does the server apply what another one sends? Who may not ask reads a leader, as far as is known."""
        try:
            return bool(self._rows(replication_status(self._engine)))
        except SourceRejected:
            return False

    def _columns(self, table: tuple[str, str]) -> tuple[tuple[Column, ...], tuple[str, ...]]:
        found = columns_of([row for _, *row in self._rows(COLUMNS, table)])
        left_out = tuple(column.name for column in found if not self._captured(column.name))
        return tuple(column.column for column in found if column.name not in left_out), left_out

    def _key_of(self, table: tuple[str, str]) -> tuple[str, ...]:
        indexes = indexes_of([row for _, *row in self._rows(INDEXES, table)])
        return CatalogTable(place=table[0], name=table[1], indexes=indexes).key(self._key)

    def _rows(self, sql: str, params: Sequence[str] = ()) -> list[Any]:
        with self._cursor() as cursor:
            # Without parameters pymysql leaves the percent signs alone.
            cursor.execute(sql if params else sql.replace("%%", "%"), params or None)
            return list(cursor.fetchall())

    @contextmanager
    def _cursor(self) -> Iterator[Any]:
        try:
            with source_errors(f"{self._where}: {self._table}"):
                if self._held is None:
                    self._held = self._connect()
                with self._held.cursor() as cursor:
                    yield cursor
        except CdcError:
            self.close()
            raise

    def _connect(self) -> Any:
        connection = connect_mysql(
            self._address,
            self._user,
            self._password,
            database=self._database,
            seconds=self._timeout,
            connect_seconds=min(self._timeout, 10),
            purpose="verify",
            rules=self._rules,
        )
        with connection.cursor() as cursor:
            cursor.execute(_SESSION)
        return connection


def _text(value: Any) -> str:
    return value.decode("ascii") if isinstance(value, bytes) else str(value)


def _key(row: Sequence[Any]) -> Key:
    return tuple(value.decode("utf-8") if isinstance(value, bytes) else str(value) for value in row)
