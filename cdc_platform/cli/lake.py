"""`cdc-platform lake`: what lands in a lake, and what it held at a position or a time."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from cdc_platform.cli.grammar import SuggestingGroup
from cdc_platform.cli.output import echo
from cdc_platform.cli.progress import Stages
from cdc_platform.errors import BadInput, NotFound, require_extra
from cdc_platform.lake.policy import LakePolicy
from cdc_platform.lake.standing import standings
from cdc_platform.model.positions import Committed, parse_position
from cdc_platform.model.topology import Dataset, Topology
from cdc_platform.settings import Settings
from cdc_platform.verification.audit_frame import AuditFrame
from cdc_platform.wiring import open_platform, verification_of

if TYPE_CHECKING:
    from cdc_platform.lake.current import LakeView
    from cdc_platform.lake.maintenance import Upkeep


@click.group(cls=SuggestingGroup)
def lake() -> None:
    """Tables of Iceberg that topics land in (docs/lake.md)."""


@lake.command()
@click.argument("dataset")
@click.option("--table", "tables", metavar="TABLE", multiple=True, help="Only this table; repeat it. All by default.")
@click.option("--merge/--no-merge", default=True, show_default=True, help="Rewrite buckets that have changed much.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def run(dataset: str, tables: tuple[str, ...], merge: bool, as_json: bool) -> None:
    """Bring the lake of DATASET's tables up to the ends of their topics, one commit a table."""
    require_extra("lake")
    from cdc_platform.lake.append import append_events
    from cdc_platform.lake.current import merge as merge_buckets

    shown = []
    with open_platform(Settings.load()) as platform, Stages(quiet=as_json) as stages:
        topology = platform.topology.load()
        for name, policy in _tables(platform.settings, topology, dataset, tables):

            def report(done: int, total: int, name: str = name) -> None:
                stages.update(f"{name}: reading the topic", done, total)

            found = append_events(verification_of(platform), topology, dataset, name, policy, report)
            merged = merge_buckets(policy, dataset, name) if merge and found.snapshot is not None else []
            shown.append({**asdict(found), "merged": merged})
    if as_json:
        echo(json.dumps({"runs": shown}, indent=2))
        return
    for each in shown:
        said = f"{each['events']} events" if each["events"] else "nothing new"
        said += f", {each['unreadable']} records cannot be read" if each["unreadable"] else ""
        echo(f"{each['table']}: run {each['run']}, {said}; {len(each['merged'])} buckets merged.")


@lake.command()
@click.argument("name", metavar="DATASET.TABLE")
@click.option("--position", metavar="P", help="A position of the source, as verdicts have it; with --shard.")
@click.option("--shard", metavar="SHARD", help="The shard that the position is of; not needed when there is one.")
@click.option("--time", "moment", metavar="T", help="ISO 8601; UTC without an offset.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def at(name: str, position: str | None, shard: str | None, moment: str | None, as_json: bool) -> None:
    """The snapshot of DATASET.TABLE that holds all changes up to a position, or the last one before a time.

    It says what the shards' connectors had committed by then, and what was proven of it.
    """
    require_extra("lake")
    if (position is None) == (moment is None):
        raise BadInput("one of --position and --time is needed.", cure="Give one of them.")
    dataset, _, table = name.partition(".")
    settings = Settings.load()
    with open_platform(settings) as platform:
        topology = platform.topology.load()
        known = topology.dataset(dataset)
        [(_, policy)] = _tables(settings, topology, dataset, (table,))
    own = None if shard is None else topology.choose(dataset, (shard,))[0].id
    view = _before(policy, known, table, moment) if moment else _covering(policy, known, table, position or "", own)
    found = standings(known.engine, view.state, AuditFrame(settings.audit_dir).latest(dataset, table))
    taken = datetime.fromtimestamp(view.snapshot.timestamp_ms / 1000, UTC)
    document = {
        "dataset": dataset,
        "table": table,
        "run": view.state.run,
        "snapshot": view.snapshot.snapshot_id,
        "committed_at": taken.isoformat(),
        "shards": [asdict(each) for each in found],
    }
    if as_json:
        echo(json.dumps(document, indent=2))
        return
    echo(
        f"{name}: run {view.state.run}, snapshot {view.snapshot.snapshot_id} of {table}_changes,"
        f" {taken:%Y-%m-%d %H:%M:%S}Z."
    )
    for each in found:
        echo(f"  {each.shard}: all changes up to {each.position or 'an unknown position'}; {each.said}.")


@lake.command()
@click.argument("dataset")
@click.option("--table", "tables", metavar="TABLE", multiple=True, help="Only this table; repeat it. All by default.")
@click.option("--keep-days", type=click.FloatRange(min=0), default=7.0, show_default=True, help="Younger ones stay.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def expire(dataset: str, tables: tuple[str, ...], keep_days: float, as_json: bool) -> None:
    """Forget old snapshots of DATASET's tables, and remove the files that only they have.

    Time travel ends there. The current rows are compared by digest before and after.
    """
    require_extra("lake")
    from cdc_platform.lake import maintenance

    now = datetime.now(UTC)
    found = [
        maintenance.expire(policy, dataset, name, timedelta(days=keep_days), now)
        for name, policy in _chosen(dataset, tables)
    ]
    _show(found, as_json, lambda one: f"{one.snapshots} snapshots and {one.files_removed} files removed")


@lake.command()
@click.argument("dataset")
@click.option("--table", "tables", metavar="TABLE", multiple=True, help="Only this table; repeat it. All by default.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def compact(dataset: str, tables: tuple[str, ...], as_json: bool) -> None:
    """Write the changes of DATASET's tables again, in few files. Events and rows are compared by digest."""
    require_extra("lake")
    from cdc_platform.lake import maintenance

    found = [maintenance.compact(policy, dataset, name) for name, policy in _chosen(dataset, tables)]
    _show(found, as_json, lambda one: f"{one.files_before} files of changes before, {one.files_after} now")


@lake.command()
@click.argument("name", metavar="DATASET.TABLE")
@click.option("--shard", metavar="SHARD", required=True, help="The shard that the row was of.")
@click.option("--key", metavar="KEY", required=True, help="As in `cdc_key`; columns of a key with commas between.")
@click.option("--yes", is_flag=True, help="Do it; without, nothing is done.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def erase(name: str, shard: str, key: str, yes: bool, as_json: bool) -> None:
    """Remove all events of a key of DATASET.TABLE that the source has deleted, and all snapshots before that.

    The topic loses them by compaction.
    """
    require_extra("lake")
    from cdc_platform.lake import maintenance

    dataset, _, table = name.partition(".")
    [(_, policy)] = _chosen(dataset, (table,))
    if not yes:
        raise BadInput("this ends time travel, and cannot be undone.", field="--yes", cure="Give --yes to do it.")
    found = maintenance.erase(policy, dataset, table, shard, key, datetime.now(UTC))
    _show(
        [found], as_json, lambda one: f"{one.rows_erased} events and rows of the key erased, {one.snapshots} snapshots"
    )


@lake.command()
@click.argument("name", metavar="DATASET.TABLE")
@click.option("--apply", is_flag=True, help="Do it; without, it is only shown what would be done.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def repair(name: str, apply: bool, as_json: bool) -> None:
    """Write those rows of DATASET.TABLE's lake again that are not the topic's, and prove it."""
    require_extra("lake")
    from cdc_platform.lake.repair import repair_lake

    dataset, _, table = name.partition(".")
    with open_platform(Settings.load()) as platform:
        topology = platform.topology.load()
        [(_, policy)] = _tables(platform.settings, topology, dataset, (table,))
        found = repair_lake(verification_of(platform), topology, dataset, table, policy, apply=apply)
    if as_json:
        echo(json.dumps(asdict(found), indent=2))
    else:
        done = "written again" if apply else "to be written again; add --apply to do it"
        echo(f"{table}: {found.rewritten} rows {done}, {found.removed} that the topic does not have.")
        for one in found.verdicts:
            echo(f"  {one.shard}: {one.verdict}")
    wrong = found.rewritten + found.removed if not apply else found.unproven
    sys.exit(2 if wrong else 0)


def _chosen(dataset: str, tables: tuple[str, ...]) -> list[tuple[str, LakePolicy]]:
    settings = Settings.load()
    with open_platform(settings) as platform:
        return _tables(settings, platform.topology.load(), dataset, tables)


def _show(found: Sequence[Upkeep], as_json: bool, said: Callable[[Upkeep], str]) -> None:
    if as_json:
        echo(json.dumps({"tables": [asdict(one) for one in found]}, indent=2))
        return
    for one in found:
        rows = int(one.digest.partition(":")[0])
        echo(f"{one.table}: {said(one)}; all {rows} rows as before.")


def _tables(
    settings: Settings, topology: Topology, dataset: str, names: tuple[str, ...]
) -> list[tuple[str, LakePolicy]]:
    """The tables that land in the lake, each with the policy. Raises BadInput and TopologyError."""
    known = topology.dataset(dataset)
    policy = LakePolicy.permitted(known, settings)
    chosen = [known.table(name).name for name in names] or [table.name for table in known.tables]
    if policy is not None:
        chosen = [name for name in chosen if policy.takes(name)]
    if policy is None or not chosen:
        raise BadInput(
            f"no such table of {dataset} lands in a lake.", cure="Give the dataset a block `lake` (docs/lake.md)."
        )
    return [(name, policy) for name in chosen]


def _views(policy: LakePolicy, dataset: str, table: str) -> Iterator[LakeView]:
    """The views of all snapshots, the newest first."""
    from cdc_platform.lake.current import open_view
    from cdc_platform.lake.maintenance import whole_snapshots

    newest = open_view(policy, dataset, table)
    for snapshot in whole_snapshots(newest.changes):
        yield open_view(policy, dataset, table, snapshot.snapshot_id)


def _before(policy: LakePolicy, dataset: Dataset, table: str, text: str) -> LakeView:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(f"{text!r} is not a time.", field="--time", cure="Write it as 2026-01-31T12:00:00.") from None
    moment = moment.replace(tzinfo=moment.tzinfo or UTC)
    for view in _views(policy, dataset.name, table):
        if view.snapshot.timestamp_ms <= moment.timestamp() * 1000:
            return view
    raise NotFound(f"the lake had no rows of {dataset.name}.{table} at {text}.", cure="Name a later time.")


def _covering(policy: LakePolicy, dataset: Dataset, table: str, text: str, shard: str | None) -> LakeView:
    """The oldest view that holds everything up to the position."""
    position = parse_position(dataset.engine, text)
    found: LakeView | None = None
    for view in _views(policy, dataset.name, table):
        if shard is None and len(view.state.shards) != 1:
            raise BadInput("a position is one shard's.", field="--shard", cure="Name the shard.")
        state: Any = view.state.shards.get(shard or next(iter(view.state.shards)))
        if state is None or not Committed(dataset.engine, state.position).reached(position):
            break
        found = view
    if found is None:
        raise NotFound(
            f"the lake has not got to {text} yet, as far as its connectors' offsets say.",
            cure="Run it, then ask again.",
        )
    return found
