"""Asks the leaders of shards all that the doctor judges by: read-only, before anything is captured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from cdc_platform.clients.sources.examine_binlog import BinlogExamination
from cdc_platform.clients.sources.examine_postgres import examine_postgres
from cdc_platform.clients.sources.sessions import mysql_cursor, postgres_cursor
from cdc_platform.clients.sources.source_rules import ANY, SourceRules
from cdc_platform.connectors.identity import Identity
from cdc_platform.errors import CdcError, SourceRejected
from cdc_platform.model.topology import Dataset, Engine, Shard
from cdc_platform.planning.doctor.examination import Examination

# What was found of a shard, or why it was not examined.
Examinations = Mapping[str, Examination | CdcError]


class Examiner(Protocol):
    """Examines some shards of one dataset."""

    def examine(self, dataset: Dataset, shards: Sequence[tuple[Shard, Identity]]) -> Examinations:
        """By shard (`<dataset>.<shard>`); all have the same leader. Raises nothing: an error is an answer."""


class RealExaminer:
    """Asks the real servers as the dataset's own user. Safe to call from many threads."""

    def __init__(self, *, timeout: float = 5.0, secrets_dirs: Sequence[str] = (), rules: SourceRules = ANY) -> None:
        self._timeout = timeout
        self._dirs, self._rules = tuple(secrets_dirs), rules

    def examine(self, dataset: Dataset, shards: Sequence[tuple[Shard, Identity]]) -> Examinations:
        """See `Examiner`."""
        answers: dict[str, Examination | CdcError] = {}
        asked = self._postgres(dataset, shards) if dataset.engine is Engine.POSTGRES else self._binlog(dataset, shards)
        try:
            for shard, answer in asked:
                answers[shard.name] = answer
        except CdcError as error:
            # Of the server as a whole: its other shards would meet it, too.
            answers |= {shard.name: error for shard, _ in shards if shard.name not in answers}
        return answers

    def _postgres(
        self, dataset: Dataset, shards: Sequence[tuple[Shard, Identity]]
    ) -> Iterator[tuple[Shard, Examination | CdcError]]:
        for shard, own in shards:
            try:
                with postgres_cursor(
                    shard.leader,
                    dataset,
                    database=shard.database,
                    timeout=self._timeout,
                    name=shard.name,
                    purpose="doctor",
                    dirs=self._dirs,
                    rules=self._rules,
                ) as cursor:
                    yield shard, examine_postgres(cursor, dataset, shard, own)
            except SourceRejected as error:
                yield shard, error

    def _binlog(
        self, dataset: Dataset, shards: Sequence[tuple[Shard, Identity]]
    ) -> Iterator[tuple[Shard, Examination]]:
        first = shards[0][0]
        with mysql_cursor(
            first.leader, dataset, timeout=self._timeout, name=first.name, dirs=self._dirs, rules=self._rules
        ) as cursor:
            yield from BinlogExamination(cursor, dataset).shards([shard for shard, _ in shards])
