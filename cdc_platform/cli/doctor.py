"""`cdc-platform doctor`: what stands against capturing from sources, before anything is created."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from contextlib import closing

import click

from cdc_platform.cli.output import echo
from cdc_platform.model.naming import some_of
from cdc_platform.planning.doctor.kinds import Severity
from cdc_platform.reconciler.doctor import DoctorReport, examine_chosen
from cdc_platform.settings import Settings
from cdc_platform.wiring import examiner_of, topology_store

_SHOWN = 60


@click.command()
@click.argument("dataset", required=False)
@click.argument("shards", metavar="[SHARD]...", nargs=-1)
@click.option("--table", "tables", multiple=True, metavar="TABLE", help="Only this table; repeat it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(dataset: str | None, shards: tuple[str, ...], tables: tuple[str, ...], as_json: bool) -> None:
    """Examine the sources of all shards, or of a DATASET or some SHARDs of it, and name what stands against capture.

    Reads only: rights, log settings, retention, keys, types, names, room, and shards that differ. Each finding has
    the statement that cures it. Exits 0 when nothing was found, 2 when something was, 1 when a source did not answer.
    """
    settings = Settings.load()
    with closing(topology_store(settings)) as store:
        topology = store.load()
    if tables and dataset is None:
        raise click.UsageError("--table needs a DATASET.")
    report = examine_chosen(examiner_of(settings), settings, topology, dataset, tables, shards)
    if as_json:
        echo(json.dumps(document(report), indent=2))
    else:
        for line in lines(report):
            echo(line)
    sys.exit(2 if not report.is_healthy else 1 if report.unanswered else 0)


def lines(report: DoctorReport, most: int = _SHOWN) -> list[str]:
    """The report as text: errors, warnings, then what is just to be known."""
    found: list[str] = []
    for one in report.findings[:most]:
        found.append(f"{one.severity}: {one.sentence()}.")
        found.append(f"  cure: {one.cure}")
    if len(report.findings) > most:
        found.append(f"and {len(report.findings) - most} more (--json has all)")
    silent: dict[str, list[str]] = defaultdict(list)
    for name, error in sorted(report.unanswered.items()):
        silent[error.message].append(name)
    for message, names in silent.items():
        found.append(f"not examined: {some_of(names, 4)}: {message}")
    return [*found, report.sentence()]


def document(report: DoctorReport) -> dict[str, object]:
    """The report as JSON."""
    return {
        "asked": report.asked,
        **{f"{kind}s": [one.document() for one in report.of(kind)] for kind in Severity},
        "not_examined": {name: str(error) for name, error in sorted(report.unanswered.items())},
    }
