"""`cdc-platform topology skip-statement`."""

from __future__ import annotations

import json

import click

from cdc_platform.cli.output import echo
from cdc_platform.planning.health.failures import masked
from cdc_platform.settings import Settings
from cdc_platform.snapshots.observed_connectors import observe_connectors
from cdc_platform.snapshots.unparsed_statements import skips, stopped_shards
from cdc_platform.wiring import open_platform


@click.command("skip-statement")
@click.argument("dataset")
@click.argument("shards", nargs=-1, metavar="[SHARD]...")
@click.option("--force", is_flag=True, help="Though the statement names a captured table: it is of another database.")
@click.option("--dry-run", is_flag=True, help="Only show the statements.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def skip_statement(dataset: str, shards: tuple[str, ...], force: bool, dry_run: bool, as_json: bool) -> None:
    """Let shards pass over the statement that Debezium cannot parse (`ddl-unparsed`).

    Each SHARD, or without one all of DATASET that stand at such a statement, goes on from
    its saved position with the next pass (`apply`): nothing is lost, and no row is read
    again. A statement that names a captured table is refused. The exact statement is
    stored in `connector` of the shard, and may be removed there once the shard runs.
    """
    with open_platform(Settings.load()) as platform:
        topology = platform.topology.load()
        observed = observe_connectors(platform, topology)
        own = topology.dataset(dataset)
        stopped = stopped_shards(observed, topology.shards.get(dataset, ()))
        found = skips(observed, own, topology.choose(dataset, shards) if shards else stopped, force=force)
        if not dry_run:
            for skip in found:
                platform.topology.put_shard(skip.shard)
    if as_json:
        rows = [{"shard": skip.shard.name, "statement": masked(skip.statement)} for skip in found]
        echo(json.dumps({"skipped": rows, "dry_run": dry_run}, indent=2, ensure_ascii=False))
        return
    for skip in found:
        echo(f"{skip.shard.name}: {'would pass' if dry_run else 'passes'} over {masked(skip.statement)}")
    if not found:
        echo(f"No shard of {dataset} stands at a statement that Debezium cannot parse.")
    elif not dry_run:
        echo("The next pass gives the connectors their configuration; `cdc-platform apply` does so now.")
