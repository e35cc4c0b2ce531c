"""`cdc-platform bootstrap`: how shards get their first data, or start anew."""

from __future__ import annotations

from typing import Any

import click

from cdc_platform.cli.run_progress import handle, run_options
from cdc_platform.errors import BadInput
from cdc_platform.model.topology import EMPTY, BootstrapMode
from cdc_platform.snapshots.request import Load, Request, RunKind


@click.command()
@click.argument("dataset", required=False)
@click.argument("shards", nargs=-1)
@click.option("--table", "tables", multiple=True, help="Only this table (mode incremental).")
@click.option("--mode", type=click.Choice([str(mode) for mode in BootstrapMode]), help="The dataset's own by default.")
@click.option("--position", "positions", multiple=True, metavar="SHARD=POSITION", help="A GTID, FILE:POS or an LSN.")
@click.option("--schema-unchanged", is_flag=True, help="No captured table was altered since the positions.")
@click.option("--again", is_flag=True, help="Also shards that were bootstrapped before: their offsets are reset.")
@click.option("--lost", is_flag=True, help="The shards whose binlog is purged or whose slot is gone.")
@run_options
def bootstrap(
    dataset: str | None,
    shards: tuple[str, ...],
    tables: tuple[str, ...],
    mode: str | None,
    positions: tuple[str, ...],
    schema_unchanged: bool,
    again: bool,
    lost: bool,
    failed_of: str | None,
    **given: Any,
) -> None:
    """Give SHARDS (ids or FIRST-LAST) of DATASET their first data; all that have none by default.

    A shard that lost its place in the source's log is cured by --lost: it starts anew, all rows are read
    again, and what may have been lost is told. Interrupted or killed, --continue goes on.

    Exits 0 when all shards are done, 1 when one failed.
    """

    def make(load: Load) -> Request | None:
        if dataset is None:
            return None
        return Request(
            kind=RunKind.BOOTSTRAP,
            dataset=dataset,
            tables=tables,
            shards=shards,
            failed_of=failed_of,
            mode=BootstrapMode(mode) if mode else None,
            positions=dict(_position(text) for text in positions) or EMPTY,
            again=again,
            schema_unchanged=schema_unchanged,
            load=load,
        )

    handle(RunKind.BOOTSTRAP, given, make, lost=lost)


def _position(text: str) -> tuple[str, str]:
    shard, equals, position = text.partition("=")
    if not equals or not shard or not position:
        raise BadInput(f"{text!r} is not SHARD=POSITION.", where="--position", cure="Write 00000=0-1-50.")
    return shard, position
