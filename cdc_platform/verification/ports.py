"""The outside systems that a verification uses, and the policy that bounds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from cdc_platform.clients.kafka.topic_records import Records
from cdc_platform.clients.platform import Platform
from cdc_platform.clients.sources.source import Source
from cdc_platform.errors import TopologyError
from cdc_platform.model.topology import Dataset, Shard, Table


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
    a time (0: all).
    """

    reach_seconds: float = 120.0
    source_seconds: float = 30.0
    chunk_rows: int = 10_000
    sources_at_once: int = 8
    server_connections: int = 4
    rereads: int = 2
    reread_keys: int = 20_000
    samples: int = 20
    slab_rows: int = 1_500_000
    replicas: bool = False
    ignore_columns: tuple[str, ...] = field(default=())
    schedule: str = ""
    scheduled_shards: int = 0

    @classmethod
    def of(cls, dataset: Dataset) -> VerificationPolicy:
        """The dataset's policy. Raises TopologyError."""
        given: Mapping[str, Any] = dataset.verification
        found: dict[str, Any] = {}
        for item in fields(cls):
            if item.name not in given:
                continue
            value, default = given[item.name], item.default
            right = (
                isinstance(value, list | tuple) and all(isinstance(part, str) for part in value)
                if item.name == "ignore_columns"
                else isinstance(value, type(default))
                if isinstance(default, bool | str)
                else isinstance(value, int | float)
                and not isinstance(value, bool)
                and (value > 0 or (value == 0 and item.name == "scheduled_shards"))
            )
            if not right:
                raise TopologyError(
                    f"{value!r} is not a value of it.",
                    where=f"dataset {dataset.name}",
                    field=f"verification.{item.name}",
                    cure=f"The default is {default!r}.",
                )
            found[item.name] = tuple(value) if item.name == "ignore_columns" else _typed(default, value)
        return cls(**found)


def _typed(default: object, value: Any) -> Any:
    return int(value) if isinstance(default, int) and not isinstance(default, bool) else value
