"""`cdc-platform status`: what runs, what does not, why, and what happens next."""

from __future__ import annotations

import json
import sys
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from cdc_platform.model.observed import ObservedConnector, ObservedState, ObservedWorker
from cdc_platform.planning.inputs import Planned
from cdc_platform.reconciler import run_pass as reconciler
from cdc_platform.reconciler.process_memory import large_state
from cdc_platform.reconciler.report import DatasetHealth, health_of
from cdc_platform.reconciler.source_round import of_dataset
from cdc_platform.settings import Settings
from cdc_platform.snapshots.summary import dataset_summary, sentence, shard_summary
from cdc_platform.wiring import open_platform


@click.command()
@click.argument("dataset", required=False)
@click.argument("shard", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(dataset: str | None, shard: str | None, as_json: bool) -> None:
    """Show the state of all datasets, of one DATASET, or of one SHARD.

    Exits 0 when every shard shown is up, 2 when one is not, 1 on an error.
    """
    with open_platform(Settings.load()) as platform:
        with large_state():
            observed, planned = reconciler.plan_pass(platform, asked=of_dataset(dataset) if dataset else None)
        owner = platform.topology.lock_owner()
        records = platform.state.read()
    health = health_of(observed.topology, planned, observed.clusters)
    if dataset is not None:
        observed.topology.dataset(dataset)
        health = {dataset: health[dataset]}
    if dataset is not None and shard is not None:
        name = observed.topology.shard(dataset, shard).name
        document = _shard_document(observed, planned, health[dataset], name)
        document["bootstrap"] = shard_summary(records, observed.topology.dataset(dataset), shard)
        click.echo(json.dumps(document, indent=2) if as_json else _shard_text(document))
        sys.exit(0 if document["up"] else 2)
    topology = observed.topology
    bootstrap = {
        name: dataset_summary(records, topology.dataset(name), topology.shards.get(name, ())) for name in health
    }
    if as_json:
        click.echo(json.dumps(_document(health, bootstrap, observed, planned, owner), indent=2))
    else:
        _print(health, bootstrap, observed, planned, owner)
    sys.exit(0 if all(h.up == h.shards for h in health.values()) else 2)


def _document(
    health: dict[str, DatasetHealth],
    bootstrap: dict[str, dict[str, Any]],
    observed: ObservedState,
    planned: Planned,
    owner: str | None,
) -> dict[str, Any]:
    return {
        "pass": owner,
        "clusters": {
            name: {"reachable": c.known, "problem": c.problem, "connectors": len(c.connectors or {})}
            for name, c in observed.clusters.items()
        },
        "datasets": {
            name: {
                "shards": h.shards,
                "up": h.up,
                "down": [{"shard": d.shard, "state": d.state, "reason": d.reason} for d in h.down],
                "bootstrap": bootstrap[name],
            }
            for name, h in health.items()
        },
        "workers": {
            worker: {
                "problem": seen.problem,
                "tasks": seen.tasks,
                "heap_used": seen.heap_used,
                "heap_max": seen.heap_max,
                "rebalances": seen.rebalances,
            }
            for worker, seen in sorted(observed.workers.items())
        },
        "plan": planned.plan.sentence(),
        "refusals": [{"scope": r.scope, "reason": r.reason} for r in planned.plan.refusals],
        "findings": [{"subject": f.subject, "text": f.text} for f in planned.plan.findings],
    }


def _print(
    health: dict[str, DatasetHealth],
    bootstrap: dict[str, dict[str, Any]],
    observed: ObservedState,
    planned: Planned,
    owner: str | None,
) -> None:
    console = Console()
    table = Table("dataset", "shards", "up", "down")
    for name, h in health.items():
        table.add_row(name, str(h.shards), str(h.up), str(len(h.down)))
    console.print(table)
    for name, cluster in sorted(observed.clusters.items()):
        state = f"{len(cluster.connectors or {})} connectors" if cluster.known else f"unknown: {cluster.problem}"
        console.print(f"cluster {name}: {state}", highlight=False, soft_wrap=True)
    for worker, found in sorted(observed.workers.items()):
        console.print(f"worker {worker}: {_worker(found)}", highlight=False, markup=False, soft_wrap=True)
    for h in health.values():
        for down in h.down[:20]:
            console.print(f"{down.shard} is {down.state}: {down.reason}", highlight=False, markup=False, soft_wrap=True)
        if len(h.down) > 20:
            console.print(f"... and {len(h.down) - 20} more of {h.dataset}", highlight=False, soft_wrap=True)
    for name, summary in bootstrap.items():
        console.print(f"bootstrap of {name}: {sentence(summary)}", highlight=False, markup=False, soft_wrap=True)
    for refusal in planned.plan.refusals[:20]:
        console.print(f"refused for {refusal.scope}: {refusal.reason}", highlight=False, markup=False, soft_wrap=True)
    for finding in planned.plan.findings[:20]:
        console.print(f"{finding.subject}: {finding.text}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"A pass runs now ({owner})." if owner else "No pass runs now.", highlight=False, soft_wrap=True)
    console.print(f"Next: {planned.plan.sentence()}", highlight=False, markup=False, soft_wrap=True)


def _shard_document(observed: ObservedState, planned: Planned, health: DatasetHealth, name: str) -> dict[str, Any]:
    down = next((d for d in health.down if d.shard == name), None)
    home = planned.homes.get(name)
    seen: ObservedConnector | None = None
    if home is not None and home in observed.clusters:
        seen = (observed.clusters[home].connectors or {}).get(name)
    dataset, _, shard_id = name.partition(".")
    shard = observed.topology.shard(dataset, shard_id)
    waiting = planned.waiting.get(name)
    worker = seen.tasks[0].worker if seen and seen.tasks else None
    measured = observed.workers.get(worker) if worker else None
    incidents = [t for t in planned.incidents.values() if name in t.sample or t.place in (str(shard.leader), worker)]
    return {
        "shard": name,
        "up": down is None,
        "state": down.state if down else "RUNNING",
        "reason": down.reason if down else None,
        "cluster": home,
        "leader": str(shard.leader),
        "generation": shard.generation,
        "heartbeat_age_s": observed.heartbeats.age(name) if observed.heartbeats else None,
        "lag_ms": measured.lag_ms.get(name) if measured else None,
        "tasks": [{"id": t.id, "state": t.state, "worker": t.worker} for t in (seen.tasks if seen else ())],
        "trace": next((t.trace for t in (seen.tasks if seen else ()) if t.trace), seen.trace if seen else None),
        "next_restart": waiting.until.isoformat() if waiting and waiting.until else None,
        "next": [a.sentence() for a in planned.plan.actions if getattr(a, "name", None) == name],
        "troubles": [{"sentence": t.sentence(), "since": t.since.isoformat(), "advice": t.advice} for t in incidents],
        "findings": [f.text for f in planned.plan.findings if f.subject in (name, dataset)],
    }


def _shard_text(document: dict[str, Any]) -> str:
    tasks = ", ".join(f"task {t['id']} {t['state']} on {t['worker']}" for t in document["tasks"]) or "no task"
    lines = [
        f"{document['shard']} is {document['state']}{': ' + document['reason'] if document['reason'] else ''}",
        f"cluster {document['cluster']}, {tasks}",
        f"leader {document['leader']}, generation {document['generation']}",
    ]
    beat, lag = document["heartbeat_age_s"], document["lag_ms"]
    lines.append(
        f"last heartbeat {'unknown, or longer ago than is read' if beat is None else f'{beat:.0f} s ago'}, "
        f"behind its source {'unknown' if lag is None else f'{lag / 1000:.1f} s'}"
    )
    lines += [f"table {table}: {_mark(mark)}" for table, mark in document["bootstrap"].items()]
    lines += [f"trouble: {t['sentence']}, since {t['since']}. {t['advice']}" for t in document["troubles"]]
    lines += [f"to know: {text}" for text in document["findings"]]
    lines += [f"next: {text}" for text in document["next"]]
    if document["next_restart"]:
        lines.append(f"next: it is not restarted before {document['next_restart']}")
    elif not document["next"]:
        lines.append("next: nothing to change" if document["up"] else "next: see its reason; the next pass looks again")
    if document["trace"]:
        lines += ["trace:", document["trace"]]
    return "\n".join(lines)


def _mark(mark: dict[str, Any] | None) -> str:
    """A watermark's document in one sentence."""
    if mark is None:
        return "no bootstrap on record"
    begin = mark["position"] or "the first committed offset"
    text = f"{mark['mode']} by run {mark['run']} at {mark['since']}, from {begin} on"
    if mark["complete"]:
        text += f", whole since {mark['complete']}"
    if mark["rows"] is not None:
        text += f", {mark['rows']:,} rows read"
    if mark["hole"]:
        text += (
            f"; no stream saw the changes from {mark['hole']['since'] or 'an unknown place'} to {mark['hole']['until']}"
        )
    return text + (f"; last backfill {mark['backfilled']}" if mark["backfilled"] else "")


def _worker(seen: ObservedWorker) -> str:
    if seen.problem:
        return f"unknown: {seen.problem}"
    heap = ""
    if seen.heap_used is not None and seen.heap_max:
        heap = f", heap {seen.heap_used >> 20} of {seen.heap_max >> 20} MiB"
    return f"{seen.tasks if seen.tasks is not None else '?'} tasks{heap}"
