"""What throttles shards of a snapshot run: replicas that fall behind, workers short of heap.

A brake that was put on stays on until things are clearly better, so that it does not flutter.
Reading the load and judging it are apart: `judge` is pure.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from cdc_platform.clients.protocols import Metrics
from cdc_platform.clients.sources.logs import SourceLogs
from cdc_platform.errors import CdcError, ConnectUnavailable
from cdc_platform.model.backoff import Backoff
from cdc_platform.model.observed import ObservedConnector, ObservedWorker
from cdc_platform.model.topology import Cluster, Dataset, Shard

log = logging.getLogger(__name__)

_PARALLEL = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class BrakePolicy:
    """When a brake goes on, and off again. Lags in seconds, heap as a part of the most there is.

    Heap counts only when it was above `heap_on` in `heap_reads` reads in a row: before a collection it is always
    high for a moment. And a worker that has nothing to do collects no garbage, so its heap may stay high for ever
    (tried): after `heap_seconds` its shards are released as a probe; if the heap fills again, the time doubles, up
    to sixteen times.
    """

    replica_lag_on: float = 60.0
    replica_lag_off: float = 20.0
    heap_on: float = 0.9
    heap_off: float = 0.75
    heap_reads: int = 3
    heap_seconds: float = 60.0
    interval: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedLoad:
    """What was read at one moment. What could not be read is absent, and throttles nothing.

    `replica_lag` is seconds by source host (`host:port`), infinite where a replica has stopped; `workers` is by
    worker id, `shards` maps a shard (`<dataset>.<shard>`) to its source host and the worker that runs its task.
    """

    replica_lag: Mapping[str, float]
    workers: Mapping[str, ObservedWorker]
    shards: Mapping[str, tuple[str, str | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class BrakeState:
    """The brakes that are on: source hosts, and workers with the moment until when at most.

    By worker: `high` counts reads in a row with a high heap, `tried` how often its shards were released as a probe.
    """

    hosts: frozenset[str] = frozenset()
    workers: Mapping[str, float] = field(default_factory=dict)
    high: Mapping[str, int] = field(default_factory=dict)
    tried: Mapping[str, int] = field(default_factory=dict)


def judge(state: BrakeState, load: ObservedLoad, policy: BrakePolicy, now: float) -> BrakeState:
    """The brakes after one more read. `now` is seconds of a steady clock."""
    hosts = {
        host
        for host, lag in load.replica_lag.items()
        if lag > (policy.replica_lag_off if host in state.hosts else policy.replica_lag_on)
    }
    probes = Backoff(first=policy.heap_seconds, longest=16 * policy.heap_seconds)
    high: dict[str, int] = {}
    tried: dict[str, int] = {}
    workers: dict[str, float] = {}
    for worker, observed in load.workers.items():
        if observed.heap_used is None or not observed.heap_max:
            continue
        part = observed.heap_used / observed.heap_max
        if part <= policy.heap_off:
            continue
        tried[worker] = state.tried.get(worker, 0)
        if worker in state.workers:
            if now < state.workers[worker]:
                workers[worker] = state.workers[worker]
            else:
                tried[worker] += 1
        elif part > policy.heap_on:
            high[worker] = state.high.get(worker, 0) + 1
            if high[worker] >= policy.heap_reads:
                workers[worker] = now + probes.wait(tried[worker] + 1)
    return BrakeState(hosts=frozenset(hosts), workers=workers, high=high, tried=tried)


def reasons(state: BrakeState, load: ObservedLoad) -> dict[str, str]:
    """Shard to why it is throttled, for those that are."""
    found: dict[str, str] = {}
    for shard, (host, worker) in load.shards.items():
        if host in state.hosts:
            lag = load.replica_lag[host]
            found[shard] = (
                f"replicas of {host} are {lag:.0f} s behind" if lag < math.inf else f"a replica of {host} has stopped"
            )
        elif worker is not None and worker in state.workers:
            found[shard] = f"worker {worker} is short of heap"
    return found


class Brakes:
    """Reads the load every few seconds, in the caller's thread."""

    def __init__(
        self,
        sources: SourceLogs,
        metrics: Metrics | None,
        policy: BrakePolicy,
        *,
        report: Callable[[str], None],
    ) -> None:
        self._sources = sources
        self._metrics = metrics
        self._policy = policy
        self._report = report
        self._state = BrakeState()
        self._reasons: dict[str, str] = {}
        self._next = 0.0
        self._reported: set[str] = set()

    def update(
        self,
        dataset: Dataset,
        shards: Sequence[Shard],
        connectors: Mapping[str, ObservedConnector],
        clusters: Sequence[Cluster],
    ) -> Mapping[str, str]:
        """Shard (`<dataset>.<shard>`) to why it is throttled now.

        Args:
            dataset: that of the shards.
            shards: those that are or will soon be read.
            connectors: by name.
            clusters: the Connect clusters that run them.
        """
        if time.monotonic() < self._next:
            return self._reasons
        hosts = {str(shard.leader): shard for shard in shards}
        with ThreadPoolExecutor(max_workers=_PARALLEL, thread_name_prefix="brakes") as pool:
            lags = dict(zip(hosts, pool.map(lambda s: self._lag(dataset, s), hosts.values()), strict=True))
            urls = {worker: url for cluster in clusters for worker, url in cluster.metrics.items()}
            found = zip(urls, pool.map(lambda pair: self._worker(*pair), urls.items()), strict=True)
            workers = {worker: observed for worker, observed in found if observed is not None}
        load = ObservedLoad(
            replica_lag={host: lag for host, lag in lags.items() if lag is not None},
            workers=workers,
            shards={shard.name: (str(shard.leader), _task_worker(connectors.get(shard.name))) for shard in shards},
        )
        self._state = judge(self._state, load, self._policy, time.monotonic())
        self._reasons = reasons(self._state, load)
        self._next = time.monotonic() + self._policy.interval
        return self._reasons

    def _worker(self, worker: str, url: str) -> ObservedWorker | None:
        if self._metrics is None:
            return None
        try:
            return self._metrics.read(worker, url)
        except ConnectUnavailable as error:
            log.debug("the heap of %s is not known: %s", worker, error)
            return None

    def _lag(self, dataset: Dataset, shard: Shard) -> float | None:
        try:
            return self._sources.replica_lag(dataset, shard)
        except CdcError as error:
            # A replica that cannot be asked is no reason to stop. Reported once for each host.
            text = f"How far replicas of {shard.leader} are behind is not known, and throttles nothing: {error}"
            if text not in self._reported:
                self._reported.add(text)
                self._report(text)
            return None


def _task_worker(connector: ObservedConnector | None) -> str | None:
    return connector.tasks[0].worker if connector is not None and connector.tasks else None
