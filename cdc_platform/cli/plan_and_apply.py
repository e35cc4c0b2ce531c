"""`cdc-platform plan` and `apply`: one pass by hand, sharing the code of the job."""

from __future__ import annotations

import getpass
import json
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from cdc_platform.cli.grammar import Duration, NamedPath, OutputFile
from cdc_platform.cli.output import echo
from cdc_platform.cli.progress import Steps, end_interrupted
from cdc_platform.errors import BadInput
from cdc_platform.model.naming import ShardName
from cdc_platform.planning.actions import CreateConnector
from cdc_platform.planning.rendering import to_json, to_markdown, to_text
from cdc_platform.reconciler import run_pass as reconciler
from cdc_platform.reconciler.process_memory import large_state
from cdc_platform.reconciler.report import ActionStatus, PassReport
from cdc_platform.reconciler.source_round import of_dataset
from cdc_platform.settings import Settings
from cdc_platform.verification.first_look import first_look
from cdc_platform.wiring import open_platform, verification_of

_allow_deletes = click.option(
    "--allow-deletes",
    type=click.IntRange(min=0),
    metavar="N",
    help="Let this pass delete up to N connectors.",
)
_accept_shrink = click.option(
    "--accept-shrink", is_flag=True, help="A cluster or dataset that is suddenly smaller is meant to be."
)


@click.command()
@_allow_deletes
@_accept_shrink
@click.option("--json", "form", flag_value="json", help="Print JSON.")
@click.option("--markdown", "form", flag_value="markdown", help="Print Markdown.")
@click.option("--out", type=OutputFile(), help="Also write the JSON to a file.")
def plan(allow_deletes: int | None, accept_shrink: bool, form: str | None, out: Path | None) -> None:
    """Show what a pass would change, and change nothing.

    Also looks at the tables of each dataset's first shard: what has no key, or cannot be seen, is named.
    Exits 0 when nothing would change, 2 when something would, 1 on an error or
    when a part could not be planned.
    """
    with open_platform(Settings.load()) as platform:
        policy = reconciler.policy_of(platform, allow_deletes=allow_deletes, accept_shrink=accept_shrink)
        with large_state():
            observed, planned = reconciler.plan_pass(platform, policy, asked=of_dataset(None))
        found = planned.plan
        if platform.sources is not None:
            looked = first_look(verification_of(platform), observed.topology)
            found = replace(found, findings=(*found.findings, *looked))
    document = json.dumps(to_json(found), indent=2)
    if out is not None:
        out.write_text(document + "\n")
    if form == "json":
        echo(document)
    elif form == "markdown":
        echo(to_markdown(found))
    else:
        echo(to_text(found))
    sys.exit(found.exit_code)


@click.command()
@click.argument("plan_file", required=False, type=NamedPath(exists=True, dir_okay=False))
@_allow_deletes
@_accept_shrink
@click.option("--wait", type=Duration(), default="90s", show_default=True, help="How long to wait for a running pass.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def apply(plan_file: Path | None, allow_deletes: int | None, accept_shrink: bool, wait: float, as_json: bool) -> None:
    """Run one pass now. With PLAN_FILE (from `plan --out`) only if the plan is still the same."""
    expect = _fingerprint(plan_file) if plan_file else None
    with Steps(quiet=as_json) as steps:
        try:
            with open_platform(Settings.load()) as platform:
                steps.say("Looking at topology, topics, connectors and sources.")
                report = reconciler.reconcile(
                    platform,
                    owner=f"{getpass.getuser()}@{socket.gethostname()}",
                    policy=reconciler.policy_of(platform, allow_deletes=allow_deletes, accept_shrink=accept_shrink),
                    while_planning=large_state,
                    expect=expect,
                    progress=steps.say,
                    wait_for_lock=wait,
                    asked=of_dataset(None),
                )
        except KeyboardInterrupt:
            # The lock is given back; calls that were sent already are not waited for.
            end_interrupted(f"Interrupted at: {steps.last} What was done stays; `cdc-platform apply` goes on.")
    if as_json:
        echo(json.dumps(_report_json(report), indent=2))
    else:
        for outcome in report.outcomes:
            echo(outcome.sentence())
        echo(report.sentence())
        created = {
            ShardName.parse(outcome.action.name).dataset
            for outcome in report.outcomes
            if isinstance(outcome.action, CreateConnector) and outcome.status is ActionStatus.DONE
        }
        for dataset in sorted(created):
            echo(f"Next: `cdc-platform bootstrap {dataset}` gives its new shards the rows that exist.")
    sys.exit(1 if report.failed or report.plan.refusals else 0)


def _fingerprint(file: Path) -> str:
    try:
        found = json.loads(file.read_text())["fingerprint"]
        if not isinstance(found, str):
            raise TypeError
        return found
    except (ValueError, KeyError, TypeError):
        raise BadInput(
            "is not a plan.",
            where=str(file),
            field="fingerprint",
            cure="Make one with `cdc-platform plan --out FILE`.",
        ) from None


def _report_json(report: PassReport) -> dict[str, Any]:
    return {
        "sentence": report.sentence(),
        "number": report.number,
        "generation": report.generation,
        "plan": to_json(report.plan),
        "outcomes": [
            {"sentence": o.sentence(), "status": o.status, "error": o.error, "seconds": round(o.seconds, 3)}
            for o in report.outcomes
        ],
        "datasets": {
            name: {
                "shards": health.shards,
                "up": health.up,
                "down": [{"shard": d.shard, "state": d.state, "reason": d.reason} for d in health.down],
            }
            for name, health in report.health.items()
        },
        "captured": list(report.captured),
        "seconds": {name: round(seconds, 3) for name, seconds in report.phases.items()},
    }
