"""What it means to take one shard once more: first data for what has none, else its rows again. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cdc_platform.model.topology import BootstrapMode, Dataset
from cdc_platform.snapshots.request import Request, RunKind, bad_request
from cdc_platform.snapshots.request_options import request_of
from cdc_platform.snapshots.run_records import Records, watermarks

# Of a backfill's options those that say something of one shard alone.
OPTIONS_OF_A_SHARD = (
    "tables",
    "condition",
    "key_column",
    "key_from",
    "key_to",
    "max_rows_per_s",
    "max_bytes_per_s",
    "count_seconds",
)


def request_of_shard(records: Records, dataset: Dataset, shard: str, given: Mapping[str, Any]) -> Request:
    """The bootstrap or backfill that one shard needs.

    A shard without watermarks is bootstrapped in the dataset's own mode, one that lacks those of some tables takes
    these up beside its stream, and one that has all of them is backfilled.

    Args:
        records: of the state topic.
        dataset: the shard's.
        shard: its id.
        given: values by the names of OPTIONS_OF_A_SHARD; None: not given.

    Raises:
        BadInput, TopologyError: it cannot be done as asked.
    """
    known = watermarks(records, dataset.name)
    asked = {**given, "dataset": dataset.name, "shards": [shard]}
    chosen = [dataset.table(name).name for name in asked.get("tables") or ()] or [one.name for one in dataset.tables]
    lacking = [name for name in chosen if (name, shard) not in known]
    if not lacking:
        return request_of(RunKind.BACKFILL, asked)
    if len(lacking) < len(dataset.tables):
        return request_of(RunKind.BOOTSTRAP, {**asked, "tables": lacking, "mode": BootstrapMode.INCREMENTAL})
    if dataset.bootstrap is BootstrapMode.POSITION:
        raise bad_request(
            "positions",
            f"shard {dataset.name}.{shard} has no data yet, and its dataset is bootstrapped at positions.",
            "Launch the job bootstrap with a position for the shard.",
        )
    return request_of(RunKind.BOOTSTRAP, {**asked, "tables": []})
