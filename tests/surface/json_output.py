"""What `--json` prints, command by command: keys and types, by the code that prints, of values with every field."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import msgspec
from click.testing import CliRunner

from cdc_platform.cli import plan_and_apply as reconcile
from cdc_platform.cli import run_progress as snapshot_runs
from cdc_platform.cli import status, verify
from cdc_platform.cli import topology as topology_command
from cdc_platform.cli.repair import _print_plan as print_repair
from cdc_platform.cli.set_leader import _say as say_leader
from cdc_platform.cli.set_leader import _tell as tell_discovery
from cdc_platform.cli.stack import _show as show_stack
from cdc_platform.cli.worker_properties import worker_properties
from cdc_platform.documents.edits import Change
from cdc_platform.failover.change_leader import Discovery
from cdc_platform.failover.preflight import PreflightItem
from cdc_platform.local.demo.summary import Summary
from cdc_platform.local.services import ServiceStatus
from cdc_platform.model.observed import (
    ObservedBeats,
    ObservedCluster,
    ObservedConnector,
    ObservedHeartbeats,
    ObservedState,
    ObservedWorker,
)
from cdc_platform.model.topology import Address, BootstrapMode, Limits, Pause, Problem, Table, TopicSpec, Topology
from cdc_platform.planning.inputs import Planned
from cdc_platform.planning.memory import RecordChanges
from cdc_platform.planning.plan import Plan
from cdc_platform.planning.rendering import to_json
from cdc_platform.reconciler.report import DatasetHealth, PassReport
from cdc_platform.snapshots.progress_events import ShardDone
from cdc_platform.snapshots.request import Request, RunKind
from cdc_platform.snapshots.run_records import Run, ShardState, Watermark
from cdc_platform.snapshots.summary import all_runs, dataset_summary, shard_summary
from cdc_platform.snapshots.table_progress import TableLine
from cdc_platform.verification.proof.verdicts import ShardVerdict
from cdc_platform.verification.repair.reemit import RepairReport
from cdc_platform.verification.repair.repair_plan import RepairPlan
from tests.defs.harness import dataset, shard, topology
from tests.surface.golden import merged, shape
from tests.surface.samples import NOW, both, sample

LEADER = Address("db-0", 3306)
REQUEST = Request(kind=RunKind.BACKFILL, dataset="pins", tables=("pins",), shards=("00000",), condition="id > 1")
# What takes not just any text.
GIVEN: Mapping[Any, Any] = {
    Address: LEADER,
    Topology: topology(),
    Request: REQUEST,
    RecordChanges: RecordChanges(),
}
SHARD = "pins.00000"


def shapes() -> dict[str, Any]:
    """Command line to the shape of what it prints."""
    return {
        "plan": shape(to_json(sample(Plan))),
        "apply": _of([reconcile._report_json(one) for one in both(PassReport, GIVEN)]),
        "status": _of(map(_status, (False, True))),
        "status DATASET SHARD": _of(map(_shard_status, (False, True))),
        "verify": {
            "run_id": "str",
            "verdict": "str",
            "shards": [_of(verify._document(one) for one in both(ShardVerdict))],
        },
        "repair": _of(_printed(print_repair, plan, True) for plan in both(RepairPlan)),
        "repair --apply": _of(_encoded(report.document()) for report in both(RepairReport)),
        "topology show": shape(topology_command._document(whole_topology(), None)),
        "topology import": _of([[asdict(sample(Change))]]),
        "topology set-leader": _of(_set_leader(item) for item in both(PreflightItem)),
        "topology discover": _of([_printed(tell_discovery, sample(Discovery, given=GIVEN), {SHARD: "moved"}, True)]),
        "bootstrap, backfill": _of(
            snapshot_runs._document(run, [one], 1.5) for run in _runs() for one in both(ShardDone)
        ),
        "snapshot show RUN": {"tables": [_of(asdict(line) for line in both(TableLine))]},
        "snapshot list": {"runs": _of([all_runs(_snapshots())])},
        "stack up, stack status": _of([_stack()]),
        "demo": shape(sample(Summary).document()),
        "worker-properties": _of([_worker_properties()]),
    }


def _of(values: Any) -> Any:
    """One shape of several values, after a way through JSON."""
    return merged([shape(json.loads(json.dumps(value))) for value in values])


def _encoded(value: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value))


def picture(*, bare: bool = False) -> ObservedState:
    """One shard that is captured, in one cluster with one worker."""
    connector = replace(sample(ObservedConnector, bare=bare), name=SHARD)
    return ObservedState(
        taken_at=NOW,
        topology=topology(pins=1, orders=0),
        clusters={"main": replace(sample(ObservedCluster), name="main", connectors={SHARD: connector})},
        topics={},
        heartbeats=None
        if bare
        else ObservedHeartbeats(since=NOW, newest=NOW, beats={SHARD: ObservedBeats(last=NOW, senders={})}),
        workers={"text": replace(sample(ObservedWorker, bare=bare), lag_ms={} if bare else {SHARD: 1})},
    )


def _planned(bare: bool) -> Planned:
    planned: Planned = sample(Planned, bare=bare, given=GIVEN)
    incidents = {key: replace(one, sample=(SHARD,)) for key, one in planned.incidents.items()}
    findings = tuple(replace(one, subject=SHARD) for one in planned.plan.findings)
    actions: Any = planned.plan.actions
    actions = tuple(replace(one, name=SHARD) if hasattr(one, "name") else one for one in actions)
    return replace(
        planned,
        plan=replace(planned.plan, findings=findings, actions=actions),
        homes={SHARD: "main"},
        waiting={SHARD: next(iter(planned.waiting.values()))},
        incidents=incidents,
    )


def _status(bare: bool) -> Any:
    summary = {"pins": dataset_summary(_snapshots(), dataset(), [shard("pins", 0)])}
    health = {"pins": sample(DatasetHealth)}
    last = None if bare else {"at": NOW.isoformat(), "age_s": 1.0, "overdue": False}
    passes = {"running": None if bare else "owner", "last": last}
    return status._document(health, summary, picture(bare=bare), _planned(bare), passes)


def _shard_status(bare: bool) -> Any:
    down = replace(sample(DatasetHealth).down[0], shard="other" if bare else SHARD)
    health = replace(sample(DatasetHealth), down=(down,))
    document = status._shard_document(picture(bare=bare), _planned(bare), health, SHARD)
    return document | {"bootstrap": shard_summary({} if bare else _snapshots(), dataset(), "00000")}


def _runs() -> list[Run]:
    run = Run(id="RUN", request=REQUEST, mode=sample(Watermark).mode, tables=("pins",), shards=("00000",), created=NOW)
    return [run, replace(run, id="RUN2", finished=NOW, mode=None)]


def _snapshots() -> dict[str, Any]:
    """Records of a run that goes on, one that is finished with a failed shard, and a watermark."""
    going, ended = _runs()
    failed = replace(sample(ShardState), phase=next(p for p in type(sample(ShardState).phase) if p == "failed"))
    mark = replace(sample(Watermark), dataset="pins", table="pins", shard="00000", offset={})
    return {
        going.key: going.document(),
        going.shard_key("00000"): failed.document(),
        ended.key: ended.document(),
        mark.key: mark.document(),
    }


def whole_topology() -> Topology:
    pause = Pause(reason="work", author="ann", until=NOW + timedelta(days=1))
    known = topology(pins=1, orders=0)
    pins = replace(
        known.datasets["pins"],
        tables=(Table(name="pins", schema="public", key=("id",)), Table(name="boards")),
        topic_pattern="{dataset}.{table}",
        topics=TopicSpec(partitions=1, replication=1, config={"retention.ms": "1"}),
        bootstrap=BootstrapMode.SNAPSHOT,
        connector={"max.batch.size": "1"},
        limits=sample(Limits),
        verification={"samples": 1},
        pause=pause,
    )
    cluster = replace(
        known.clusters["main"],
        leader_dir="/leaders",
        labels={"zone": "a"},
        metrics={"w:8083": "http://w"},
        draining=True,
    )
    return replace(
        known,
        clusters={"main": cluster},
        datasets={"pins": pins},
        shards={"pins": (replace(known.shards["pins"][0], generation=7, pause=pause, replicas=(LEADER,)),)},
        pause=pause,
        problems=(Problem("shard", SHARD, "text"),),
    )


def _set_leader(item: PreflightItem) -> Any:
    return _printed(say_leader, True, shard("pins", 0), shard("pins", 1), (item,), "text")


def _stack() -> Any:
    running = SimpleNamespace(
        directory=Path("/stack"),
        settings_file=Path("/stack/cdc-platform.toml"),
        connect_urls=("http://127.0.0.1:8083",),
        mysql_version="9.7.4",
        status=lambda: both(ServiceStatus),
    )
    return _printed(show_stack, running, True, None)


def _worker_properties() -> Any:
    found = CliRunner().invoke(worker_properties, ["main", "--json"], catch_exceptions=False)
    return json.loads(found.output)


def _printed(show: Callable[..., None], *arguments: Any) -> Any:
    """What a function prints as JSON."""

    command = click.Command("show", callback=lambda: show(*arguments))
    return json.loads(CliRunner().invoke(command, catch_exceptions=False).output)
