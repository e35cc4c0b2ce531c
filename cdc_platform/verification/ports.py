"""The outside systems that a verification uses, and the policy that bounds it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import msgspec

from cdc_platform.clients.kafka.topic_records import Records
from cdc_platform.clients.platform import Platform
from cdc_platform.clients.sources.source import Source
from cdc_platform.model.topology import Dataset, Shard, Table
from cdc_platform.verification.policy_values import Amount, Count, read_policy

# Without a schedule of their own all shards of a dataset are verified within so many days.
DAYS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationPorts:
    """The outside systems. `records` reads a topic, `source` opens a shard's server for one table."""

    platform: Platform
    records: Callable[[str], Records]
    source: Callable[[Dataset, Shard, Table], Source]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a stage is: `source` and `topic` count rows and records, `reach` and `reread` shards."""

    stage: str
    done: int
    total: int


Report = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationPolicy:
    """Bounds of a verification; `dataset.verification` sets them by these names.

    `sources_at_once` shards are read at once, and each server by `server_connections`
    at most: a large table has as many to itself as are free. Seconds: `reach_seconds`
    to wait for connectors to catch up, `source_seconds` for one statement.
    `rereads`: how often what differs is read again. `slab_rows` bounds memory:
    so many rows and events are compared at once, at some 150 bytes each. `schedule`
    is a cron line (UTC) by which Dagster verifies the dataset, `scheduled_shards` at
    a time (0: all). Without a schedule a seventh of the shards is verified each night,
    those verified longest ago; an empty one switches that off.
    """

    reach_seconds: Amount = 120.0
    source_seconds: Amount = 30.0
    chunk_rows: Count = 10_000
    sources_at_once: Count = 8
    server_connections: Count = 4
    rereads: Count = 2
    reread_keys: Count = 20_000
    samples: Count = 20
    slab_rows: Count = 1_500_000
    replicas: bool = False
    ignore_columns: tuple[str, ...] = ()
    schedule: str | None = None
    scheduled_shards: Annotated[int, msgspec.Meta(ge=0)] = 0

    def due_count(self, shards: int) -> int:
        """How many of so many shards a scheduled verification takes."""
        share = math.ceil(shards / DAYS) if self.schedule is None else shards
        return min(shards, self.scheduled_shards or share)

    @classmethod
    def of(cls, dataset: Dataset) -> VerificationPolicy:
        """The dataset's policy. Raises TopologyError."""
        return read_policy(cls, dataset.verification, dataset.name, "verification")
