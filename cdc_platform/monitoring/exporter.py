"""Prometheus metrics out of the state topic: runs of the control plane come and go, this process stays.

Nothing is measured here. Each scrape reads what passes have recorded since the
last one, so a scrape costs no call to Connect. `cdc_last_pass_timestamp_seconds`
says how old it all is: alert on it.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from cdc_platform.clients.protocols import StateStore
from cdc_platform.errors import CdcError
from cdc_platform.model.naming import ShardName
from cdc_platform.planning.canary import CanaryRecord
from cdc_platform.planning.health.deleted_connectors import DeletedRecord
from cdc_platform.planning.health.duplicate_tasks import ZombieRecord
from cdc_platform.planning.health.incidents import Incident
from cdc_platform.planning.health.restarts import RestartRecord
from cdc_platform.planning.health.source_hazards import SourceRecord
from cdc_platform.planning.health.task_balance import SkewRecord
from cdc_platform.planning.memory import Memory, SourcesAsked
from cdc_platform.reconciler import last_pass
from cdc_platform.reconciler.state_records import Documents, read_memory

log = logging.getLogger(__name__)


class StateCollector(Collector):
    """The state topic's records as metrics; thread-safe."""

    def __init__(self, state: StateStore) -> None:
        self._state = state
        self._lock = threading.Lock()

    def collect(self) -> Iterator[Metric]:
        """All metrics now; only `cdc_state_readable 0` when the topic cannot be read."""
        with self._lock:
            try:
                records = self._state.read()
            except CdcError as error:
                log.warning("state topic: %s", error)
                yield _gauge("cdc_state_readable", "1 when the state topic could be read for this scrape.", 0)
                return
        yield _gauge("cdc_state_readable", "1 when the state topic could be read for this scrape.", 1)
        try:
            yield from metrics(records)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            # Written by another version: the scrape says so instead of failing as a whole.
            log.warning("record %s has another shape: %r", last_pass.KEY, error)
            yield _gauge("cdc_state_understood", "0 when a record has the shape of another version.", 0)


def registry(state: StateStore) -> CollectorRegistry:
    """A registry with nothing but these metrics."""
    made = CollectorRegistry(auto_describe=False)
    made.register(StateCollector(state))
    return made


def metrics(records: Documents) -> Iterator[Metric]:
    """The metrics of one reading of the state topic."""
    last = records.get(last_pass.KEY)
    if last is not None:
        yield from _pass(last)
        yield from _datasets(last["datasets"])
        yield from _clusters(last["clusters"])
        yield from _watched(last.get("watched") or {})
    yield from _memory(records)


def _pass(last: Mapping[str, Any]) -> Iterator[Metric]:
    at = datetime.fromisoformat(last["at"]).timestamp()
    yield _gauge("cdc_last_pass_timestamp_seconds", "When the last pass looked (Unix time).", at)
    yield _gauge("cdc_last_pass_generation", "The lock's generation under which it ran.", last["generation"])
    seconds = GaugeMetricFamily("cdc_pass_duration_seconds", "Duration of the last pass by phase.", labels=["phase"])
    for phase, spent in last["seconds"].items():
        seconds.add_metric([phase], spent)
    yield seconds
    actions = GaugeMetricFamily(
        "cdc_pass_actions", "Actions of the last pass: planned, and what became of them.", labels=["verb", "status"]
    )
    for status in ("planned", "done", "failed"):
        for verb, number in last[status].items():
            actions.add_metric([verb, status], number)
    yield actions
    yield _gauge("cdc_pass_refusals", "Parts of the last plan that a guardrail refused.", len(last["refused"]))
    yield CounterMetricFamily("cdc_passes", "Passes.", value=last["totals"]["passes"])
    restarts = CounterMetricFamily("cdc_restarts", "Restarts by class of failure.", labels=["failure"])
    for failure, number in last["totals"]["restarts"].items():
        restarts.add_metric([failure], number)
    yield restarts


def _datasets(datasets: Mapping[str, Mapping[str, Any]]) -> Iterator[Metric]:
    shards = GaugeMetricFamily("cdc_shards", "Shards of a dataset by state.", labels=["dataset", "state"])
    lag = GaugeMetricFamily(
        "cdc_lag_seconds",
        "Quantiles over shards: how far behind its source a shard is.",
        labels=["dataset", "quantile"],
    )
    beat = GaugeMetricFamily(
        "cdc_heartbeat_age_seconds",
        "Quantiles over shards: age of the last heartbeat, up to the window that is read.",
        labels=["dataset", "quantile"],
    )
    for name, values in datasets.items():
        for state, number in values["states"].items():
            shards.add_metric([name, state], number)
        for family, field in ((lag, "lag_s"), (beat, "beat_s")):
            for quantile, value in values.get(field, {}).items():
                family.add_metric([name, quantile], value)
    yield from (shards, lag, beat)


def _watched(clusters: Mapping[str, Mapping[str, Any]]) -> Iterator[Metric]:
    found = GaugeMetricFamily(
        "cdc_watched_connectors", "Watched connectors, which others made, by state.", labels=["cluster", "state"]
    )
    for name, cluster in clusters.items():
        states = Counter(cluster["down"].values())
        for state, number in {"RUNNING": cluster["connectors"] - states.total(), **states}.items():
            found.add_metric([name, state], number)
    yield found


def _clusters(clusters: Mapping[str, Mapping[str, Any]]) -> Iterator[Metric]:
    up = GaugeMetricFamily("cdc_cluster_reachable", "1 when the Connect cluster could be read.", labels=["cluster"])
    connectors = GaugeMetricFamily("cdc_connectors", "Connectors, also strangers'.", labels=["cluster"])
    tasks = GaugeMetricFamily("cdc_worker_tasks", "Tasks of a worker.", labels=["cluster", "worker"])
    heap = GaugeMetricFamily("cdc_worker_heap_ratio", "Used share of a worker's heap.", labels=["cluster", "worker"])
    answers = GaugeMetricFamily(
        "cdc_worker_metrics_readable", "1 when the worker's metrics could be read.", labels=["cluster", "worker"]
    )
    rebalances = CounterMetricFamily(
        "cdc_worker_rebalances", "Rebalances since the worker's start.", labels=["cluster", "worker"]
    )
    for name, cluster in clusters.items():
        up.add_metric([name], 1 if cluster["reachable"] else 0)
        connectors.add_metric([name], cluster["connectors"])
        for worker, values in cluster["workers"].items():
            tasks.add_metric([name, worker], values["tasks"])
            if "answers" in values:
                answers.add_metric([name, worker], 1 if values["answers"] else 0)
            if "heap" in values:
                heap.add_metric([name, worker], values["heap"])
            if "rebalances" in values:
                rebalances.add_metric([name, worker], values["rebalances"])
    yield from (up, connectors, tasks, heap, answers, rebalances)


def _memory(records: Documents) -> Iterator[Metric]:
    memory = read_memory(records)
    incidents = GaugeMetricFamily("cdc_trouble_shards", "Shards down by cause.", labels=["failure", "place"])
    for incident in memory.of(Incident).values():
        incidents.add_metric([str(incident.failure), incident.place], incident.down)
    yield incidents
    backing_off = GaugeMetricFamily("cdc_restart_records", "Shards restarted or waiting for it.", labels=["failure"])
    for failure, number in Counter(str(record.failure) for record in memory.of(RestartRecord).values()).items():
        backing_off.add_metric([failure], number)
    yield backing_off
    canaries = GaugeMetricFamily("cdc_rollout", "1: a rollout under way, by verdict.", labels=["dataset", "verdict"])
    for dataset, record in memory.of(CanaryRecord).items():
        canaries.add_metric([dataset, str(record.verdict)], 1)
    yield canaries
    deleted = GaugeMetricFamily(
        "cdc_connectors_deleted_elsewhere",
        "How often within an hour connectors were found deleted by another program.",
        labels=["dataset"],
    )
    for dataset, found in memory.of(DeletedRecord).items():
        deleted.add_metric([dataset], len(found.times))
    yield deleted
    yield from _sources(memory)
    yield _gauge("cdc_zombies", "Shards whose task seems to run twice.", len(memory.of(ZombieRecord)))
    yield _gauge("cdc_skewed_clusters", "Connect clusters whose tasks are unevenly spread.", len(memory.of(SkewRecord)))


def _sources(memory: Memory) -> Iterator[Metric]:
    hazards = GaugeMetricFamily(
        "cdc_source_hazards", "Shards whose source has a hazard, by kind (docs/hazards.md).", labels=["dataset", "kind"]
    )
    found = memory.of(SourceRecord).items()
    pairs = {(name, str(hazard.kind)) for name, record in found for hazard in record.hazards}
    for (dataset, kind), number in sorted(
        Counter((ShardName.parse(name).dataset, kind) for name, kind in pairs).items()
    ):
        hazards.add_metric([dataset, kind], number)
    yield hazards
    asked = memory.of(SourcesAsked).get("last")
    if asked is not None:
        at = asked.at.timestamp()
        yield _gauge("cdc_sources_asked_timestamp_seconds", "When the sources were asked last (Unix time).", at)
        yield _gauge("cdc_sources_asked", "Shards whose source was asked then.", asked.asked)
        kept = GaugeMetricFamily(
            "cdc_source_log_bytes",
            "Quantiles over shards: bytes of log that the source keeps (Postgres: for the shard's slot).",
            labels=["dataset", "quantile"],
        )
        left = GaugeMetricFamily(
            "cdc_source_log_seconds_left",
            "The least of a dataset: seconds until log that a connector needs is lost, at the rate of now.",
            labels=["dataset"],
        )
        for dataset, logs in sorted(asked.logs.items()):
            for quantile, value in logs.bytes.items():
                kept.add_metric([dataset, quantile], value)
            if logs.seconds_left is not None:
                left.add_metric([dataset], logs.seconds_left)
        yield from (kept, left)
        yield _gauge("cdc_sources_unanswered", "Of these, shards whose source did not answer.", asked.unanswered)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)
