"""`cdc-platform repair`: re-emit what a topic lacks."""

from __future__ import annotations

import json
import secrets
from dataclasses import replace

import click
import msgspec

from cdc_platform import wiring
from cdc_platform.cli.output import echo
from cdc_platform.errors import BadInput
from cdc_platform.model.topology import Topology
from cdc_platform.reconciler.process_memory import VERIFYING, rarer_collections
from cdc_platform.settings import Settings
from cdc_platform.verification.audit_frame import AuditFrame
from cdc_platform.verification.proof.verdicts import Verdict
from cdc_platform.verification.repair.reemit import RepairPorts, run_repair
from cdc_platform.verification.repair.repair_plan import (
    CAP,
    RepairPlan,
    find_repair,
    keys_repair,
    parse_keys,
    recorded_plan,
)


@click.command()
@click.argument("dataset")
@click.argument("table")
@click.option(
    "--keys", multiple=True, metavar="SHARD:KEY", help="Re-emit this key (values joined by commas); repeat it."
)
@click.option("--from-verdict", metavar="RUN", help="Repair the shards that this run of `verify` found mismatched.")
@click.option("--shard", "shards", multiple=True, help="Look at this shard and repair what differs; repeat it.")
@click.option("--tombstones", is_flag=True, help="Also remove rows from the topic that the source does not have.")
@click.option("--cap", type=click.IntRange(1), default=CAP, show_default=True, help="Most keys to touch.")
@click.option("--run", "run_id", metavar="ID", help="Go on with a repair that was interrupted.")
@click.option("--apply", "apply", is_flag=True, help="Do it; without, it is only shown what would be done.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def repair(
    ctx: click.Context,
    dataset: str,
    table: str,
    keys: tuple[str, ...],
    from_verdict: str | None,
    shards: tuple[str, ...],
    tombstones: bool,
    cap: int,
    run_id: str | None,
    apply: bool,
    as_json: bool,
) -> None:
    """Re-emit the missing and wrong keys of a table, then prove its shards again.

    Exits with 0 when all is (now) proven, 2 when a dry run found something to do or a shard is not proven
    (pending and unverifiable ones are left alone and named), 1 on error.
    """
    if sum(map(bool, (keys, from_verdict, shards, run_id))) != 1:
        raise BadInput("say what to repair.", cure="Use one of --keys, --from-verdict, --shard and --run.")

    def say(text: str) -> None:
        echo(text, err=True)

    settings = Settings.load()
    with (
        wiring.open_platform(settings) as platform,
        wiring.open_snapshots(platform) as snapshots,
        rarer_collections(VERIFYING),
    ):
        ports = RepairPorts(proof=wiring.verification_of(platform), snapshots=snapshots)
        topology = platform.topology.load()
        name = run_id or secrets.token_hex(4)
        if run_id:
            plan = recorded_plan(platform.state.read(), run_id)
            if plan is None:
                raise BadInput(f"{run_id!r} is no unfinished repair.", field="--run", cure="Start a new one.")
        elif keys:
            plan = keys_repair(topology, dataset, table, parse_keys(keys), run_id=name, cap=cap)
        else:
            left: dict[str, str] = {}
            chosen = list(shards)
            if from_verdict:
                chosen, left = shards_of_run(settings, topology, dataset, table, from_verdict)
            plan = find_repair(
                ports.proof,
                topology,
                dataset,
                table,
                chosen,
                run_id=name,
                tombstones=tombstones,
                cap=cap,
                report=say,
            )
            plan = replace(plan, left={**left, **plan.left})
        if not apply:
            _print_plan(plan, as_json)
            ctx.exit(2 if plan.keys or plan.extra or plan.left else 0)
        say(f"Repair {name}: {plan.sentence()}")
        report = run_repair(ports, topology, plan, report=say)
    AuditFrame(settings.audit_dir).write(report.proof)
    if as_json:
        echo(msgspec.json.encode(report.document()).decode())
    else:
        echo(report.sentence())
        for verdict in report.proof:
            if verdict.verdict is not Verdict.PROVEN:
                echo(f"  {verdict.shard}: {verdict.verdict}: {verdict.reason}")
        for shard, reason in sorted(report.unproven.items()):
            echo(f"  {shard}: left alone: {reason}")
    ctx.exit(0 if report.proven else 2)


def shards_of_run(
    settings: Settings, topology: Topology, dataset: str, table: str, run_id: str
) -> tuple[list[str], dict[str, str]]:
    """The shards that a run of `verify` found mismatched, and why it could not prove others, by shard.

    Raises:
        BadInput: that run left no verdicts here.
    """
    topology.dataset(dataset).table(table)
    of_run = AuditFrame(settings.audit_dir).run(dataset, table, run_id)
    if not of_run:
        raise BadInput(
            f"no verdict of {dataset}.{table} is of run {run_id!r}.",
            where=settings.audit_dir,
            field="--from-verdict",
            cure="Name a run of `verify`, or shards by --shard.",
        )
    mismatched = sorted(verdict.shard for verdict in of_run if verdict.verdict is Verdict.MISMATCHED)
    left = {
        verdict.shard: f"{verdict.verdict} in run {run_id}: {verdict.reason}"
        for verdict in of_run
        if verdict.verdict not in (Verdict.MISMATCHED, Verdict.PROVEN)
    }
    return mismatched, left


def _print_plan(plan: RepairPlan, as_json: bool) -> None:
    if as_json:
        echo(msgspec.json.encode(plan).decode())
        return
    something = plan.keys or plan.extra
    echo(f"Dry run: nothing was changed. {plan.sentence() if something else 'There is nothing to re-emit.'}")
    for shard in plan.shards:
        shown = ", ".join(json.dumps(key if len(key) > 1 else key[0]) for key in shard.emit[:20])
        echo(f"  {shard.shard}: {len(shard.emit)} keys{f' ({shown})' if shown else ''}, {len(shard.extra)} extra")
    for name, reason in sorted(plan.left.items()):
        echo(f"  {name}: left alone: {reason}")
    if something:
        echo("Add --apply to do it.")
