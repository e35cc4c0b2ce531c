"""`cdc-platform backfill`: rows that exist once more through the stream, which goes on."""

from __future__ import annotations

from typing import Any

import click

from cdc_platform.cli.run_progress import handle, run_options
from cdc_platform.errors import BadInput
from cdc_platform.snapshots.request import KeyRange, Load, Request, RunKind


@click.command()
@click.argument("dataset", required=False)
@click.argument("shards", nargs=-1)
@click.option("--table", "tables", multiple=True, help="Only this table.")
@click.option("--where", "condition", metavar="SQL", help="Only rows that fulfil this condition.")
@click.option("--key", "column", metavar="COLUMN", help="The column that --from and --to are about.")
@click.option("--from", "low", metavar="VALUE", help="Rows from this key on.")
@click.option("--to", "high", metavar="VALUE", help="Rows before this key.")
@run_options
def backfill(
    dataset: str | None,
    shards: tuple[str, ...],
    tables: tuple[str, ...],
    condition: str | None,
    column: str | None,
    low: str | None,
    high: str | None,
    failed_of: str | None,
    **given: Any,
) -> None:
    """Send the rows of SHARDS (ids or FIRST-LAST) of DATASET again; of all its shards by default.

    Interrupted or killed, --continue goes on.

    Exits 0 when all shards are done, 1 when one failed.
    """

    def make(load: Load) -> Request | None:
        if dataset is None:
            return None
        return Request(
            kind=RunKind.BACKFILL,
            dataset=dataset,
            tables=tables,
            shards=shards,
            failed_of=failed_of,
            condition=condition,
            key_range=_range(column, low, high),
            load=load,
        )

    handle(RunKind.BACKFILL, given, make)


def _range(column: str | None, low: str | None, high: str | None) -> KeyRange | None:
    if column is None and low is None and high is None:
        return None
    if column is None:
        raise BadInput("--from and --to need a column.", where="--key", cure="Name it with --key.")
    return KeyRange(column=column, low=low, high=high)
