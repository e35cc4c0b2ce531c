"""`cdc-platform bootstrap`: how shards get their first data, or start from scratch."""

from __future__ import annotations

from typing import Any

import click

from cdc_platform.cli.run_progress import handle, request_options
from cdc_platform.snapshots.request import RunKind


@click.command()
@request_options(RunKind.BOOTSTRAP)
def bootstrap(**given: Any) -> None:
    """Give SHARDS (ids or FIRST-LAST) of DATASET their first data; all that have none by default.

    --lost repairs shards that cannot go on from their saved position: they start from scratch, all rows are
    read again, and what may have been lost is reported. Interrupted or killed, --continue goes on.

    Exits 0 when all shards are done, 1 when one failed.
    """
    handle(RunKind.BOOTSTRAP, given)
