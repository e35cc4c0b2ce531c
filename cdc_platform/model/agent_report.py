"""What an agent says of itself: the document in its znode, and what the control plane reads from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from cdc_platform.model.topology import Cluster, Shard, Topology

# Names in an agent's znode, so that it stays far below ZooKeeper's 1 MiB.
MAX_NAMED = 1000
MAX_TEXTS, MAX_TEXT = 200, 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentReport:
    """What an agent says of itself in **`/cdc/agents/<worker>`**.

    `synced` answers "has it written the file of shard X" for all shards at
    once: all files of a topology with that `zxid` or a lesser one are written,
    but those in `unsynced`. `connect_worker` is the worker's id in Connect
    (host:port). `moving` maps shards whose tasks wait for their restart to
    their new generation; `blocked` (`held` in the document) those of them that must not be
    restarted yet to the reason; `split` shards whose old leader goes on taking writes to what was seen.
    """

    connect_worker: str
    connect_url: str
    leader_dir: str
    pid: int
    host: str
    started: datetime
    reported: datetime
    synced: int
    files: int
    unsynced: frozenset[str] = frozenset()
    ahead: frozenset[str] = frozenset()
    moving: Mapping[str, int] = field(default_factory=dict)
    problem: str | None = None
    blocked: Mapping[str, str] = field(default_factory=dict)
    split: Mapping[str, str] = field(default_factory=dict)

    def has_written(self, topology: Topology, shard: Shard) -> bool:
        """True when the shard's leader file is on the worker, as this topology has it."""
        return self.synced >= topology.zxid and shard.name not in self.unsynced

    def to_document(self) -> dict[str, Any]:
        """As JSON; long lists are cut, `synced` then makes up for it."""
        document = {
            **msgspec.to_builtins(self),
            "started": self.started.isoformat(timespec="seconds"),
            "reported": self.reported.isoformat(timespec="seconds"),
            # Names that do not fit would pass for written.
            "synced": self.synced if len(self.unsynced) <= MAX_NAMED else 0,
            "unsynced": sorted(self.unsynced)[:MAX_NAMED],
            "ahead": sorted(self.ahead)[:MAX_NAMED],
            "moving": dict(sorted(self.moving.items())[:MAX_NAMED]),
            "blocked": {name: text[:MAX_TEXT] for name, text in sorted(self.blocked.items())[:MAX_TEXTS]},
            "split": {name: text[:MAX_TEXT] for name, text in sorted(self.split.items())[:MAX_TEXTS]},
        }
        return {_STORED_AS.get(name, name): value for name, value in document.items()}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> AgentReport | None:
        """None for what this version cannot read: such an agent counts as absent."""
        read_as = {stored: name for name, stored in _STORED_AS.items()}
        try:
            return msgspec.convert({read_as.get(name, name): value for name, value in document.items()}, cls)
        except msgspec.ValidationError:
            return None


# Fields whose name in the document is another.
_STORED_AS = {"blocked": "held"}


def reports_by_worker(agents: Mapping[str, Mapping[str, Any]]) -> dict[str, AgentReport]:
    """What `TopologyStore.agents` gave, by Connect's worker id (host:port)."""
    reports = map(AgentReport.from_document, agents.values())
    return {report.connect_worker: report for report in reports if report is not None}


def agents_of(cluster: Cluster, workers: Iterable[str], reports: Mapping[str, AgentReport]) -> frozenset[str]:
    """The worker ids of a cluster beside which a live agent is.

    Args:
        workers: ids that are known to belong to it, such as those that run its tasks.
    """
    known = {*workers, *cluster.metrics, *cluster.labels}
    return frozenset(
        worker for worker, report in reports.items() if worker in known or report.connect_url in cluster.urls
    )


def workers_without(
    topology: Topology, shard: Shard, workers: Iterable[str], reports: Mapping[str, AgentReport]
) -> dict[str, str]:
    """Workers on which the shard's leader file is not known to be, with the reason.

    Args:
        workers: Connect's worker ids of one cluster.
        reports: read after the topology.
    """
    result: dict[str, str] = {}
    for worker in workers:
        report = reports.get(worker)
        if report is None:
            result[worker] = "no live agent"
        elif shard.name in report.ahead:
            result[worker] = "its leader file is newer than ZooKeeper"
        elif not report.has_written(topology, shard):
            result[worker] = "its agent has not written the leader file yet"
    return result
