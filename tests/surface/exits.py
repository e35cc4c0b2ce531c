"""Exit codes: each command run to each of its ends, with the outside harness replaced."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest import mock

from click.testing import CliRunner

from cdc_platform.cli.main import main
from cdc_platform.failover.change_leader import Discovery
from cdc_platform.failover.preflight import PreflightItem
from cdc_platform.local.demo.summary import DagsterSummary, Summary
from cdc_platform.local.services import ServiceStatus
from cdc_platform.planning.inputs import Planned
from cdc_platform.planning.plan import Finding, Plan, Refusal
from cdc_platform.reconciler.report import ActionStatus, PassReport
from cdc_platform.settings import Settings
from cdc_platform.snapshots.progress_events import ShardDone
from cdc_platform.snapshots.request import Request, RunKind
from cdc_platform.snapshots.run_records import Run
from cdc_platform.verification.proof.verdicts import ShardVerdict, Verdict
from cdc_platform.verification.repair.reemit import RepairReport
from cdc_platform.verification.repair.repair_plan import RepairPlan
from tests.defs.harness import Harness, topology
from tests.surface.json_output import GIVEN, picture
from tests.surface.samples import NOW, sample


def codes() -> dict[str, dict[str, Code]]:
    """Command to situation to exit code."""
    return {
        "any": _any(),
        "plan": _plan(),
        "apply": _apply(),
        "status": _status(),
        "verify": _verify(),
        "repair": _repair(),
        "bootstrap, backfill": _snapshots(),
        "topology, pause, resume": _topology(),
        "topology set-leader": _set_leader(),
        "topology discover": _discover(),
        "stack status": _stack_status(),
        "demo": _demo(),
    }


Code = int | str


def _exit(*arguments: str, patched: Mapping[str, Any] | None = None) -> Code:
    """The exit code of one call, told apart where it comes with click's usage.

    `patched` is dotted name to what stands there meanwhile.
    """
    with ExitStack() as stack:
        for name, value in (patched or {}).items():
            stack.enter_context(mock.patch(name, value))
        found = CliRunner().invoke(main, list(arguments))
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return f"{found.exit_code}, with the usage" if found.exit_code and "Usage: " in found.output else found.exit_code


@contextmanager
def _world(*_: Any, **__: Any) -> Iterator[Any]:
    """Clients of a platform in memory."""
    harness = Harness(settings=Settings(audit_dir="audit"))
    harness.put(topology(pins=1, orders=0))
    with harness.platform() as platform:
        yield platform


@contextmanager
def _nothing(*_: Any, **__: Any) -> Iterator[None]:
    yield None


def _any() -> dict[str, Code]:
    return {
        "help": _exit("--help"),
        "version": _exit("--version"),
        "unknown command": _exit("nonsense"),
        "unknown option": _exit("plan", "--nonsense"),
        "missing argument": _exit("verify"),
        "an error, told in one sentence": _exit("topology", "import", "--dry-run", "/dev/null"),
        "a file that is not there": _exit("topology", "import", "/nowhere/topology.yaml"),
        "a setting that is wrong": _with_environment({"CDC_PLATFORM_BATCH_SIZE": "many"}, "plan"),
    }


def _with_environment(variables: Mapping[str, str], *arguments: str) -> Code:
    with mock.patch.dict("os.environ", variables):
        return _exit(*arguments)


def _planned(plan: Plan) -> Planned:
    found: Planned = sample(Planned, given=GIVEN)
    return replace(found, plan=plan, unwell={}, waiting={})


def _plan() -> dict[str, Code]:
    action = sample(Plan).actions[0]
    plans = {
        "nothing to change": Plan(),
        "nothing to change, something to know": Plan(findings=(sample(Finding),)),
        "something to change": Plan(actions=(action,)),
        "a part is refused": Plan(actions=(action,), refusals=(sample(Refusal),)),
    }
    return {
        name: _exit(
            "plan",
            patched={
                "cdc_platform.cli.plan_and_apply.open_platform": _world,
                "cdc_platform.reconciler.run_pass.plan_pass": lambda *_, found=plan, **__: (picture(), _planned(found)),
            },
        )
        for name, plan in plans.items()
    }


def _apply() -> dict[str, Code]:
    report = replace(sample(PassReport, given=GIVEN), plan=Plan())
    done, failed = (
        tuple(replace(one, status=word) for one in report.outcomes) for word in (ActionStatus.DONE, ActionStatus.FAILED)
    )
    reports = {
        "done": replace(report, outcomes=done),
        "an action failed": replace(report, outcomes=failed),
        "a part is refused": replace(report, outcomes=done, plan=Plan(refusals=(sample(Refusal),))),
    }
    return {
        name: _exit(
            "apply",
            patched={
                "cdc_platform.cli.plan_and_apply.open_platform": _world,
                "cdc_platform.reconciler.run_pass.reconcile": lambda *_, found=found, **__: found,
            },
        )
        for name, found in reports.items()
    }


def _status() -> dict[str, Code]:
    seen = picture()
    shard = "pins.00000"
    connector = (seen.clusters["main"].connectors or {})[shard]
    tasks = tuple(replace(task, state="RUNNING") for task in connector.tasks)
    up = replace(connector, name=shard, state="RUNNING", tasks=tasks, config={"cdc.platform.owner": "cdc"})
    pictures = {
        "all up": replace(seen, clusters={"main": replace(seen.clusters["main"], connectors={shard: up})}),
        "one down": replace(seen, clusters={"main": replace(seen.clusters["main"], connectors={})}),
    }
    found: dict[str, Code] = {}
    for name, one in pictures.items():
        patched = {
            "cdc_platform.cli.status.open_platform": _world,
            "cdc_platform.reconciler.run_pass.plan_pass": lambda *_, one=one, **__: (one, _planned(Plan())),
        }
        found[name] = _exit("status", patched=patched)
        found[f"{name}, of a shard"] = _exit("status", "pins", "00000", patched=patched)
        found["unknown shard"] = _exit("status", "pins", "99999", patched=patched)
    return found


def _verify() -> dict[str, Code]:
    verdict = replace(sample(ShardVerdict), dataset="pins", table="pins", shard="00000", foreign_rows=0)
    situations: dict[str, tuple[Verdict, ...]] = {str(kind): (kind,) for kind in Verdict}
    situations |= {
        "pending and unverifiable": (Verdict.PENDING, Verdict.UNVERIFIABLE),
        "one of each": tuple(Verdict),
    }
    found = {name: [replace(verdict, verdict=kind) for kind in kinds] for name, kinds in situations.items()}
    found["proven, and rows of a shard that is gone"] = [replace(verdict, verdict=Verdict.PROVEN, foreign_rows=3)]
    return {
        name: _exit(
            "verify",
            "pins",
            "pins",
            "--json",
            patched={
                "cdc_platform.cli.verify.open_platform": _world,
                "cdc_platform.cli.verify.verification_of": lambda platform: None,
                "cdc_platform.cli.verify.verify_shards": lambda *_, verdicts=verdicts, **__: tuple(verdicts),
            },
        )
        for name, verdicts in found.items()
    }


def _repair() -> dict[str, Code]:
    plan = replace(sample(RepairPlan), left={})
    nothing = replace(plan, shards=())
    left = replace(nothing, left={"00000": "unverifiable"})
    report = replace(sample(RepairReport), plan=plan, foreign={})
    proven, not_proven = (
        replace(report, proof=tuple(replace(one, verdict=kind) for one in report.proof))
        for kind in (Verdict.PROVEN, Verdict.MISMATCHED)
    )

    def run(*more: str, plan: RepairPlan = plan, report: RepairReport = proven) -> Code:
        return _exit(
            "repair",
            "pins",
            "pins",
            *more,
            patched={
                "cdc_platform.wiring.open_platform": _world,
                "cdc_platform.wiring.open_snapshots": _nothing,
                "cdc_platform.wiring.verification_of": lambda platform: None,
                "cdc_platform.cli.repair.RepairPorts": lambda **_: SimpleNamespace(proof=None),
                "cdc_platform.cli.repair.find_repair": lambda *_, **__: plan,
                "cdc_platform.cli.repair.run_repair": lambda *_, **__: report,
            },
        )

    return {
        "nothing is said to repair": run(),
        "dry run, nothing to do": run("--shard", "00000", plan=nothing),
        "dry run, something to do": run("--shard", "00000"),
        "dry run, a shard that cannot be proven": run("--shard", "00000", plan=left),
        "done, but for a shard that cannot be proven": run(
            "--shard", "00000", "--apply", plan=left, report=replace(proven, plan=left, proof=())
        ),
        "done and proven": run("--shard", "00000", "--apply"),
        "done and not proven": run("--shard", "00000", "--apply", report=not_proven),
        "unknown run": run("--run", "nonsense"),
    }


def _snapshots() -> dict[str, Code]:
    request = Request(kind=RunKind.BACKFILL, dataset="pins")
    run = Run(id="RUN", request=request, mode=None, tables=("pins",), shards=("00000",), created=NOW)
    done = replace(sample(ShardDone, bare=True), shard="00000")

    def ended(*shards: ShardDone) -> Any:
        return lambda outside, run, number, listener: listener.over(shards)

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    def call(work: Any, *more: str) -> Code:
        return _exit(
            "backfill",
            *more,
            patched={
                "cdc_platform.cli.run_progress.open_platform": _world,
                "cdc_platform.cli.run_progress.open_snapshots": _nothing,
                "cdc_platform.cli.run_progress.work_slice": work,
                "cdc_platform.snapshots.run_lifecycle.open_run": lambda *_: run,
                "cdc_platform.snapshots.run_lifecycle.finish": lambda *_: run,
            },
        )

    return {
        "all done": call(ended(done), "pins"),
        "a shard failed": call(ended(replace(done, error="text")), "pins"),
        "interrupted": call(interrupted, "pins"),
        "no dataset": call(ended(done)),
    }


def _store() -> Any:
    harness = Harness(settings=Settings())
    harness.put(topology(pins=1, orders=0))
    return harness.store()


def _topology() -> dict[str, Code]:
    patched = {"cdc_platform.cli.topology.topology_store": lambda settings: _store()}
    return {
        "show": _exit("topology", "show", patched=patched),
        "export": _exit("topology", "export", patched=patched),
        "unknown dataset": _exit("topology", "show", "nonsense", patched=patched),
        "pause": _exit("pause", "--reason", "text", patched=patched),
        "pause until a time that is over": _exit("pause", "--reason", "text", "--until", "2000-01-01T00:00:00+00:00"),
        "resume": _exit("resume", patched=patched),
    }


def _set_leader() -> dict[str, Code]:
    good = sample(PreflightItem)
    bad = replace(good, ok=False)

    def run(item: PreflightItem, *more: str) -> Code:
        return _exit(
            "topology",
            "set-leader",
            "pins",
            "00000",
            "db-9:3306",
            *more,
            patched={
                "cdc_platform.cli.set_leader.topology_store": lambda settings: _store(),
                "cdc_platform.cli.set_leader.open_leaders": _nothing,
                "cdc_platform.cli.set_leader.check_leader": lambda *_: (item,),
            },
        )

    return {
        "moved": run(good),
        "dry run, fit": run(good, "--dry-run"),
        "dry run, not fit": run(bad, "--dry-run"),
        "refused": run(bad),
        "forced": run(bad, "--force"),
    }


def _discover() -> dict[str, Code]:
    found = sample(Discovery, given=GIVEN)
    situations = {
        "ZooKeeper is right": replace(found, moves={}, problems={}),
        "another leads": replace(found, problems={}),
        "nobody leads": replace(found, moves={}),
    }
    return {
        name: _exit(
            "topology",
            "discover",
            patched={
                "cdc_platform.cli.set_leader.topology_store": lambda settings: _store(),
                "cdc_platform.cli.set_leader.open_leaders": _nothing,
                "cdc_platform.cli.set_leader.discover": lambda *_, one=one, **__: one,
            },
        )
        for name, one in situations.items()
    }


def _stack_status() -> dict[str, Code]:
    def run(state: str) -> Code:
        service = replace(sample(ServiceStatus), state=state)
        stack = SimpleNamespace(
            directory="/s",
            settings_file="/s/f",
            connect_urls=(),
            mysql=None,
            mysql_version="",
            status=lambda: (service,),
        )
        return _exit("stack", "status", patched={"cdc_platform.local.stack.Stack.load": lambda directory: stack})

    return {state: run(state) for state in ("running", "exited", "absent")}


def _demo() -> dict[str, Code]:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    def run(result: Any) -> Code:
        return _exit(
            "demo",
            "--json",
            patched={
                "cdc_platform.cli.demo.run_demo": result if callable(result) else lambda *_: result,
                "signal.signal": lambda *_: None,
            },
        )

    summary = sample(Summary)
    row = next(iter(summary.datasets.values()))
    dagster = replace(sample(DagsterSummary), failed_runs=0)
    good = replace(summary, datasets={"pins": replace(row, missing=0, unexpected=0)}, dagster=dagster)
    return {
        "all seen": run(good),
        "a run of Dagster failed": run(replace(good, dagster=replace(dagster, failed_runs=1))),
        "not all seen": run(replace(good, datasets={"pins": row})),
        "not begun": run(None),
        "interrupted": run(interrupted),
    }
