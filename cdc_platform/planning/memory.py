"""What passes remember of earlier ones: all kinds of records, their values, and what a plan changes in them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from cdc_platform.errors import InternalError
from cdc_platform.model.topology import EMPTY
from cdc_platform.planning.canary import CanaryRecord, RolledOut
from cdc_platform.planning.health.deleted_connectors import DeletedRecord
from cdc_platform.planning.health.duplicate_tasks import ZombieRecord
from cdc_platform.planning.health.incidents import Incident
from cdc_platform.planning.health.liveness import CapturedRecord, LeaderRecord, LiveRecord
from cdc_platform.planning.health.log_guard import LogSeen
from cdc_platform.planning.health.restarts import RestartRecord
from cdc_platform.planning.health.source_hazards import SourceRecord
from cdc_platform.planning.health.task_balance import SkewRecord
from cdc_platform.planning.health.watched_states import WatchedRecord
from cdc_platform.planning.holds import HoldRecord
from cdc_platform.planning.records import Kept, Record, Writer

R = TypeVar("R", bound=Record)


@dataclass(frozen=True, slots=True)
class ClusterSize(Record):
    """Remembered of a Connect cluster: how many connectors of ours the last pass saw there."""

    kept = Kept("size/cluster")

    connectors: int


@dataclass(frozen=True, slots=True)
class DatasetSize(Record):
    """Remembered of a dataset: how many shards the last pass saw."""

    kept = Kept("size/dataset")

    shards: int


@dataclass(frozen=True, slots=True)
class TopicRecord(Record):
    """Remembered of a table's topic: a pass made it, so that later ones may change it."""

    kept = Kept("topic")

    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLogs:
    """The logs of a dataset's sources: bytes kept, by quantile over shards, and the least seconds until one is lost."""

    bytes: Mapping[str, float]
    seconds_left: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcesAsked(Record):
    """Remembered of the last round of questions to the sources: when, of how many shards, and who did not answer.

    `logs` is by dataset. `seen` are the logs that keep most, by shard (Postgres) or server: how fast they grow is shown
    by two rounds.
    """

    kept = Kept("sources", Writer.REPORT)

    at: datetime
    asked: int
    unanswered: int
    logs: Mapping[str, SourceLogs] = field(default_factory=dict)
    seen: Mapping[str, LogSeen] = field(default_factory=dict)


# Reading, writing and deleting go by this list: a kind that is not in it can be neither read nor changed.
KINDS: dict[str, type[Record]] = {
    kind.kept.prefix: kind
    for kind in (
        RestartRecord,
        CapturedRecord,
        LiveRecord,
        LeaderRecord,
        ZombieRecord,
        SkewRecord,
        CanaryRecord,
        RolledOut,
        Incident,
        HoldRecord,
        ClusterSize,
        DatasetSize,
        TopicRecord,
        SourceRecord,
        SourcesAsked,
        DeletedRecord,
        WatchedRecord,
    )
}


def _checked(kind: type[Record]) -> type[Record]:
    if KINDS.get(kind.kept.prefix) is not kind:
        raise InternalError(f"{kind.__name__} is no kind of record.", where="planning/memory.py", field="KINDS")
    return kind


@dataclass(frozen=True, slots=True)
class _Records:
    """Records by kind and name. Raises InternalError for a kind that is not in KINDS."""

    records: Mapping[type[Record], Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for kind in self.records:
            _checked(kind)

    def __bool__(self) -> bool:
        return any(self.records.values())


@dataclass(frozen=True, slots=True)
class Memory(_Records):
    """What earlier passes left."""

    def of(self, kind: type[R]) -> Mapping[str, R]:
        """The records of a kind by name."""
        return self.records.get(_checked(kind), EMPTY)


@dataclass(frozen=True, slots=True)
class RecordChanges(_Records):
    """What of the memory changes; None deletes a record."""

    def of(self, kind: type[R]) -> Mapping[str, R | None]:
        """The changed records of a kind by name."""
        return self.records.get(_checked(kind), EMPTY)

    def items(self) -> Iterator[tuple[type[Record], str, Record | None]]:
        """Kind, name and record of all."""
        return ((kind, name, record) for kind, found in self.records.items() for name, record in found.items())

    def __add__(self, other: RecordChanges) -> RecordChanges:
        """Both. Raises InternalError when both change the same record: each has one writer."""
        merged = dict(self.records)
        for kind, found in other.records.items():
            known = merged.setdefault(kind, found)
            if known is found:
                continue
            if twice := known.keys() & found.keys():
                raise InternalError(f"two steps of the plan change {kind.key_of(min(twice))}.")
            merged[kind] = {**known, **found}
        return RecordChanges(merged)
