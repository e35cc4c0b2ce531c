"""What passes remember in the state topic, as documents: one definition of keys and shapes.

| key | document (fields of) |
|---|---|
| `restart/<dataset>.<shard>` | `restarts.RestartRecord` |
| `shard/<dataset>.<shard>` | `liveness.CapturedRecord`: Connect called it RUNNING first |
| `live/<dataset>.<shard>` | `liveness.LiveRecord`: its first heartbeat; who snapshots a shard anew forgets it |
| `leader/<dataset>.<shard>` | `liveness.LeaderRecord`: the generation a pass saw last |
| `zombie/<dataset>.<shard>` | `zombies.ZombieRecord` |
| `skew/<cluster>` | `balance.SkewRecord` |
| `canary/<dataset>`, `rollout/<dataset>` | `rollout.CanaryRecord`, `rollout.RolledOut` |
| `hold/<dataset>.<shard>` | `holds.HoldRecord`: a bootstrap or backfill is changing its offsets |
| `trouble/<failure>@<place>` | `incidents.Incident`: what one alert tells of |
| `size/cluster/<name>`, `size/dataset/<name>` | how many connectors, shards the last pass saw |
| `pass/last` | see `last_pass.py` |

Documents of other kinds belong to others and are left alone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import msgspec

from cdc_platform.planning.canary import CanaryRecord, RolledOut
from cdc_platform.planning.health.duplicate_tasks import ZombieRecord
from cdc_platform.planning.health.incidents import Incident
from cdc_platform.planning.health.liveness import CapturedRecord, LeaderRecord, LiveRecord
from cdc_platform.planning.health.restarts import RestartRecord
from cdc_platform.planning.health.task_balance import SkewRecord
from cdc_platform.planning.holds import HoldRecord
from cdc_platform.planning.planner import Changes, Memory, Planned

log = logging.getLogger(__name__)

Documents = Mapping[str, Mapping[str, Any]]
News = dict[str, Mapping[str, Any] | None]

RESTART = "restart"
SHARD = "shard"
HOLD = "hold"

# Kind to the field of Memory that holds it, and its type.
_KINDS: Mapping[str, tuple[str, type]] = {
    RESTART: ("restarts", RestartRecord),
    SHARD: ("captured", CapturedRecord),
    "live": ("live", LiveRecord),
    "leader": ("leaders", LeaderRecord),
    "zombie": ("zombies", ZombieRecord),
    "skew": ("skews", SkewRecord),
    "canary": ("canaries", CanaryRecord),
    "rollout": ("rollouts", RolledOut),
    "trouble": ("incidents", Incident),
    HOLD: ("holds", HoldRecord),
}
_SIZES: Mapping[str, tuple[str, str]] = {
    "cluster": ("cluster_sizes", "connectors"),
    "dataset": ("dataset_sizes", "shards"),
}


def read_memory(records: Documents) -> Memory:
    """The planner's memory from the state topic's records. A document of another shape is left out, and logged."""
    found: dict[str, dict[str, Any]] = {field: {} for field, _ in (*_KINDS.values(), *_SIZES.values())}
    for key, document in records.items():
        kind, _, name = key.partition("/")
        try:
            if kind in _KINDS:
                field, shape = _KINDS[kind]
                found[field][name] = msgspec.convert(document, shape)
            elif kind == "size":
                of, _, name = name.partition("/")
                field, number = _SIZES[of]
                found[field][name] = int(document[number])
        except (msgspec.ValidationError, KeyError, TypeError, ValueError) as error:
            log.warning("state record %s is left out: %s", key, error)
    return Memory(**found)


def captured_shards(records: Documents) -> frozenset[str]:
    """The shards on record as seen running."""
    prefix = f"{SHARD}/"
    return frozenset(key.removeprefix(prefix) for key in records if key.startswith(prefix))


def news(planned: Planned, records: Documents) -> News:
    """What of the memory a pass changes, restart records apart; None deletes."""
    changes: News = {}
    for kind, (field, _) in _KINDS.items():
        if kind not in (RESTART, SHARD, HOLD):  # a hold is another's: a pass only obeys it
            changes |= _documents(kind, getattr(planned.changes, field))
    sizes: News = {}
    for of, seen in (("cluster", planned.cluster_sizes), ("dataset", planned.dataset_sizes)):
        number = _SIZES[of][1]
        sizes |= {f"size/{of}/{name}": {number: n} if n else None for name, n in seen.items()}
    return {
        key: value
        for key, value in (changes | sizes).items()
        if records.get(key) != value and not (value is None and key not in records)
    }


def restart_documents(records: Mapping[str, RestartRecord | None]) -> News:
    """Restart records as documents; None forgets."""
    return _documents(RESTART, records)


def captured_documents(running: Mapping[str, str], records: Documents, now: datetime, generation: int) -> News:
    """That shards were seen running for the first time, or in another cluster than before; `running` is by shard."""
    found: dict[str, CapturedRecord] = {}
    for name, cluster in running.items():
        known = records.get(f"{SHARD}/{name}")
        if known is not None and known.get("cluster") == cluster:
            continue
        try:
            found[name] = replace(msgspec.convert(known, CapturedRecord), cluster=cluster)
        except msgspec.ValidationError:  # none, or of another shape
            found[name] = CapturedRecord(since=now, generation=generation, cluster=cluster)
    return _documents(SHARD, found)


def forgotten(shard: str) -> News:
    """All that is remembered of a shard, forgotten."""
    return {f"{kind}/{shard}": None for kind in (RESTART, SHARD, "live", "leader", "zombie")}


def _documents(kind: str, values: Mapping[str, Any]) -> News:
    return {f"{kind}/{name}": None if value is None else msgspec.to_builtins(value) for name, value in values.items()}


__all__ = [
    "Changes",
    "captured_documents",
    "captured_shards",
    "forgotten",
    "news",
    "read_memory",
    "restart_documents",
]
