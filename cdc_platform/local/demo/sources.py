"""The demo's source databases: made, seeded, written to; each write noted in a ledger.

The ledger is what the count at the end is judged by, so it shares nothing with
the platform's own code: plain drivers, plain SQL.
"""

from __future__ import annotations

import json
import random
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Protocol

import psycopg
import pymysql
from psycopg import sql

from cdc_platform.local.stack_passwords import Login
from cdc_platform.model.topology import Address

# (shard, table, key, kind, revision): kind is "write" or "delete"; a delete has revision 0.
Change = tuple[str, str, tuple[int, ...], str, int]


@dataclass
class Ledger:
    """Every change that was committed to a source."""

    changes: set[Change] = field(default_factory=set)
    by_kind: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, kind: str, change: Change) -> None:
        """Note one committed change; `kind` is insert, update or delete."""
        with self._lock:
            self.changes.add(change)
            self.by_kind[kind] += 1

    def snapshot(self) -> frozenset[Change]:
        """All changes noted so far."""
        with self._lock:
            return frozenset(self.changes)


class DemoCursor(Protocol):
    """What both drivers' cursors share."""

    def execute(self, query: Any, args: Any = ..., /) -> Any:
        """Run one statement."""

    def fetchall(self) -> Any:
        """The rows of the last statement."""


@contextmanager
def mariadb(server: Address, login: Login, database: str | None = None) -> Iterator[DemoCursor]:
    """A cursor on MariaDB or MySQL, each statement its own transaction."""
    connection = pymysql.connect(
        host=server.host,
        port=server.port,
        user=login.user,
        password=login.password,
        database=database,
        autocommit=True,
        init_command="SET time_zone = '+00:00'",
    )
    try:
        with connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()


@contextmanager
def postgres(server: Address, login: Login, database: str = "postgres") -> Iterator[DemoCursor]:
    """A cursor on Postgres, each statement its own transaction."""
    with (
        psycopg.connect(
            host=server.host,
            port=server.port,
            user=login.user,
            password=login.password,
            dbname=database,
            autocommit=True,
        ) as connection,
        connection.cursor() as cursor,
    ):
        yield cursor


def create_mariadb(server: Address, login: Login, databases: list[str], script: str) -> None:
    """Make the shard databases with their tables; those that exist stay as they are."""
    for database in databases:
        with mariadb(server, login) as cursor:
            if cursor.execute("SHOW DATABASES LIKE %s", (database,)):
                continue
            cursor.execute(f"CREATE DATABASE `{database}`")
        with mariadb(server, login, database) as cursor:
            for statement in _statements(script):
                cursor.execute(statement)


def create_postgres(server: Address, login: Login, databases: list[str], script: str, reader: str) -> None:
    """Make the shard databases with their tables, readable and publishable by the role `reader`."""
    for database in databases:
        with postgres(server, login) as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,))
            if cursor.fetchall():
                continue
            cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
        with postgres(server, login, database) as cursor:
            for statement in _statements(script):
                cursor.execute(statement)
            role = sql.Identifier(reader)
            # A publication may be made by who owns its tables and may create in the database.
            cursor.execute(sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(sql.Identifier(database), role))
            for table in ("orders", "order_items"):
                cursor.execute(sql.SQL("ALTER TABLE {} OWNER TO {}").format(sql.Identifier(table), role))


def _statements(script: str) -> list[str]:
    lines = [line for line in script.splitlines() if not line.lstrip().startswith("--")]
    return [statement for statement in "\n".join(lines).split(";") if statement.strip()]


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A change that was sent to the source, which has not said yet that it is committed."""

    kind: str
    table: str
    key: tuple[int, ...]
    revision: int


class Shop:
    """One shard's rows, as its writer knows them. Not for several threads."""

    parent: str
    child: str

    def __init__(self, shard: str, ledger: Ledger, seed: int) -> None:
        self.shard = shard
        self.ledger = ledger
        self.random = random.Random(seed)
        self.revision = 0
        self.next_id = 1
        self.live: dict[str, list[tuple[int, ...]]] = {self.parent: [], self.child: []}
        self._attempt: _Attempt | None = None

    def insert(self, cursor: DemoCursor) -> None:
        """Insert a parent row or a child of one. Keys are never used again."""
        table = self.parent if not self.live[self.parent] or self.random.random() < 0.3 else self.child
        key = self._new_key(table)
        self.next_id += 1
        self._try("insert", table, key)
        self._insert(cursor, table, key, self.revision)
        self._done()

    def change(self, cursor: DemoCursor) -> None:
        """Insert, update or delete, as the dice fall."""
        dice = self.random.random()
        table = self.random.choice([self.parent, self.child])
        if dice < 0.4 or len(self.live[table]) < 3:
            self.insert(cursor)
            return
        key = self.random.choice(self.live[table])
        if dice < 0.85:
            self._try("update", table, key)
            self._update(cursor, table, key, self.revision)
        else:
            self._try("delete", table, key)
            self._delete(cursor, table, key)
        self._done()

    def settle(self, cursor: DemoCursor) -> None:
        """Note the change in whose middle the connection was lost, if the source has it."""
        if (attempt := self._attempt) is None:
            return
        cursor.execute(f"SELECT revision FROM {attempt.table} WHERE {self._condition(attempt.table)}", attempt.key)
        rows = cursor.fetchall()
        if (not rows) if attempt.kind == "delete" else (rows and rows[0][0] == attempt.revision):
            self._done()
        self._attempt = None

    def _try(self, kind: str, table: str, key: tuple[int, ...]) -> None:
        revision = 0 if kind == "delete" else self.next_revision()
        self._attempt = _Attempt(kind, table, key, revision)

    def _done(self) -> None:
        attempt, self._attempt = self._attempt, None
        assert attempt is not None
        if attempt.kind == "insert":
            self.live[attempt.table].append(attempt.key)
        if attempt.kind == "delete":
            self.live[attempt.table].remove(attempt.key)
        written = "delete" if attempt.kind == "delete" else "write"
        self.ledger.note(attempt.kind, (self.shard, attempt.table, attempt.key, written, attempt.revision))

    def next_revision(self) -> int:
        """A number that grows with each write to this shard."""
        self.revision += 1
        return self.revision

    def _condition(self, table: str) -> str:
        """Of the row of a key."""
        return "id = %s"

    def _new_key(self, table: str) -> tuple[int, ...]:
        return (self.next_id,)

    def _insert(self, cursor: DemoCursor, table: str, key: tuple[int, ...], revision: int) -> None:
        raise NotImplementedError

    def _update(self, cursor: DemoCursor, table: str, key: tuple[int, ...], revision: int) -> None:
        raise NotImplementedError

    def _delete(self, cursor: DemoCursor, table: str, key: tuple[int, ...]) -> None:
        cursor.execute(f"DELETE FROM {table} WHERE {self._condition(table)}", key)

    def words(self, most: int) -> str:
        """Some text, now and then with characters that encodings get wrong."""
        some = ["pin", "café", "Übergröße", "mañana", "日本", "🌿", "a'b\"c", "tab\there", "back\\slash"]
        return " ".join(self.random.choice(some) for _ in range(self.random.randint(1, most)))


class PinShop(Shop):
    """A shard of `pins`."""

    parent, child = "boards", "pins"

    def _insert(self, cursor: DemoCursor, table: str, key: tuple[int, ...], revision: int) -> None:
        if table == "boards":
            cursor.execute(
                "INSERT INTO boards (id, name, privacy, pin_count, cover, created_on, revision)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s)",
                (
                    *key,
                    self.words(4),
                    self.random.choice(["public", "protected", "secret"]),
                    self.random.randrange(2**32),
                    self.random.choice([None, self.random.randbytes(24)]),
                    date(2020, 1, 1) + timedelta(days=self.random.randrange(2000)),
                    revision,
                ),
            )
            return
        cursor.execute(
            "INSERT INTO pins (id, board_id, title, description, price, attributes, image_hash, kind, is_private,"
            " created_at, revision) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (
                *key,
                self.random.choice(self.live["boards"])[0],
                self.words(5),
                self.random.choice([None, self.words(40)]),
                self.random.choice([None, f"{self.random.randrange(10**9) / 100:.2f}"]),
                json.dumps({"color": self.words(1), "size": self.random.random()}),
                self.random.randbytes(16),
                self.random.choice(["image", "video", "idea"]),
                self.random.random() < 0.2,
                datetime.now(UTC).replace(tzinfo=None),
                revision,
            ),
        )

    def _update(self, cursor: DemoCursor, table: str, key: tuple[int, ...], revision: int) -> None:
        if table == "boards":
            cursor.execute(
                "UPDATE boards SET pin_count = %s, name = %s, revision = %s WHERE id = %s",
                (self.random.randrange(1000), self.words(4), revision, *key),
            )
        else:
            cursor.execute(
                "UPDATE pins SET description = %s, price = %s, revision = %s WHERE id = %s",
                (self.words(30), f"{self.random.randrange(10**6) / 100:.2f}", revision, *key),
            )


class OrderShop(Shop):
    """A shard of `orders`."""

    parent, child = "orders", "order_items"

    def _condition(self, table: str) -> str:
        return "id = %s" if table == "orders" else "order_id = %s AND line = %s"

    def _new_key(self, table: str) -> tuple[int, ...]:
        return (self.next_id,) if table == "orders" else (self.random.choice(self.live["orders"])[0], self.next_id)

    def _insert(self, cursor: DemoCursor, table: str, key: tuple[int, ...], revision: int) -> None:
        if table == "orders":
            cursor.execute(
                "INSERT INTO orders (id, customer, status, total, currency, tags, details, note, placed_at, revision)"
                " VALUES (%s, %s, 'open', %s, %s, %s, %s, %s, now(), %s)",
                (
                    *key,
                    uuid.UUID(int=self.random.getrandbits(128)),
                    f"{self.random.randrange(10**8) / 100:.2f}",
                    self.random.choice(["EUR", "USD", "JPY"]),
                    [self.words(1) for _ in range(self.random.randrange(3))],
                    json.dumps({"channel": self.random.choice(["web", "app"]), "gift": self.words(2)}),
                    self.random.choice([None, self.words(20)]),
                    revision,
                ),
            )
            return
        cursor.execute(
            "INSERT INTO order_items (order_id, line, sku, quantity, unit_price, gift, deliver_on, revision)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
            (
                *key,
                self.words(2),
                self.random.randrange(1, 9),
                f"{self.random.randrange(10**7) / 10000:.4f}",
                self.random.random() < 0.1,
                self.random.choice([None, date(2027, 1, 1) + timedelta(days=self.random.randrange(90))]),
                revision,
            ),
        )

    def _update(self, cursor: DemoCursor, table: str, key: tuple[int, ...], revision: int) -> None:
        if table == "orders":
            cursor.execute(
                "UPDATE orders SET status = %s, note = %s, updated_at = clock_timestamp(), revision = %s WHERE id = %s",
                (self.random.choice(["paid", "shipped", "cancelled"]), self.words(20), revision, *key),
            )
        else:
            cursor.execute(
                "UPDATE order_items SET quantity = %s, updated_at = clock_timestamp(), revision = %s"
                " WHERE order_id = %s AND line = %s",
                (self.random.randrange(1, 9), revision, *key),
            )
