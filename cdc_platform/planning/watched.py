"""Watched connectors: how they are, and which of them failed. Pure.

They are others' (`model/watched.py`): a pass restarts what failed, with the bounds and backoff of the platform's own,
and tells of the rest. Nothing here asks for another action: one that was paused, stopped or deleted stays so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from cdc_platform.model.observed import ObservedConnector, ObservedState
from cdc_platform.model.secret_references import is_reference
from cdc_platform.model.topology import Topology
from cdc_platform.model.watched import WatchedConnector, WatchedName
from cdc_platform.planning.diagnosis import Diagnosis
from cdc_platform.planning.drift import failure_of
from cdc_platform.planning.guardrails import Connectors
from cdc_platform.planning.health.failures import classify, first_line
from cdc_platform.planning.health.restarts import Failing
from cdc_platform.planning.health.watched_states import LEFT_ALONE, MISSING, NO_TASK, WatchedRecord
from cdc_platform.planning.inputs import Part
from cdc_platform.planning.memory import Memory, RecordChanges
from cdc_platform.planning.plan import Finding, Refusal


def all_watched(topology: Topology) -> dict[str, WatchedConnector]:
    """Each watched connector by `<cluster>/<connector>`."""
    return {
        str(WatchedName(name, one)): cluster.watched[one]
        for name, cluster in sorted(topology.clusters.items())
        for one in sorted(cluster.watched)
    }


def state_of(connector: ObservedConnector | None) -> str:
    """One word for how the connector is, by Connect's word; `RUNNING` when it and its tasks run."""
    if connector is None:
        return MISSING
    if connector.state != "RUNNING":
        return connector.state
    return next((task.state for task in connector.tasks if task.state != "RUNNING"), "RUNNING" if connector.tasks else
                NO_TASK)  # fmt: skip


def source_of(connector: ObservedConnector, name: str) -> str:
    """HOST:PORT of its database; its own name where the config holds a reference, so that no two share a cause."""
    host, port = connector.config.get("database.hostname", ""), connector.config.get("database.port", "")
    return name if not host or is_reference(host) else f"{host}:{port}" if port and not is_reference(port) else host


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """How the watched connectors are, by `<cluster>/<connector>`.

    `failing`: what is to be restarted, with its cause in a line. `healthy`: what runs, with its source. `names`: all of
    the topology, with their source where it was seen; those of clusters that could not be read are in neither.
    """

    failing: Mapping[str, tuple[Failing, str]]
    healthy: Mapping[str, str]
    names: Mapping[str, str]
    part: Part

    def joined(self, diagnosis: Diagnosis) -> Diagnosis:
        """The diagnosis of the platform's own with these: one budget of restarts, one incident a cause."""
        return replace(
            diagnosis,
            failing={**diagnosis.failing, **self.failing},
            healthy={**diagnosis.healthy, **self.healthy},
        )


def watch(observed: ObservedState, others: Connectors, memory: Memory) -> Watched:
    """How they are. Args: `others`: connectors that are not the platform's, by cluster and name."""
    failing: dict[str, tuple[Failing, str]] = {}
    healthy: dict[str, str] = {}
    sources: dict[str, str] = {}
    changes: dict[str, WatchedRecord | None] = {}
    findings: list[Finding] = []
    before = memory.of(WatchedRecord)
    names = all_watched(observed.topology)
    for name in names:
        cluster, one = name.partition("/")[::2]
        sources[name] = name
        if cluster not in others:
            continue  # not read: nothing is known of it, nor forgotten
        connector = others[cluster].get(one)
        state, record = state_of(connector), None
        if connector is not None:
            sources[name] = source_of(connector, name)
        if connector is not None and state == "RUNNING":
            healthy[name] = sources[name]
        elif connector is not None and (failed := failure_of(connector)) is not None:
            worker, trace = failed
            item = Failing(name=name, failure=classify(trace), host=sources[name], worker=worker)
            failing[name] = item, first_line(trace)
        elif state in LEFT_ALONE:
            known = before.get(name)
            since = known.since if known is not None and known.state == state else observed.taken_at
            record = WatchedRecord(state=state, since=min(since, observed.taken_at))
            findings.append(Finding(subject=name, text=f"watched, and {record.sentence('it')}"))
        if record != before.get(name):
            changes[name] = record
    gone = {name for name in before if name not in names and _is_forgotten(name, observed.topology)}
    records = RecordChanges({WatchedRecord: {**changes, **dict.fromkeys(gone)}})
    refusals = _claimed_twice(observed.topology)
    return Watched(
        failing=failing,
        healthy=healthy,
        names=sources,
        part=Part(findings=findings, records=records, refusals=refusals),
    )


def forgotten(names: Mapping[str, object], topology: Topology) -> set[str]:
    """Of the names of watched connectors in records, those that the topology no longer has."""
    known = all_watched(topology)
    return {name for name in names if name not in known and _is_forgotten(name, topology)}


def _is_forgotten(name: str, topology: Topology) -> bool:
    """Not for a cluster whose document cannot be read now."""
    watched = WatchedName.parse(name)
    return watched is not None and not any(p.kind == "cluster" and p.name == watched.cluster for p in topology.problems)


def _claimed_twice(topology: Topology) -> list[Refusal]:
    """Shards whose connector's name is that of a watched one in one of their clusters."""
    return [
        Refusal(
            scope=shard.name,
            reason=f"cluster {cluster} has a watched connector of that name, which passes do not touch. To have the "
            "platform make its own, delete the watched one and run "
            f"`cdc-platform adopt {cluster} {shard.name} --release --apply`",
        )
        for dataset, shard in topology.all_shards()
        for cluster in dataset.clusters
        if cluster in topology.clusters and shard.name in topology.clusters[cluster].watched
    ]
