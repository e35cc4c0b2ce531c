"""Read all that one pass decides on, concurrently and under one deadline."""

from __future__ import annotations

import logging
import math
import time
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTime
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from cdc_platform.clients.platform import Platform
from cdc_platform.errors import CdcError, KafkaRejected, KafkaUnavailable, Unavailable
from cdc_platform.model.agent_report import reports_by_worker
from cdc_platform.model.observed import (
    ObservedCluster,
    ObservedHeartbeats,
    ObservedState,
    ObservedTopic,
    ObservedWorker,
    TopicRequest,
)
from cdc_platform.model.topology import Cluster, Topology
from cdc_platform.planning.health.liveness import LivenessPolicy, silence_limit
from cdc_platform.reconciler.login_checks import ask_sources

log = logging.getLogger(__name__)

T = TypeVar("T")

# Heartbeats are read from a little before the longest allowed silence.
_MARGIN = timedelta(seconds=15)
_THREADS = 32
# Agents follow a change of the topology within a second, unless it is of thousands of shards.
_AGENTS_SECONDS = 4.0
_AGENTS_POLL = 0.25
_LATE = "no answer before the deadline of the observation"
CONFIGS_A_PASS = 1000
# Longer than from the sensor's observation to that of the run it asks for: both see the same share.
TURN_SECONDS = 300


def observe(
    platform: Platform, topology: Topology, topics: Sequence[TopicRequest], policy: LivenessPolicy
) -> ObservedState:
    """What is there now.

    What cannot be read, or not before the deadline (`connect_timeout` and half as much again), is
    marked unknown.

    Args:
        topology: says which clusters, workers and shards there are.
        topics: those that matter.
        policy: says how long a connector may be silent, so how far back heartbeats are read.
    """
    end = time.monotonic() + 1.5 * platform.settings.connect_timeout
    pool = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="observe")
    try:
        # The clusters first: they take longest.
        clusters = {name: pool.submit(observe_cluster, platform, c) for name, c in topology.clusters.items()}
        heartbeats = pool.submit(_heartbeats, platform, topology, policy)
        agents = pool.submit(_agents, platform, topology)
        workers = {
            worker: pool.submit(_worker, platform, worker, url)
            for cluster in topology.clusters.values()
            for worker, url in sorted(cluster.metrics.items())
        }
        existing = pool.submit(_topics, platform, topics)
        brokers = pool.submit(_brokers, platform)
        read = {
            name: _in_time(reading, end, ObservedCluster(name=name, connectors=None, problem=_LATE))
            for name, reading in clusters.items()
        }
        observed = ObservedState(
            taken_at=datetime.now(UTC),
            topology=topology,
            clusters=read,
            topics=_in_time(existing, end, None),
            heartbeats=_in_time(heartbeats, end, None),
            workers={
                worker: _in_time(reading, end, ObservedWorker(worker=worker, problem=_LATE))
                for worker, reading in workers.items()
            },
            agents=_in_time(agents, end, None),
            brokers=_in_time(brokers, end, None),
        )
        return replace(observed, logins=ask_sources(platform, observed, policy))
    finally:
        # What hangs ends by its own deadline; nothing waits for it.
        pool.shutdown(wait=False, cancel_futures=True)


def configs_to_read(desired: Sequence[TopicRequest], now: float) -> frozenset[str]:
    """The topics whose config is read in an observation at `now` (Unix time).

    Compacted topics, which hold data, each time. Of the others, one or two a
    shard, a share that changes with time, so that each has its turn (docs/decisions/0056).
    """
    others = [topic.name for topic in desired if topic.config.get("cleanup.policy") == "delete"]
    turns = math.ceil(len(others) / CONFIGS_A_PASS)
    turn = int(now / TURN_SECONDS) % turns if turns else 0
    resting = frozenset(name for name in others if zlib.crc32(name.encode()) % turns != turn)
    return frozenset(topic.name for topic in desired) - resting


def observe_cluster(platform: Platform, cluster: Cluster) -> ObservedCluster:
    """One Connect cluster's connectors, or why they could not be read."""
    try:
        return ObservedCluster(name=cluster.name, connectors=platform.connect(cluster).connectors())
    except Unavailable as error:
        return ObservedCluster(name=cluster.name, connectors=None, problem=str(error))


def observe_again(platform: Platform, topology: Topology) -> dict[str, ObservedCluster]:
    """The Connect clusters only, after a plan was applied."""
    with ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="observe") as pool:
        clusters = pool.map(lambda cluster: observe_cluster(platform, cluster), topology.clusters.values())
        return {cluster.name: cluster for cluster in clusters}


def _in_time(reading: Future[T], end: float, otherwise: T) -> T:
    try:
        return reading.result(timeout=max(0.0, end - time.monotonic()))
    except NotInTime:
        return otherwise


def _topics(platform: Platform, desired: Sequence[TopicRequest]) -> dict[str, ObservedTopic] | None:
    names = frozenset(topic.name for topic in desired)
    try:
        return dict(platform.kafka.topics(names, configs_to_read(desired, time.time())))
    except (KafkaUnavailable, KafkaRejected) as error:
        log.warning("topics: %s", error)
        return None


def _brokers(platform: Platform) -> int | None:
    try:
        return platform.kafka.brokers()
    except (KafkaUnavailable, KafkaRejected) as error:
        log.warning("brokers: %s", error)
        return None


def _heartbeats(platform: Platform, topology: Topology, policy: LivenessPolicy) -> ObservedHeartbeats | None:
    if platform.heartbeats is None:
        return None
    slow = {d.name: limit for d in topology.datasets.values() if (limit := silence_limit(d, policy)) > policy.silence}
    try:
        heartbeats = platform.heartbeats.read(policy.silence + _MARGIN)
        missed = [
            name for name in slow if any(shard.name not in heartbeats.beats for shard in topology.shards.get(name, ()))
        ]
        if missed:
            # A rate-limited dataset may be silent for longer: so far back is read only then.
            heartbeats = platform.heartbeats.read(max(slow[name] for name in missed) + _MARGIN)
        return heartbeats
    except (KafkaUnavailable, KafkaRejected) as error:
        log.warning("heartbeats: %s", error)
        return None


def _worker(platform: Platform, worker: str, url: str) -> ObservedWorker:
    if platform.metrics is None:
        return ObservedWorker(worker=worker, problem="nothing reads metrics here")
    try:
        return platform.metrics.read(worker, url)
    except CdcError as error:
        return ObservedWorker(worker=worker, problem=str(error))


def _agents(platform: Platform, topology: Topology) -> Mapping[str, Mapping[str, Any]] | None:
    """What the agents say, once they have written what the topology says, or after a moment."""
    end = time.monotonic() + _AGENTS_SECONDS
    try:
        while True:
            agents = platform.topology.agents()
            behind = [report for report in reports_by_worker(agents).values() if report.synced < topology.zxid]
            if not behind or time.monotonic() > end:
                return agents
            time.sleep(_AGENTS_POLL)
    except Unavailable as error:
        log.warning("agents: %s", error)
        return None
