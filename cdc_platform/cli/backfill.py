"""`cdc-platform backfill`: rows that exist once more through the stream, which goes on."""

from __future__ import annotations

from typing import Any

import click

from cdc_platform.cli.run_progress import handle, request_options
from cdc_platform.snapshots.request import RunKind


@click.command()
@request_options(RunKind.BACKFILL)
def backfill(**given: Any) -> None:
    """Send the rows of SHARDS (ids or FIRST-LAST) of DATASET again; of all its shards by default.

    Interrupted or killed, --continue goes on.

    Exits 0 when all shards are done, 1 when one failed.
    """
    handle(RunKind.BACKFILL, given)
