"""No connector before its leader file: Connect refuses a reference to a file that is not there."""

from __future__ import annotations

from cdc_platform.model.agent_report import AgentReport, agents_of, reports_by_worker, workers_without
from cdc_platform.model.naming import some_of
from cdc_platform.model.observed import ObservedState
from cdc_platform.model.topology import Cluster, Shard
from cdc_platform.planning.health.liveness import LeaderRecord
from cdc_platform.planning.health.restarts import Waiting
from cdc_platform.planning.inputs import PlanInputs
from cdc_platform.planning.plan import Finding


class LeaderFiles:
    """Which new connectors wait for the agents.

    Only live agents are waited for, `leader_move` at most: one that cannot write costs
    the shards that land on its worker, not those of the whole cluster. Workers without an
    agent get their files by other means.
    """

    def __init__(self, inputs: PlanInputs) -> None:
        self._observed = inputs.observed
        self._records = inputs.memory.of(LeaderRecord)
        self._longest = inputs.policy.liveness.leader_move
        self._reports: dict[str, AgentReport] = reports_by_worker(inputs.observed.agents or {})
        self._workers: dict[str, frozenset[str]] = {}

    def wait(self, shard: Shard, cluster: Cluster) -> Waiting | None:
        """Why the shard gets no connector in this pass; None when it may have one."""
        if not self._reports:
            return None
        late = workers_without(self._observed.topology, shard, self._agents(cluster), self._reports)
        if not late:
            return None
        now = self._observed.taken_at
        record = self._records.get(shard.name)
        since = min(record.since, now) if record is not None and record.generation == shard.generation else now
        if since + self._longest <= now:
            return None
        worker = min(late)
        return Waiting(since + self._longest, f"waits for the worker {worker}: {late[worker]}")

    def _agents(self, cluster: Cluster) -> frozenset[str]:
        agents = self._workers.get(cluster.name)
        if agents is None:
            running = _running(self._observed, cluster)
            agents = self._workers[cluster.name] = agents_of(cluster, running, self._reports)
        return agents


def without_agent(observed: ObservedState) -> list[Finding]:
    """One finding a cluster that is used: its known workers beside which no agent answers."""
    if observed.agents is None:
        return []
    reports = reports_by_worker(observed.agents)
    used = {name for dataset, _ in observed.topology.all_shards() for name in dataset.clusters}
    findings = []
    for name, cluster in sorted(observed.topology.clusters.items()):
        workers = {*_running(observed, cluster), *cluster.metrics, *cluster.labels} - {""}
        agents = agents_of(cluster, workers, reports)
        # URLs may be those of a load balancer: they stand for workers only while none is known.
        lacking = workers - agents if workers or agents else {*cluster.urls}
        if lacking and name in used:
            text = (
                f"no agent answers beside {some_of(sorted(lacking), 3)}: without one, or something else that keeps "
                f"leader files in {cluster.leader_dir}, connectors fail there and follow no new leader"
            )
            findings.append(Finding(subject=f"cluster {name}", text=text))
    return findings


def _running(observed: ObservedState, cluster: Cluster) -> set[str]:
    """The worker ids that run tasks of the cluster."""
    seen = observed.clusters.get(cluster.name)
    return {task.worker for connector in ((seen and seen.connectors) or {}).values() for task in connector.tasks}
