"""Summaries of snapshot runs and watermarks, counted from the state topic's records. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from cdc_platform.model.topology import Dataset, Shard
from cdc_platform.snapshots.run_records import Phase, Records, Run, runs, shard_states, watermark, watermarks


def dataset_summary(records: Records, dataset: Dataset, shards: Iterable[Shard]) -> dict[str, Any]:
    """How many shards of each table are bootstrapped, whole, and have a hole; and the runs that are not finished."""
    ids = {shard.id for shard in shards}
    known = {pair: mark for pair, mark in watermarks(records, dataset.name).items() if pair[1] in ids}
    tables = {}
    for table in dataset.tables:
        own = [mark for (name, _), mark in known.items() if name == table.name]
        tables[table.name] = {
            "shards": len(ids),
            "bootstrapped": len(own),
            "whole": sum(mark.complete is not None for mark in own),
            "holes": sum(mark.hole is not None for mark in own),
            "rows": sum(mark.rows or 0 for mark in own),
            "modes": dict(Counter(str(mark.mode) for mark in own)),
        }
    return {"tables": tables, "runs": [run_summary(records, run) for run in _open(records, dataset.name)]}


def shard_summary(records: Records, dataset: Dataset, shard: str) -> dict[str, Any]:
    """Table to its watermark as a document; None: never bootstrapped."""
    found: dict[str, Any] = {}
    for table in dataset.tables:
        mark = watermark(records, dataset.name, table.name, shard)
        found[table.name] = None if mark is None else mark.document()
    return found


def run_summary(records: Records, run: Run) -> dict[str, Any]:
    """A run with its shards by phase, its rows and the errors of those that failed."""
    states = shard_states(records, run.id)
    phases = Counter(str(states[shard].phase) if shard in states else str(Phase.WAITING) for shard in run.shards)
    if run.finished is not None:  # of its shards only the failed ones are still on record
        phases = Counter({str(Phase.DONE): len(run.shards) - run.failed, str(Phase.FAILED): run.failed})
    failed = {shard: state.error for shard, state in states.items() if state.phase is Phase.FAILED}
    return {
        "run": run.id,
        "kind": str(run.kind),
        "dataset": run.dataset,
        "mode": str(run.mode) if run.mode else None,
        "tables": list(run.tables),
        "created": run.created.isoformat(),
        "finished": run.finished.isoformat() if run.finished else None,
        "shards": len(run.shards),
        "phases": {phase: count for phase, count in phases.items() if count},
        "rows": sum(sum(state.rows.values()) for state in states.values()),
        "failed": failed,
    }


def all_runs(records: Records) -> list[dict[str, Any]]:
    """All runs on record, the newest first."""
    found = sorted(runs(records).values(), key=lambda run: run.created, reverse=True)
    return [run_summary(records, run) for run in found]


def pending(records: Records, dataset: Dataset, shards: Iterable[Shard]) -> dict[str, tuple[str, ...]]:
    """Shard id to its tables that were never bootstrapped; shards in an unfinished run are left out."""
    known = watermarks(records, dataset.name)
    busy = {shard for run in _open(records, dataset.name) for shard in run.shards}
    found: dict[str, tuple[str, ...]] = {}
    for shard in sorted(shards, key=lambda shard: shard.id):
        new = tuple(table.name for table in dataset.tables if (table.name, shard.id) not in known)
        if new and shard.id not in busy:
            found[shard.id] = new
    return found


def sentence(summary: Mapping[str, Any]) -> str:
    """A dataset's summary in one sentence."""
    parts = []
    for table, counts in summary["tables"].items():
        text = f"{table}: {counts['bootstrapped']} of {counts['shards']} shards bootstrapped, {counts['whole']} whole"
        parts.append(text + (f", {counts['holes']} with a hole" if counts["holes"] else ""))
    for run in summary["runs"]:
        phases = ", ".join(f"{count} {phase}" for phase, count in sorted(run["phases"].items()))
        parts.append(f"{run['kind']} {run['run']}: {phases}")
    return "; ".join(parts)


def _open(records: Records, dataset: str) -> list[Run]:
    return [run for run in runs(records).values() if run.finished is None and run.dataset == dataset]
