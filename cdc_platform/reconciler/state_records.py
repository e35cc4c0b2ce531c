"""What passes remember in the state topic, as documents.

Keys and fields are those of the record classes in `planning/memory.py`:

| key | record |
|---|---|
| `restart/<dataset>.<shard>` | `RestartRecord` |
| `shard/<dataset>.<shard>` | `CapturedRecord`: Connect called it RUNNING first |
| `live/<dataset>.<shard>` | `LiveRecord`: its first heartbeat; a snapshot from scratch deletes it |
| `leader/<dataset>.<shard>` | `LeaderRecord`: the generation a pass saw last |
| `zombie/<dataset>.<shard>` | `ZombieRecord` |
| `skew/<cluster>` | `SkewRecord` |
| `canary/<dataset>`, `rollout/<dataset>` | `CanaryRecord`, `RolledOut` |
| `hold/<dataset>.<shard>` | `HoldRecord`: a bootstrap or backfill is changing its offsets |
| `trouble/<failure>@<place>` | `Incident`: the subject of one alert |
| `size/cluster/<name>`, `size/dataset/<name>` | `ClusterSize`, `DatasetSize` |
| `topic/<name>` | `TopicRecord`: a pass made this topic |
| `deleted/<dataset>` | `DeletedRecord`: another program deleted connectors |
| `source/<dataset>.<shard>`, `sources/last` | `SourceRecord`: hazards and gaps; `SourcesAsked` |
| `watched/<cluster>/<connector>` | `WatchedRecord`: paused, stopped, gone or without a task |
| `pass/last` | see `last_pass.py` |

Documents of other kinds belong to others and are left alone.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import msgspec

from cdc_platform.errors import InternalError
from cdc_platform.planning.health.liveness import CapturedRecord
from cdc_platform.planning.memory import KINDS, Memory, RecordChanges
from cdc_platform.planning.records import Record, Writer

log = logging.getLogger(__name__)

Documents = Mapping[str, Mapping[str, Any]]
# By key; None deletes.
DocumentChanges = dict[str, Mapping[str, Any] | None]


def read_memory(documents: Documents) -> Memory:
    """The planner's memory from the state topic's records. A document of another shape is left out, and logged."""
    found: dict[type[Record], dict[str, Any]] = defaultdict(dict)
    for key, document in documents.items():
        prefix, _, name = key.partition("/")
        if prefix not in KINDS:  # it may be of two parts
            second, _, name = name.partition("/")
            prefix = f"{prefix}/{second}"
        kind = KINDS.get(prefix)
        if kind is None:
            continue
        try:
            found[kind][name] = msgspec.convert(document, kind)
        except msgspec.ValidationError as error:
            log.warning("state record %s is left out: %s", key, error)
    return Memory(found)


def documents_of(changes: RecordChanges, writer: Writer = Writer.PLAN) -> DocumentChanges:
    """The changed records of one writer as documents.

    Raises:
        InternalError: a plan changes a record that is not a plan's to write.
    """
    documents: DocumentChanges = {}
    for kind, name, record in changes.items():
        if kind.kept.writer not in (Writer.PLAN, Writer.RESTART):
            raise InternalError(f"a plan may not change {kind.key_of(name)}.", where="planning")
        if kind.kept.writer is writer:
            documents[kind.key_of(name)] = None if record is None else record.document()
    return documents


def changed_records(changes: RecordChanges, documents: Documents) -> DocumentChanges:
    """What a plan changes in the memory before it is applied, without what is on record like that already."""
    return {
        key: document
        for key, document in documents_of(changes).items()
        if documents.get(key) != document and not (document is None and key not in documents)
    }


def captured_shards(documents: Documents) -> frozenset[str]:
    """The shards on record as seen running."""
    prefix = CapturedRecord.key_of("")
    return frozenset(key.removeprefix(prefix) for key in documents if key.startswith(prefix))


def captured_documents(
    running: Mapping[str, str], documents: Documents, now: datetime, generation: int
) -> DocumentChanges:
    """That shards were seen running for the first time, or in another cluster than before; `running` is by shard."""
    changed: DocumentChanges = {}
    for name, cluster in running.items():
        key = CapturedRecord.key_of(name)
        known = documents.get(key)
        if known is not None and known.get("cluster") == cluster:
            continue
        try:
            record = replace(msgspec.convert(known, CapturedRecord), cluster=cluster)
        except msgspec.ValidationError:  # none, or of another shape
            record = CapturedRecord(since=now, generation=generation, cluster=cluster)
        changed[key] = record.document()
    return changed


def deleted_with(connector: str) -> DocumentChanges:
    """All that is remembered of the shard of a connector that was deleted, deleted."""
    return {kind.key_of(connector): None for kind in KINDS.values() if kind.kept.with_connector}
