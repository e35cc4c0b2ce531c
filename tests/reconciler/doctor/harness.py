"""Databases, users and datasets on the stack's servers, of which nothing is captured."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg
import pymysql

from cdc_platform.clients.sources.examiner import RealExaminer
from cdc_platform.documents.grants import grants
from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import Address, Credentials, Dataset, Engine, Shard, Table
from cdc_platform.planning.doctor.findings import DoctorFinding
from cdc_platform.planning.doctor.kinds import Severity
from cdc_platform.reconciler.doctor import DoctorReport, examine

# Where a seed stands and what it is called: dataset, table, kind.
Seed = tuple[str, str, str]


@dataclass(kw_only=True)
class Harness:
    """What a test makes on one engine's leader, as an account that may do everything; `close` takes it away."""

    stack: Stack
    engine: Engine
    own: str = field(default_factory=lambda: f"d{secrets.token_hex(3)}")
    pairs: list[tuple[Dataset, Shard]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.settings = replace(self.stack.settings(), platform=self.own)
        self.leader: Address = self.stack.primary(self.engine)
        self._open: dict[str | None, Any] = {}
        self._databases: list[str] = []
        self._users: list[str] = []
        self._files: list[Path] = []

    def sql(self, statement: str, database: str | None = None) -> list[Any]:
        connection = self.connection(database)
        if self.engine is Engine.POSTGRES:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def connection(self, database: str | None = None) -> Any:
        if database not in self._open:
            login, host, port = self.stack.admin(self.engine), self.leader.host, self.leader.port
            if self.engine is Engine.POSTGRES:
                self._open[database] = psycopg.connect(
                    host=host,
                    port=port,
                    user=login.user,
                    password=login.password,
                    dbname=database or "postgres",
                    autocommit=True,
                )
            else:
                self._open[database] = pymysql.connect(
                    host=host, port=port, user=login.user, password=login.password, database=database, autocommit=True
                )
        return self._open[database]

    def database(self, name: str, *statements: str) -> str:
        """A new database in which these statements were run."""
        made = f"{self.own}_{name}"
        self.sql(f"CREATE DATABASE {made}")
        self._databases.append(made)
        for statement in statements:
            self.sql(statement, made)
        return made

    def user(self, name: str, *statements: str) -> Credentials:
        """A new user of the dataset of that name, and what these statements (`{user}`) give it."""
        made, password = f"{self.own}_{name}", secrets.token_urlsafe(12)
        self._users.append(made)
        if self.engine is Engine.POSTGRES:
            self.sql(f"CREATE ROLE {made} LOGIN PASSWORD '{password}'")
        else:
            self.sql(f"CREATE USER '{made}'@'%' IDENTIFIED BY '{password}'")
        for statement in statements:
            self.sql(statement.replace("{user}", made if self.engine is Engine.POSTGRES else f"'{made}'@'%'"))
        file = self.stack.dataset_secrets_dir / name / f"{self.own}.properties"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        file.write_text(f"user={made}\npassword={password}\n")
        self._files.append(file)
        return Credentials(user=f"${{file:{file}:user}}", password=f"${{file:{file}:password}}")

    def documented(self, name: str, *databases: str) -> Credentials:
        """A user with what docs/security.md says and no more (MariaDB, MySQL)."""
        text = grants(self.engine, user=f"{self.own}_{name}", databases=databases)
        lines = [line for line in text.splitlines() if line.startswith("GRANT ")]
        return self.user(name, *lines)

    def dataset(
        self, name: str, tables: Sequence[Table], credentials: Credentials, databases: Mapping[str, str], **more: Any
    ) -> Dataset:
        """A dataset with a shard for each of these databases, which are examined with the others."""
        leaders = more.pop("leaders", {})
        made = Dataset(
            name=name, engine=self.engine, tables=tuple(tables), clusters=("local",), credentials=credentials, **more
        )
        for shard, database in databases.items():
            leader = leaders.get(shard, self.leader)
            self.pairs.append((made, Shard(dataset=name, id=shard, leader=leader, database=database)))
        return made

    def ask(self) -> DoctorReport:
        """The doctor's answer about all of it."""
        examiner = RealExaminer(secrets_dirs=self.settings.secrets_dirs)
        return examine(examiner, self.settings, self.pairs)

    @contextmanager
    def globals(self, **values: Any) -> Iterator[None]:
        """These variables of the server for the block (MariaDB, MySQL)."""
        before = {name: self.sql(f"SELECT @@global.{name}")[0][0] for name in values}
        try:
            for name, value in values.items():
                self.sql(f"SET GLOBAL {name} = {value!r}")
            yield
        finally:
            for name, value in before.items():
                self.sql(f"SET GLOBAL {name} = {value!r}")

    def close(self) -> None:
        for database in list(self._open):
            if database is not None:
                self._open.pop(database).close()
        for database in self._databases:
            if self.engine is Engine.POSTGRES:
                for (slot,) in self.sql(f"SELECT slot_name FROM pg_replication_slots WHERE database = '{database}'"):
                    self.sql(f"SELECT pg_drop_replication_slot('{slot}')")
                self.sql(f"DROP DATABASE {database} WITH (FORCE)")
            else:
                self.sql(f"DROP DATABASE {database}")
        for user in self._users:
            self.sql(f"DROP ROLE {user}" if self.engine is Engine.POSTGRES else f"DROP USER '{user}'@'%'")
        self._open.pop(None).close()
        for file in self._files:
            file.unlink()


def seeds(findings: Sequence[DoctorFinding]) -> set[Seed]:
    """What was found, without notes."""
    return {(one.dataset, one.table, str(one.kind)) for one in findings if one.severity is not Severity.NOTE}
