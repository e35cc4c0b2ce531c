"""Asks the leaders of shards all that the doctor judges by: read-only, before anything is captured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from cdc_platform.clients.sources.examine_binlog import BinlogExamination
from cdc_platform.clients.sources.examine_postgres import examine_postgres
from cdc_platform.clients.sources.shard_sessions import ShardSessions
from cdc_platform.clients.sources.source_rules import ANY, SourceRules
from cdc_platform.connectors.identity import Identity
from cdc_platform.errors import CdcError
from cdc_platform.model.topology import Dataset, Shard
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
        self._sessions = ShardSessions(purpose="doctor", timeout=timeout, secrets_dirs=secrets_dirs, rules=rules)

    def examine(self, dataset: Dataset, shards: Sequence[tuple[Shard, Identity]]) -> Examinations:
        """See `Examiner`."""
        return self._sessions.ask_each(
            dataset,
            shards,
            postgres=lambda cursor, shard, own: examine_postgres(cursor, dataset, shard, own),
            binlog=lambda cursor, own: BinlogExamination(cursor, dataset).shards(own),
        )
