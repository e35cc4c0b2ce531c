"""`cdc-platform verify`: is a table's topic complete?"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import click
from rich.table import Table as Grid
from rich.text import Text

from cdc_platform.cli.grammar import old_option, tables_and_shards
from cdc_platform.cli.output import echo
from cdc_platform.cli.progress import Stages, ends_at_once
from cdc_platform.cli.safe_console import SafeConsole
from cdc_platform.errors import NotFound
from cdc_platform.lake.policy import LakePolicy
from cdc_platform.lake.proof import LakeVerdict, prove_lake
from cdc_platform.model.topology import Topology
from cdc_platform.reconciler.process_memory import VERIFYING, rarer_collections
from cdc_platform.settings import OLD_EXITS_ENV, Settings
from cdc_platform.verification.audit_frame import AuditFrame
from cdc_platform.verification.ports import Progress as Step
from cdc_platform.verification.ports import VerificationPorts
from cdc_platform.verification.proof.completeness import plan_verification, verify_shards
from cdc_platform.verification.proof.verdicts import ShardVerdict, Verdict, foreign_rows
from cdc_platform.wiring import open_platform, verification_of

_STAGES = {"source": "reading sources", "reach": "waiting for connectors", "topic": "reading the topic"}
_STYLES = {Verdict.PROVEN: "green", Verdict.PENDING: "yellow", Verdict.MISMATCHED: "red"}

# From the best to the worst.
_RANKS = (Verdict.PROVEN, Verdict.PENDING, Verdict.UNVERIFIABLE, Verdict.MISMATCHED)

_OLD_EXITS = {Verdict.PENDING: 3, Verdict.UNVERIFIABLE: 4}


@click.command()
@click.argument("dataset")
@click.argument("names", metavar="[SHARD]...", nargs=-1)
@click.option("--table", "tables", metavar="TABLE", multiple=True, help="Only this table; repeat it. All by default.")
@old_option("--shards", "old_shards", "verify DATASET SHARD ...")
@old_option("--run-id", "old_run_id", "--continue RUN")
@click.option("--continue", "run_id", metavar="RUN", help="Go on with a run that was killed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(
    dataset: str,
    names: tuple[str, ...],
    tables: tuple[str, ...],
    old_shards: str | None,
    old_run_id: str | None,
    run_id: str | None,
    as_json: bool,
) -> None:
    """Prove that the topics of DATASET's tables hold every row of their sources, or name the keys that differ.

    SHARD is an id (00003, or 3) or a range (0-15); all shards by default.

    Writes one row a shard to the audit frame. Exits 0 when all shards are
    proven, 2 when one is not (the output says which are mismatched, pending or
    unverifiable, JSON names the worst as "verdict") or the topic has rows of
    shards that the topology lacks, 1 on an error.
    """
    run_id = run_id or old_run_id or f"cli-{datetime.now(UTC):%Y%m%d%H%M%S}-{secrets.token_hex(3)}"
    settings = Settings.load()
    found: list[ShardVerdict] = []
    again = shlex.join(
        ["cdc-platform", "verify", dataset, *names, *(f"--table={table}" for table in tables), f"--continue={run_id}"]
    )
    with (
        open_platform(settings) as platform,
        Stages(quiet=as_json) as stages,
        ends_at_once(lambda: f"Interrupted: {len(found)} verdicts are written; {stages.last}. `{again}` goes on."),
        rarer_collections(VERIFYING),
    ):
        topology = platform.topology.load()
        policy = LakePolicy.permitted(topology.dataset(dataset), settings)
        chosen, shards = tables_and_shards(topology.dataset(dataset), names, tables)
        shards += (old_shards,) if old_shards else ()
        ids = [shard.id for shard in topology.choose(dataset, shards)] if shards else None
        audit = AuditFrame(settings.audit_dir)
        ports = verification_of(platform)
        for part in (part for table in chosen for part in plan_verification(topology, dataset, table.name, ids)):
            of_table = f"{part.table}: " if len(chosen) > 1 else ""

            def report(step: Step, of_table: str = of_table) -> None:
                stages.update(f"{of_table}{_STAGES[step.stage]}", step.done, step.total)

            verdicts = verify_shards(ports, topology, part, run_id=run_id, report=report)
            audit.write(verdicts)
            found += verdicts
        lakes = _lakes(ports, topology, policy, dataset, [table.name for table in chosen], ids)
    foreign = {table.name: foreign_rows(one for one in found if one.table == table.name) for table in chosen}
    kinds = {verdict.verdict for verdict in found}
    kinds |= {Verdict.MISMATCHED for one in foreign.values() if one and one.rows}
    kinds |= {Verdict.MISMATCHED for one in lakes if one.verdict is Verdict.MISMATCHED}
    worst = max(kinds, default=Verdict.PROVEN, key=_RANKS.index)
    if as_json:
        of_tables = {table: None if one is None else one.rows for table, one in foreign.items()}
        shown = [_document(verdict) for verdict in found]
        document: dict[str, Any] = {"run_id": run_id, "verdict": str(worst), "foreign_rows": of_tables, "shards": shown}
        if lakes:
            document["lake"] = [asdict(one) for one in lakes]
        echo(json.dumps(document, indent=2))
    else:
        _print(found, run_id)
        for table, one in foreign.items():
            if one is None:
                echo(f"{table}: rows of shards that the topology does not have were not counted.")
            elif one.rows:
                echo(f"{table}: {one.sentence(dataset, table)}")
        for line in _said_of(lakes):
            echo(line)
    sys.exit(exit_code(worst, os.environ))


def _lakes(
    ports: VerificationPorts,
    topology: Topology,
    policy: LakePolicy | None,
    dataset: str,
    tables: Sequence[str],
    shards: Sequence[str] | None,
) -> list[LakeVerdict]:
    """What the tables' lake is, where they land in one that has had a run."""
    found: list[LakeVerdict] = []
    for table in tables if policy is not None else ():
        if policy is not None and policy.takes(table):
            try:
                found += prove_lake(ports, topology, dataset, table, policy, shards)
            except NotFound as error:
                echo(f"{table}: {error}", err=True)
    return found


def _said_of(lakes: Sequence[LakeVerdict]) -> Iterator[str]:
    for one in lakes:
        of = f"lake of {one.table}, shard {one.shard}, run {one.run}"
        if one.verdict is Verdict.MISMATCHED:
            yield f"{of}: {one.missing} rows missing, {one.extra} extra, {one.mismatched} other than in the topic."
        elif one.behind:
            yield f"{of}: {one.behind} keys have changed since; the others are the topic's."
        else:
            yield f"{of}: all {one.rows} rows are the topic's."
        for sample in one.samples:
            columns = f": {', '.join(sample.columns)}" if sample.columns else ""
            yield f"  lake {sample.kind} {sample.key}{columns}"
        for text in one.files:
            yield f"  {text}"
    for table in dict.fromkeys(f"{one.dataset}.{one.table}" for one in lakes if one.verdict is Verdict.MISMATCHED):
        yield f"If its topic is proven, `cdc-platform lake repair {table} --apply` writes these rows again."


def exit_code(worst: Verdict, env: Mapping[str, str]) -> int:
    """0 or 2; 3 and 4 for pending and unverifiable where the environment still asks for the codes before 0.2."""
    if worst is Verdict.PROVEN:
        return 0
    return _OLD_EXITS.get(worst, 2) if env.get(OLD_EXITS_ENV) == "1" else 2


def _document(verdict: ShardVerdict) -> dict[str, Any]:
    return verdict.document() | {"checked_at": verdict.checked_at.isoformat()}


def _print(verdicts: list[ShardVerdict], run_id: str) -> None:
    grid = Grid(box=None, header_style="bold")
    several = len({verdict.table for verdict in verdicts}) > 1
    for name in (*(("table",) if several else ()), "shard", "verdict", "rows", "proven to", "lag", "reason"):
        grid.add_column(name, justify="right" if name in ("rows", "lag") else "left", overflow="fold")
    for verdict in verdicts:
        style = _STYLES.get(verdict.verdict, "magenta")
        lag = "" if verdict.lag_s is None else f"{verdict.lag_s:.1f} s"
        grid.add_row(
            *((verdict.table,) if several else ()),
            verdict.shard,
            Text(verdict.verdict, style),
            f"{verdict.source_rows:,}",
            verdict.proven_to,
            lag,
            Text(verdict.reason),
        )
    console = SafeConsole()
    console.print(grid)
    for verdict in verdicts:
        for sample in verdict.samples:
            columns = f": {', '.join(sample.columns)}" if sample.columns else ""
            console.print(f"  {verdict.shard} {sample.kind} {sample.key}{columns}", markup=False, highlight=False)
    for warning in dict.fromkeys(text for verdict in verdicts for text in verdict.warnings):
        console.print(f"Warning: {warning}.", markup=False, highlight=False)
    counts = {kind: sum(verdict.verdict is kind for verdict in verdicts) for kind in Verdict}
    rows = sum(verdict.source_rows for verdict in verdicts)
    took = max((verdict.seconds for verdict in verdicts), default=0.0)
    said = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count) or "no shards"
    at = max((verdict.checked_at for verdict in verdicts), default=datetime.now(UTC))
    console.print(
        f"{said}; {rows:,} rows in {took:.1f} s, at {at:%Y-%m-%d %H:%M:%S}Z, run {run_id}",
        highlight=False,
        soft_wrap=True,
    )
