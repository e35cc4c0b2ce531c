"""Short connections to the leaders of shards, as the dataset's own user: for one shard, or for all of one leader."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg
import pymysql

from cdc_platform.clients.sources.sessions import mysql_cursor, postgres_cursor
from cdc_platform.clients.sources.source_rules import ANY, SourceRules
from cdc_platform.connectors.identity import Identity
from cdc_platform.errors import CdcError, SourceRejected
from cdc_platform.model.topology import Dataset, Engine, Shard

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardSessions:
    """With which deadline, secrets and rules. `purpose` is what the views of Postgres show."""

    purpose: str
    timeout: float = 5.0
    secrets_dirs: Sequence[str] = ()
    rules: SourceRules = ANY

    def postgres(self, dataset: Dataset, shard: Shard) -> AbstractContextManager[psycopg.Cursor[Any]]:
        """A cursor on the shard's database. Raises as `sessions.postgres_cursor`."""
        return postgres_cursor(
            shard.leader,
            dataset,
            database=shard.database,
            timeout=self.timeout,
            name=shard.name,
            purpose=self.purpose,
            dirs=tuple(self.secrets_dirs),
            rules=self.rules,
        )

    def binlog(self, dataset: Dataset, shard: Shard) -> AbstractContextManager[pymysql.cursors.Cursor]:
        """A cursor on the shard's server. Raises as `sessions.mysql_cursor`."""
        return mysql_cursor(
            shard.leader,
            dataset,
            timeout=self.timeout,
            name=shard.name,
            dirs=tuple(self.secrets_dirs),
            rules=self.rules,
        )

    def ask_each(
        self,
        dataset: Dataset,
        shards: Sequence[tuple[Shard, Identity]],
        *,
        postgres: Callable[[psycopg.Cursor[Any], Shard, Identity], T],
        binlog: Callable[[pymysql.cursors.Cursor, Sequence[Shard]], Iterable[tuple[Shard, T]]],
    ) -> Mapping[str, T | CdcError]:
        """The answer for each of these shards of one leader, by `<dataset>.<shard>`; an error is an answer, too.

        Postgres is asked by a connection a database, a binlog server by one for all of its shards.
        """
        answers: dict[str, T | CdcError] = {}
        asked = (
            self._each_database(dataset, shards, postgres)
            if dataset.engine is Engine.POSTGRES
            else self._one_server(dataset, [shard for shard, _ in shards], binlog)
        )
        try:
            for shard, answer in asked:
                answers[shard.name] = answer
        except CdcError as error:
            # Of the server as a whole: its other shards would meet it, too.
            answers |= {shard.name: error for shard, _ in shards if shard.name not in answers}
        return answers

    def _each_database(
        self,
        dataset: Dataset,
        shards: Sequence[tuple[Shard, Identity]],
        ask: Callable[[psycopg.Cursor[Any], Shard, Identity], T],
    ) -> Iterator[tuple[Shard, T | CdcError]]:
        for shard, own in shards:
            try:
                with self.postgres(dataset, shard) as cursor:
                    yield shard, ask(cursor, shard, own)
            except SourceRejected as error:
                yield shard, error

    def _one_server(
        self,
        dataset: Dataset,
        shards: Sequence[Shard],
        ask: Callable[[pymysql.cursors.Cursor, Sequence[Shard]], Iterable[tuple[Shard, T]]],
    ) -> Iterator[tuple[Shard, T | CdcError]]:
        with self.binlog(dataset, shards[0]) as cursor:
            yield from ask(cursor, shards)
