"""`cdc-platform repair`: re-emit what a topic lacks."""

from __future__ import annotations

import json
import secrets
import shlex
from dataclasses import replace

import click
import msgspec

from cdc_platform import wiring
from cdc_platform.cli.grammar import old_option, tables_and_shards
from cdc_platform.cli.output import echo
from cdc_platform.cli.progress import Steps, ends_at_once
from cdc_platform.errors import BadInput
from cdc_platform.model.topology import Topology
from cdc_platform.reconciler.process_memory import VERIFYING, rarer_collections
from cdc_platform.settings import Settings
from cdc_platform.verification.audit_frame import AuditFrame
from cdc_platform.verification.proof.verdicts import Verdict, foreign_rows
from cdc_platform.verification.repair.reemit import RepairPorts, run_repair
from cdc_platform.verification.repair.repair_plan import (
    CAP,
    RepairPlan,
    find_repair,
    keys_repair,
    known_and_gone,
    parse_keys,
    recorded_plan,
)


@click.command()
@click.argument("dataset")
@click.argument("names", metavar="[SHARD]...", nargs=-1)
@click.option(
    "--table", "tables", metavar="TABLE", multiple=True, help="The table; may be left out where there is one."
)
@click.option(
    "--key",
    "keys",
    multiple=True,
    metavar="SHARD:KEY",
    help="""Re-emit this key; of several columns as '00003:["a", 1]'; repeat it.""",
)
@click.option("--from-verdict", metavar="RUN", help="Repair the shards that this run of `verify` found mismatched.")
@old_option("--shard", "old_shards", "repair DATASET SHARD ...", multiple=True)
@old_option("--keys", "old_keys", "--key SHARD:KEY", multiple=True)
@old_option("--run", "old_run_id", "--continue RUN")
@click.option("--tombstones", is_flag=True, help="Also remove rows from the topic that the source does not have.")
@click.option("--cap", type=click.IntRange(1), default=CAP, show_default=True, help="Most keys to touch.")
@click.option("--continue", "run_id", metavar="RUN", help="Go on with a repair that was interrupted.")
@click.option("--apply", "apply", is_flag=True, help="Do it; without, it is only shown what would be done.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def repair(
    ctx: click.Context,
    dataset: str,
    names: tuple[str, ...],
    tables: tuple[str, ...],
    keys: tuple[str, ...],
    from_verdict: str | None,
    old_shards: tuple[str, ...],
    old_keys: tuple[str, ...],
    old_run_id: str | None,
    tombstones: bool,
    cap: int,
    run_id: str | None,
    apply: bool,
    as_json: bool,
) -> None:
    """Re-emit the missing and wrong keys of a table, then prove its shards again.

    What to repair is one of: SHARDs (ids, ranges), which are looked at; --key; --from-verdict; --continue.
    A SHARD that the topology does not have (any more) has its rows removed from the topic, with --tombstones.
    Without --apply nothing is changed: it is only shown what would be done.

    Exits with 0 when all is (now) proven, 2 when a dry run found something to do or a shard is not proven
    (pending and unverifiable ones are left alone and named), 1 on error.
    """

    run_id, keys = run_id or old_run_id, keys + old_keys
    settings = Settings.load()
    name = run_id or secrets.token_hex(4)
    again = shlex.join(["cdc-platform", "repair", dataset, *(f"--table={table}" for table in tables)])
    with (
        wiring.open_platform(settings) as platform,
        wiring.open_snapshots(platform) as snapshots,
        Steps() as steps,
        ends_at_once(
            lambda: (
                f"Interrupted: {steps.last} `{again} --continue={name} --apply` goes on, once keys were re-emitted."
                if apply
                else "Interrupted. Nothing was changed."
            )
        ),
        rarer_collections(VERIFYING),
    ):
        ports = RepairPorts(proof=wiring.verification_of(platform), snapshots=snapshots)
        topology = platform.topology.load()
        chosen_tables, shards = tables_and_shards(topology.dataset(dataset), names, tables)
        shards += old_shards
        if sum(map(bool, (keys, from_verdict, shards, run_id))) != 1:
            raise click.UsageError("Say what to repair by one of SHARD, --key, --from-verdict and --continue.")
        if len(chosen_tables) != 1 and not run_id:
            known = ", ".join(table.name for table in chosen_tables)
            raise click.UsageError(f"Name one table by --table: {known}.")
        table = chosen_tables[0].name
        say = steps.say
        if run_id:
            plan = recorded_plan(platform.state.read(), run_id)
            if plan is None:
                raise BadInput(f"{run_id!r} is no unfinished repair.", field="--continue", cure="Start a new one.")
        elif keys:
            plan = keys_repair(topology, dataset, table, parse_keys(keys), run_id=name, cap=cap)
        else:
            left: dict[str, str] = {}
            if from_verdict:
                chosen, gone, left = shards_of_run(settings, topology, dataset, table, from_verdict)
            elif tombstones:
                chosen, gone = known_and_gone(topology, dataset, shards)
            else:
                chosen, gone = [shard.id for shard in topology.choose(dataset, shards)], []
            if gone and not tombstones:
                left |= dict.fromkeys(gone, "its rows are left in the topic (ask for tombstones)")
                gone = []
            plan = find_repair(
                ports.proof,
                topology,
                dataset,
                table,
                chosen,
                foreign=gone,
                run_id=name,
                tombstones=tombstones,
                cap=cap,
                report=say,
            )
            for shard in set() if from_verdict else set(gone) - {one.shard for one in plan.shards}:
                topology.shard(dataset, shard)  # Neither the topology nor the topic knows it: refused by name.
            plan = replace(plan, left={**left, **plan.left})
        if not apply:
            _print_plan(plan, as_json, cap)
            ctx.exit(2 if plan.keys or plan.extra or plan.left else 0)
        if not run_id:  # What was begun was within its cap.
            plan.check_cap(cap)
        say(f"Repair {name}: {plan.sentence()}")
        report = run_repair(ports, topology, plan, report=say)
    AuditFrame(settings.audit_dir).write(report.proof)
    if as_json:
        echo(msgspec.json.format(msgspec.json.encode(report.document()), indent=2).decode())
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
) -> tuple[list[str], list[str], dict[str, str]]:
    """The shards that a run of `verify` found mismatched, those that the topology lacks, and why it could not prove
    others, by shard.

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
            cure="Name a run of `verify`, or shards.",
        )
    known = {shard.id for shard in topology.shards.get(dataset, ())}
    of_known = [verdict for verdict in of_run if verdict.shard in known]
    mismatched = sorted(verdict.shard for verdict in of_known if verdict.verdict is Verdict.MISMATCHED)
    left = {
        verdict.shard: f"{verdict.verdict} in run {run_id}: {verdict.reason}"
        for verdict in of_known
        if verdict.verdict not in (Verdict.MISMATCHED, Verdict.PROVEN)
    }
    foreign = foreign_rows(of_run)
    return mismatched, list(foreign.shards) if foreign else [], left


def _print_plan(plan: RepairPlan, as_json: bool, cap: int = CAP) -> None:
    if as_json:
        echo(msgspec.json.format(msgspec.json.encode(plan), indent=2).decode())
        return
    something = plan.keys + plan.extra
    echo(f"Dry run: nothing was changed. {plan.sentence() if something else 'There is nothing to re-emit.'}")
    for shard in plan.shards:
        emits, extra = plan.of(shard)
        shown = ", ".join(json.dumps(key if len(key) > 1 else key[0]) for key in shard.emit[:20])
        echo(f"  {shard.shard}: {emits} keys{f' ({shown})' if shown else ''}, {extra} extra")
    for name, reason in sorted(plan.left.items()):
        echo(f"  {name}: left alone: {reason}")
    if something:
        echo(f"Add --apply{f' --cap {something}' if something > cap else ''} to do it.")
