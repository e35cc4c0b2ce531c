"""The stack's sources as a test's administrator reaches them: databases, tables and statements."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pymysql

from cdc_platform.local.stack import Stack
from cdc_platform.local.stack_passwords import read_login
from cdc_platform.model.topology import Address, Engine

Run = Callable[..., list[Any]]
# A server that is stopped, or waits for disk space, answers late (MariaDB looks for space once a minute).
_READ_TIMEOUT = 180


@dataclass(frozen=True, kw_only=True)
class Sources:
    """One engine of a stack; statements go to the server that is the primary now. `setup` begins each session."""

    directory: Path
    engine: Engine
    setup: str = ""

    @property
    def primary(self) -> Address:
        stack = Stack.load(self.directory)
        return stack.primary(self.engine)

    @contextmanager
    def admin(self, database: str | None = None) -> Iterator[Run]:
        """Runs statements, each its own transaction."""
        connection = self.connect(database)
        try:
            with connection.cursor() as cursor:
                if self.setup:
                    cursor.execute(self.setup)

                def run(sql: str, *params: Any) -> list[Any]:
                    cursor.execute(sql, params or None)
                    return list(cursor.fetchall()) if cursor.description else []

                yield run
        finally:
            connection.close()

    def connect(self, database: str | None = None) -> Any:
        """An open connection that commits each statement."""
        stack = Stack.load(self.directory)
        login, at = stack.admin(self.engine), self.primary
        if self.engine.reads_binlog:
            return pymysql.connect(
                host=at.host,
                port=at.port,
                user=login.user,
                password=login.password,
                database=database,
                autocommit=True,
                connect_timeout=5,
                read_timeout=_READ_TIMEOUT,
            )
        return psycopg.connect(
            host=at.host,
            port=at.port,
            user=login.user,
            password=login.password,
            dbname=database or "postgres",
            autocommit=True,
            connect_timeout=5,
        )

    def create(self, database: str, rows: int) -> None:
        """A database with the table `items (id, v, pad)` and first rows."""
        with self.admin() as run:
            run(f"CREATE DATABASE {database}")
        with self.admin(database) as run:
            text = "text" if self.engine is Engine.POSTGRES else "longtext"
            run(f"CREATE TABLE items (id bigint PRIMARY KEY, v bigint NOT NULL, pad {text} NOT NULL)")
            if self.engine is Engine.POSTGRES:
                # Connectors alter their publication, so their user owns the table.
                user = read_login(Stack.load(self.directory).secrets_dir, self.engine.value).user
                run(f"GRANT CREATE ON DATABASE {database} TO {user}")
                run("ALTER TABLE items REPLICA IDENTITY FULL")
                run(f"ALTER TABLE items OWNER TO {user}")
            run("INSERT INTO items VALUES " + ",".join(f"({i}, 0, 'first')" for i in range(1, rows + 1)))
