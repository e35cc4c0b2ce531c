"""No connector before its leader file: Connect refuses a reference to a file that is not there."""

from __future__ import annotations

from datetime import datetime

from cdc_platform.model.agent_report import AgentReport, agents_of, reports_by_worker, workers_without
from cdc_platform.model.observed import ObservedState
from cdc_platform.model.topology import Cluster, Shard
from cdc_platform.planning.health.liveness import LeaderRecord
from cdc_platform.planning.health.restarts import Waiting
from cdc_platform.planning.inputs import Memory, PassPolicy


class LeaderFiles:
    """Which new connectors wait for the agents, and since when; `records` is what to remember of that.

    Only live agents are waited for, `leader_move` at most: one that cannot write costs
    the shards that land on its worker, not those of the whole cluster. Workers without an
    agent get their files by other means.
    """

    def __init__(self, picture: ObservedState, memory: Memory, policy: PassPolicy) -> None:
        self.records: dict[str, LeaderRecord | None] = {}
        self._picture = picture
        self._memory = memory
        self._longest = policy.liveness.leader_move
        self._reports: dict[str, AgentReport] = reports_by_worker(picture.agents or {})
        self._workers: dict[str, frozenset[str]] = {}

    def wait(self, shard: Shard, cluster: Cluster) -> Waiting | None:
        """Why the shard gets no connector in this pass; None when it may have one."""
        if not self._reports:
            return None
        late = workers_without(self._picture.topology, shard, self._agents(cluster), self._reports)
        if not late:
            return None
        until = self._since(shard) + self._longest
        if until <= self._picture.taken_at:
            return None
        worker = min(late)
        return Waiting(until, f"waits for the worker {worker}: {late[worker]}")

    def _since(self, shard: Shard) -> datetime:
        now = self._picture.taken_at
        known = self._memory.leaders.get(shard.name)
        if known is not None and known.generation == shard.generation:
            return min(known.since, now)
        self.records[shard.name] = LeaderRecord(generation=shard.generation, since=now)
        return now

    def _agents(self, cluster: Cluster) -> frozenset[str]:
        found = self._workers.get(cluster.name)
        if found is None:
            seen = (self._picture.clusters[cluster.name].connectors or {}).values()
            running = {task.worker for connector in seen for task in connector.tasks}
            found = self._workers[cluster.name] = agents_of(cluster, running, self._reports)
        return found
