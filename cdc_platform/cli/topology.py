"""`cdc-platform topology`, `pause` and `resume`: what ZooKeeper holds, by hand and from a file."""

from __future__ import annotations

import getpass
import json
import re
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from cdc_platform.cli.doctor import document, lines
from cdc_platform.cli.grammar import Duration, NamedPath, OutputFile, SuggestingGroup
from cdc_platform.cli.output import echo
from cdc_platform.cli.safe_console import SafeConsole
from cdc_platform.cli.set_leader import discover_leaders, set_leader
from cdc_platform.cli.skip_statement import skip_statement
from cdc_platform.cli.topology_new import new_topology
from cdc_platform.connectors.config import problems
from cdc_platform.documents import dump_yaml, load_yaml
from cdc_platform.documents.edits import Change
from cdc_platform.documents.topology_fields import encode_cluster, encode_dataset, encode_pause, encode_shard
from cdc_platform.errors import BadInput, TopologyError
from cdc_platform.model.topology import Dataset, Pause, Problem, Topology
from cdc_platform.planning.doctor.kinds import check_accepted
from cdc_platform.reconciler.doctor import DoctorReport, examine_new
from cdc_platform.settings import Settings
from cdc_platform.verification.verification_policy import check_policy
from cdc_platform.wiring import examiner_of, topology_store

_SHOWN = 40
# For which an import waits for sources; what has not answered by then is named.
_DOCTOR_SECONDS = 10.0

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(cls=SuggestingGroup)
def topology() -> None:
    """Read and write what should be captured: datasets, shards, leaders, clusters."""


@topology.command("import")
@click.argument("file", type=NamedPath())
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@click.option("--allow-deletes", type=click.IntRange(min=0), metavar="N", help="Delete up to N documents.")
@click.option("--prune", is_flag=True, help="Also delete datasets and clusters that FILE does not name.")
@_as_json
def import_(file: Path, dry_run: bool, allow_deletes: int | None, prune: bool, as_json: bool) -> None:
    """Make ZooKeeper hold the topology of FILE.

    Shards that FILE does not name are deleted, up to the cap of the settings
    (max_deletes, max_delete_fraction). Leaders of shards that are there are
    kept: `set-leader` moves them. The sources of what is new or changed are examined as `doctor` does; that changes
    neither the import nor its exit code.
    """
    settings = Settings.load()
    # The file's own faults first: they are found without ZooKeeper.
    for dataset in load_yaml(file, known_clusters=_Any()).datasets.values():
        check_policy(dataset, file)
        check_accepted(dataset, file)
    with closing(topology_store(settings)) as store:
        stored = store.load()
        desired = load_yaml(file, known_clusters=stored.clusters)
        _refuse_problems(stored, desired, settings, file)
        cap = allow_deletes
        if cap is None:
            shards = sum(len(found) for found in stored.shards.values())
            cap = max(settings.max_deletes, int(shards * settings.max_delete_fraction))
        changes = store.import_topology(desired, dry_run=dry_run, prune=prune, max_deletes=cap)
    report = _examined(settings, desired, changes)
    if as_json:
        found = {"changes": [asdict(change) for change in changes]}
        echo(json.dumps(found if report is None else {**found, "doctor": document(report)}, indent=2))
        sys.exit(2 if dry_run and any(change.action != "keep" for change in changes) else 0)
    for change in changes[:_SHOWN]:
        echo(str(change))
    if len(changes) > _SHOWN:
        echo(f"... and {len(changes) - _SHOWN} more")
    for line in lines(report, _SHOWN) if report is not None else ():
        echo(line)
    writes = sum(change.action != "keep" for change in changes)
    echo(f"{writes} {'change' if writes == 1 else 'changes'} {'would be made' if dry_run else 'made'}")
    if writes and dry_run:
        sys.exit(2)
    if writes:
        echo("Next: `cdc-platform plan` shows what a pass makes of it.")


def _examined(settings: Settings, desired: Topology, changes: Sequence[Change]) -> DoctorReport | None:
    """What the doctor says of the sources of what is new or changed; None where nothing is."""
    new = {(change.kind, change.name) for change in changes if change.action in ("create", "update")}
    pairs = [
        (dataset, shard)
        for dataset, shard in desired.all_shards()
        if {("dataset", dataset.name), ("shard", shard.name)} & new
    ]
    if not pairs:
        return None
    return examine_new(examiner_of(settings), settings, desired, pairs, seconds=_DOCTOR_SECONDS)


class _Any(tuple[str, ...]):
    """Clusters of any name: which exist is ZooKeeper's to say."""

    __slots__ = ()

    def __contains__(self, name: object) -> bool:
        return True


@topology.command()
@click.option("--out", type=OutputFile(), help="Write to a file.")
def export(out: Path | None) -> None:
    """Print the topology as a file that `import` reads."""
    with closing(topology_store(Settings.load())) as store:
        text = dump_yaml(store.load())
    if out is None:
        click.echo(text, nl=False)
    else:
        out.write_text(text)


@topology.command()
@click.argument("dataset", required=False)
@_as_json
def show(dataset: str | None, as_json: bool) -> None:
    """Show all datasets and clusters, or the shards of one DATASET."""
    with closing(topology_store(Settings.load())) as store:
        found = store.load()
    if dataset is not None and not any(problem.name == dataset for problem in found.problems):
        found.dataset(dataset)
    if as_json:
        echo(json.dumps(_document(found, dataset), indent=2, ensure_ascii=False))
        return
    console = SafeConsole()
    console.print(_datasets(found) if dataset is None else _shards(found, dataset))
    if dataset is None:
        console.print(_clusters(found))
    if found.pause:
        console.print(f"the platform is {_paused(found.pause)}", markup=False, highlight=False)
    for problem in _problems_of(found, dataset):
        console.print(f"{problem.kind} {problem.name} is left alone: {problem.message}", markup=False, highlight=False)


topology.add_command(new_topology)
topology.add_command(set_leader)
topology.add_command(discover_leaders)
topology.add_command(skip_statement)


def _until(context: click.Context, parameter: click.Parameter, text: str | None) -> datetime | None:
    if text is None:
        return None
    now = datetime.now(UTC)
    if re.fullmatch(r"[0-9]{1,6}[smhd]", text):
        return now + timedelta(seconds=Duration(least=1.0).convert(text, parameter, context))
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise click.BadParameter(
            f"{text!r} is not a time: write 30m, 2h, 1d, or a time with its UTC offset.", context, parameter
        )
    if found <= now:
        raise click.BadParameter(f"{text} is in the past.", context, parameter)
    return found


@click.command()
@click.argument("dataset", required=False)
@click.argument("shards", metavar="[SHARD]...", nargs=-1)
@click.option("--reason", required=True, help="Why; shown to everyone who asks for the status.")
@click.option("--author", help="Who.  [default: user@host]")
@click.option(
    "--until", metavar="TIME", callback=_until, help="End of it: 2030-01-31T12:00:00+00:00, or 30m, 2h, 1d from now."
)
def pause(
    dataset: str | None, shards: tuple[str, ...], reason: str, author: str | None, until: datetime | None
) -> None:
    """Have the control plane leave the platform, a DATASET or some SHARDs of it alone.

    Connectors go on as they are, and agents go on to follow leaders.
    """
    if not reason.strip():
        raise BadInput("is empty.", field="--reason", cure="Say why: the next operator reads it.")
    made = Pause(
        reason=reason,
        author=author or f"{getpass.getuser()}@{socket.gethostname()}",
        until=until,
    )
    for subject in _set_pause(dataset, shards, made):
        echo(f"{subject} is {_paused(made)}")


@click.command()
@click.argument("dataset", required=False)
@click.argument("shards", metavar="[SHARD]...", nargs=-1)
def resume(dataset: str | None, shards: tuple[str, ...]) -> None:
    """End the pause of the platform, a DATASET or some SHARDs of it."""
    for subject in _set_pause(dataset, shards, None):
        echo(f"{subject} is not paused")


def _set_pause(dataset: str | None, shards: tuple[str, ...], pause: Pause | None) -> Iterator[str]:
    """Each subject once it is paused, or no longer; all names are looked up before the first."""
    with closing(topology_store(Settings.load())) as store:
        if dataset is None or not shards:
            store.set_pause(dataset, None, pause)
            yield "the platform" if dataset is None else f"dataset {dataset}"
            return
        for shard in store.load().choose(dataset, shards):
            store.set_pause(dataset, shard.id, pause)
            yield f"shard {shard.name}"


def _refuse_problems(stored: Topology, desired: Topology, settings: Settings, file: Path) -> None:
    """Raises TopologyError for overrides that are refused and names that collide, with what is stored already too."""
    merged = Topology(
        clusters={**stored.clusters, **desired.clusters},
        datasets={**stored.datasets, **desired.datasets},
        shards={**stored.shards, **desired.shards},
    )
    known = set(problems(stored, settings))
    for problem in problems(merged, settings):
        if problem not in known:
            message, _, cure = problem.message.partition(" Cure: ")
            message = message.removeprefix(f"{problem.kind} {problem.name}: ")
            raise TopologyError(message, where=f"{file}: {problem.kind} {problem.name}", cure=cure or None)


def _paused(pause: Pause) -> str:
    until = f" until {pause.until.isoformat(timespec='seconds')}" if pause.until else ""
    over = "" if pause.holds(datetime.now(UTC)) else " (over)"
    return f"paused{until}{over} by {pause.author}: {pause.reason}"


def _problems_of(found: Topology, dataset: str | None) -> list[Problem]:
    return [p for p in found.problems if dataset is None or p.name.partition(".")[0] == dataset]


def _document(found: Topology, dataset: str | None) -> dict[str, Any]:
    names = [name for name in found.datasets if dataset in (None, name)]
    return {
        "pause": encode_pause(found.pause) if found.pause else None,
        "clusters": {name: encode_cluster(cluster) for name, cluster in found.clusters.items()},
        "datasets": {
            name: encode_dataset(found.datasets[name])
            | {"shards": {shard.id: encode_shard(shard) for shard in found.shards.get(name, ())}}
            for name in names
        },
        "problems": [asdict(problem) for problem in _problems_of(found, dataset)],
    }


def _datasets(found: Topology) -> Table:
    table = Table("dataset", "engine", "tables", "shards", "clusters", "state")
    for dataset in found.datasets.values():
        shards = found.shards.get(dataset.name, ())
        table.add_row(
            dataset.name,
            dataset.engine.value,
            ", ".join(each.name for each in dataset.tables),
            str(len(shards)),
            ", ".join(dataset.clusters),
            _state(dataset, sum(shard.pause is not None for shard in shards)),
        )
    return table


def _state(dataset: Dataset, paused_shards: int) -> str:
    if dataset.pause:
        return _paused(dataset.pause)
    return f"{paused_shards} shards paused" if paused_shards else "active"


def _clusters(found: Topology) -> Table:
    table = Table("cluster", "workers", "capacity", "state")
    for cluster in found.clusters.values():
        state = "draining" if cluster.draining else "active"
        table.add_row(cluster.name, ", ".join(cluster.urls), str(cluster.capacity), state)
    return table


def _shards(found: Topology, dataset: str) -> Table:
    table = Table("shard", "database", "leader", "generation", "replicas", "state")
    for shard in found.shards.get(dataset, ()):
        table.add_row(
            shard.id,
            shard.database,
            str(shard.leader),
            str(shard.generation),
            ", ".join(map(str, shard.replicas)),
            _paused(shard.pause) if shard.pause else "active",
        )
    return table
