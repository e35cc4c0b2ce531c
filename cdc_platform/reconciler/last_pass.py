"""The record `pass/last`: one compact document a pass, for the exporter, `status` and a dead man's switch.

| field | what |
|---|---|
| `at`, `generation` | when the pass looked, and under which lock |
| `seconds` | by phase |
| `planned`, `done`, `failed` | actions of the pass by verb |
| `refused` | scopes, at most 20 |
| `totals` | passes, and restarts by class of failure, since the topic was made |
| `datasets` | by name: shards, up, states, `lag_s` and `beat_s` quantiles |
| `watched` | by Connect cluster that has watched connectors: their number, and the state of those that are down |
| `clusters` | by name: reachable, connectors, and by worker: tasks, heap share, rebalances |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from cdc_platform.model.observed import ObservedCluster, ObservedState, ObservedWorker
from cdc_platform.planning.actions import RestartConnector
from cdc_platform.planning.inputs import Planned
from cdc_platform.reconciler.report import ActionOutcome, ActionStatus, DatasetHealth, lags_of

KEY = "pass/last"

_QUANTILES = (0.5, 0.9, 0.99, 1.0)
_MOST_REFUSALS = 20
# Of the watched connectors that are down: a record is one message.
_MOST_WATCHED = 2000


def last_pass(
    *,
    generation: int,
    observed: ObservedState,
    planned: Planned,
    outcomes: Sequence[ActionOutcome],
    clusters: Mapping[str, ObservedCluster],
    health: Mapping[str, DatasetHealth],
    watched: Mapping[str, DatasetHealth],
    seconds: Mapping[str, float],
    before: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The document of one pass; `before` is that of the last one, whose totals go on."""
    restarts = Counter(
        str(o.action.failure)
        for o in outcomes
        if isinstance(o.action, RestartConnector) and o.status is ActionStatus.DONE
    )
    totals: Mapping[str, Any] = (before or {}).get("totals") or {}
    known: Mapping[str, int] = totals.get("restarts") or {}
    return {
        "at": observed.taken_at.isoformat(),
        "generation": generation,
        "seconds": {phase: round(spent, 3) for phase, spent in seconds.items()},
        "planned": dict(planned.plan.counts()),
        "done": _by_verb(outcomes, ActionStatus.DONE),
        "failed": _by_verb(outcomes, ActionStatus.FAILED),
        "refused": [refusal.scope for refusal in planned.plan.refusals[:_MOST_REFUSALS]],
        "totals": {
            "passes": int(totals.get("passes", 0)) + 1,
            "restarts": {name: known.get(name, 0) + restarts[name] for name in sorted({*known, *restarts})},
        },
        "datasets": _datasets(observed, health),
        "watched": {
            name: {"connectors": of.shards, "down": {down.shard: down.state for down in of.down[:_MOST_WATCHED]}}
            for name, of in watched.items()
        },
        "clusters": {
            name: {
                "reachable": cluster.known,
                "connectors": len(cluster.connectors or {}),
                "workers": _workers(cluster, observed.topology.clusters[name].metrics, observed.workers),
            }
            for name, cluster in clusters.items()
            if name in observed.topology.clusters
        },
    }


def watched_changed(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> frozenset[str]:
    """The watched connectors whose state is another than in the document before."""
    was, states = _watched_down(before or {}), _watched_down(now)
    return frozenset(name for name in {*was, *states} if was.get(name) != states.get(name))


def _watched_down(document: Mapping[str, Any]) -> dict[str, str]:
    clusters = (document.get("watched") or {}).values()
    return {name: state for cluster in clusters for name, state in cluster["down"].items()}


def age(document: Mapping[str, Any] | None, now: datetime) -> float | None:
    """Seconds since the pass of the document; None when there was none, or its time cannot be read."""
    try:
        return (now - datetime.fromisoformat((document or {})["at"])).total_seconds()
    except (KeyError, TypeError, ValueError):
        return None


def _by_verb(outcomes: Iterable[ActionOutcome], status: ActionStatus) -> dict[str, int]:
    return dict(Counter(outcome.action.kind.verb for outcome in outcomes if outcome.status is status))


def _datasets(observed: ObservedState, health: Mapping[str, DatasetHealth]) -> dict[str, Any]:
    lags = lags_of(observed)
    document: dict[str, Any] = {}
    for name, dataset in health.items():
        shards = [shard.name for shard in observed.topology.shards.get(name, ())]
        states = Counter(down.state for down in dataset.down)
        document[name] = {
            "shards": dataset.shards,
            "up": dataset.up,
            "states": {"RUNNING": dataset.up, **states},
            "lag_s": quantiles([lags[shard] for shard in shards if shard in lags]),
        }
        if observed.heartbeats is not None:
            ages = (observed.heartbeats.age(shard) for shard in shards)
            document[name]["beat_s"] = quantiles([seconds for seconds in ages if seconds is not None])
    return document


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """`{"0.5": ..., "0.9": ..., "0.99": ..., "1.0": ...}` by nearest rank; empty for no values."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return {str(q): round(ordered[round(q * last)], 3) for q in _QUANTILES} if ordered else {}


def _workers(
    cluster: ObservedCluster, urls: Mapping[str, str], workers: Mapping[str, ObservedWorker]
) -> dict[str, dict[str, Any]]:
    tasks: Counter[str] = Counter(dict.fromkeys(urls, 0))
    for connector in (cluster.connectors or {}).values():
        tasks.update(task.worker for task in connector.tasks)
    document: dict[str, dict[str, Any]] = {}
    for name in sorted(tasks):
        if not name:
            continue  # a task without a worker
        document[name] = {"tasks": tasks[name]}
        metrics = workers.get(name)
        if metrics is None:
            continue
        document[name]["answers"] = metrics.problem is None
        if metrics.heap_used is not None and metrics.heap_max:
            document[name]["heap"] = round(metrics.heap_used / metrics.heap_max, 3)
        if metrics.rebalances is not None:
            document[name]["rebalances"] = metrics.rebalances
    return document
