"""`cdc-platform status`: what runs, what does not, why, and what happens next."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import click
import msgspec
from rich.table import Table

from cdc_platform.cli.output import echo
from cdc_platform.cli.safe_console import SafeConsole
from cdc_platform.model.observed import ObservedConnector, ObservedState, ObservedWorker
from cdc_platform.planning.inputs import Planned
from cdc_platform.reconciler import last_pass
from cdc_platform.reconciler import run_pass as reconciler
from cdc_platform.reconciler.login_checks import ask_leaders
from cdc_platform.reconciler.pending_changes import REPORT_SECONDS
from cdc_platform.reconciler.process_memory import large_state
from cdc_platform.reconciler.report import DatasetHealth, health_of, watched_health
from cdc_platform.reconciler.source_round import of_dataset
from cdc_platform.settings import Settings
from cdc_platform.snapshots.progress_events import duration
from cdc_platform.snapshots.run_records import RowCount
from cdc_platform.snapshots.summary import dataset_summary, sentence, shard_summary
from cdc_platform.wiring import open_platform

# A pass is due after `REPORT_SECONDS` at the latest, and takes some time itself.
_OVERDUE = 2 * REPORT_SECONDS


@click.command()
@click.argument("dataset", required=False)
@click.argument("shards", metavar="[SHARD]...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(dataset: str | None, shards: tuple[str, ...], as_json: bool) -> None:
    """Show the state of all datasets, of one DATASET, or of some SHARDs (ids and ranges).

    First how long ago the last pass of the control plane was. With --json one SHARD is an object, several are the
    list `shards` of one. Exits 0 when every shard shown is up, 2 when one is not or a dataset cannot be read, 1 on an
    error.
    """
    with open_platform(Settings.load()) as platform:
        with large_state():
            observed, planned = reconciler.plan_pass(platform, asked=of_dataset(dataset) if dataset else None)
        topology = observed.topology
        if dataset is not None:
            topology.dataset(dataset)
        chosen = topology.choose(dataset, shards) if dataset is not None and shards else ()
        records = platform.state.read()
        passes = passes_of(records.get(last_pass.KEY), platform.topology.lock_owner())
        health = health_of(topology, planned, observed.clusters)
        if dataset is not None:
            health = {dataset: health[dataset]}
        if chosen:
            health = {name: _only(h, [shard.name for shard in chosen]) for name, h in health.items()}
        health = ask_leaders(platform, topology, health)
    if dataset is not None and chosen:
        documents = [_shard_document(observed, planned, health[dataset], shard.name) for shard in chosen]
        for document, shard in zip(documents, chosen, strict=True):
            document["bootstrap"] = shard_summary(records, topology.dataset(dataset), shard.id)
        if as_json:
            echo(json.dumps(documents[0] if len(documents) == 1 else {"shards": documents}, indent=2))
        else:
            echo("\n\n".join([passes_sentence(passes), *map(_shard_text, documents)]))
        sys.exit(0 if all(document["up"] for document in documents) else 2)
    bootstrap = {
        name: dataset_summary(records, topology.dataset(name), topology.shards.get(name, ())) for name in health
    }
    watched = watched_health(topology, planned, observed.clusters) if dataset is None else {}
    if as_json:
        document = _document(health, bootstrap, observed, planned, passes)
        echo(json.dumps({**document, "watched": {name: _health(h) for name, h in watched.items()}}, indent=2))
    else:
        _print(health, bootstrap, observed, planned, passes, watched)
    unread = dataset is None and any(p.kind == "dataset" and p.name not in topology.datasets for p in topology.problems)
    whole = [*health.values(), *(watched.values() if dataset is None else ())]
    sys.exit(0 if not unread and all(h.up == h.shards for h in whole) else 2)


def passes_of(last: Mapping[str, Any] | None, owner: str | None) -> dict[str, Any]:
    """`running`: who makes a pass now. `last`: when the last one looked, and whether there should have been another."""
    age = last_pass.age(last, datetime.now(UTC))
    found = last and {"at": last["at"], "age_s": age and round(age, 1), "overdue": age is None or age > _OVERDUE}
    return {"running": owner, "last": found or None}


def passes_sentence(passes: Mapping[str, Any]) -> str:
    """How long ago the last pass was, and what that means."""
    last, now = passes["last"], f" A pass runs now ({passes['running']})." if passes["running"] else ""
    if last is None:
        return f"No pass has been made yet: `cdc-platform apply` makes one, Dagster's daemon makes them by itself.{now}"
    age = "at an unknown time" if last["age_s"] is None else f"{duration(max(0.0, last['age_s']))} ago"
    text = f"Last pass: {age} ({last['at'][:19].replace('T', ' ')}Z).{now}"
    if not last["overdue"]:
        return text
    return (
        f"{text} The daemon makes one every {REPORT_SECONDS / 60:.0f} minutes at least, so it does not run, or its "
        "passes fail: nothing is restarted or changed until it does. See that Dagster's daemon runs and that "
        "reconcile_sensor is on; `cdc-platform apply` makes one pass by hand."
    )


def _only(health: DatasetHealth, shards: Collection[str]) -> DatasetHealth:
    down = tuple(found for found in health.down if found.shard in shards)
    return replace(health, shards=len(shards), up=len(shards) - len(down), down=down)


def _document(
    health: dict[str, DatasetHealth],
    bootstrap: dict[str, dict[str, Any]],
    observed: ObservedState,
    planned: Planned,
    passes: Mapping[str, Any],
) -> dict[str, Any]:
    return {
        "pass": passes["running"],
        "last_pass": passes["last"],
        "clusters": {
            name: {"reachable": c.known, "problem": c.problem, "connectors": len(c.connectors or {})}
            for name, c in observed.clusters.items()
        },
        "datasets": {
            name: {
                "shards": h.shards,
                **_health(h),
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


def _health(health: DatasetHealth) -> dict[str, Any]:
    down = [{"shard": d.shard, "state": d.state, "reason": d.reason} for d in health.down]
    return {"up": health.up, "down": down}


def _print(
    health: dict[str, DatasetHealth],
    bootstrap: dict[str, dict[str, Any]],
    observed: ObservedState,
    planned: Planned,
    passes: Mapping[str, Any],
    watched: Mapping[str, DatasetHealth],
) -> None:
    console = SafeConsole()
    console.print(passes_sentence(passes), highlight=False, markup=False, soft_wrap=True)
    table = Table("dataset", "shards", "up", "down")
    for name, h in health.items():
        table.add_row(name, str(h.shards), str(h.up), str(len(h.down)))
    console.print(table)
    for name, cluster in sorted(observed.clusters.items()):
        state = f"{len(cluster.connectors or {})} connectors" if cluster.known else f"unknown: {cluster.problem}"
        console.print(f"cluster {name}: {state}", highlight=False, soft_wrap=True)
    for worker, found in sorted(observed.workers.items()):
        console.print(f"worker {worker}: {_worker(found)}", highlight=False, markup=False, soft_wrap=True)
    for name, h in watched.items():
        console.print(f"{name}: {h.up} of {h.shards} watched connectors up", highlight=False, markup=False)
    for h in (*health.values(), *watched.values()):
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
        "heartbeat": _no_beat(observed, name),
        "lag_ms": measured.lag_ms.get(name) if measured else None,
        "tasks": [{"id": t.id, "state": t.state, "worker": t.worker} for t in (seen.tasks if seen else ())],
        "trace": next((t.trace for t in (seen.tasks if seen else ()) if t.trace), seen.trace if seen else None),
        "next_restart": waiting.until.isoformat() if waiting and waiting.until else None,
        "next": [a.sentence() for a in planned.plan.actions if getattr(a, "name", None) == name],
        "troubles": [{"sentence": t.sentence(), "since": t.since.isoformat(), "advice": t.advice} for t in incidents],
        "findings": [f.text for f in planned.plan.findings if f.subject in (name, dataset)],
    }


def _no_beat(observed: ObservedState, name: str) -> str | None:
    """What is known of a shard without a heartbeat: they are read from a moment on, and not further back."""
    beats = observed.heartbeats
    if beats is None or beats.newest is None or beats.age(name) is not None:
        return None if beats is not None and beats.age(name) is not None else "unknown"
    return f"more than {(beats.newest - beats.since).total_seconds():.0f} s ago, or never"


def _shard_text(document: dict[str, Any]) -> str:
    tasks = ", ".join(f"task {t['id']} {t['state']} on {t['worker']}" for t in document["tasks"]) or "no task"
    lines = [
        f"{document['shard']} is {document['state']}{': ' + document['reason'] if document['reason'] else ''}",
        f"cluster {document['cluster']}, {tasks}",
        f"leader {document['leader']}, generation {document['generation']}",
    ]
    beat, lag = document["heartbeat_age_s"], document["lag_ms"]
    lines.append(
        f"last heartbeat {document['heartbeat'] if beat is None else f'{beat:.0f} s ago'}, "
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
    begin = f"position {mark['position']}" if mark["position"] else "its first committed offset"
    text = f"its rows come from a bootstrap by mode {mark['mode']} (run {mark['run']}, {_time(mark['since'])}); "
    text += f"its changes are streamed from {begin} on"
    if mark["complete"]:
        text += f", whole since {_time(mark['complete'])}"
    if mark["count"] is not None:
        text += f", {msgspec.convert(mark['count'], RowCount).sentence()}"
    elif mark["rows"] is not None:
        text += f", {mark['rows']:,} rows read"
    if mark["hole"]:
        text += (
            f"; no stream saw the changes from {mark['hole']['since'] or 'an unknown place'} to {mark['hole']['until']}"
        )
    return text + (f"; last backfill {mark['backfilled']}" if mark["backfilled"] else "")


def _time(iso: str) -> str:
    return f"{iso[:19].replace('T', ' ')}Z"


def _worker(seen: ObservedWorker) -> str:
    if seen.problem:
        return f"unknown: {seen.problem}"
    heap = ""
    if seen.heap_used is not None and seen.heap_max:
        heap = f", heap {seen.heap_used >> 20} of {seen.heap_max >> 20} MiB"
    return f"{seen.tasks if seen.tasks is not None else '?'} tasks{heap}"
