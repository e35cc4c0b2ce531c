"""Verdicts as Arrow tables, one row a shard: what the audit frame holds as Parquet."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from typing import Any

import msgspec
import pyarrow as pa

from cdc_platform.verification.proof.verdicts import ShardVerdict

# Written into each table. Readers take columns of other releases for what they are: new ones are left out, missing
# ones take their default. What cannot be read so has a greater number.
VERSION = 1
_VERSION = b"cdc.version"

_SAMPLE = pa.struct(
    [
        ("key", pa.string()),
        ("kind", pa.string()),
        ("columns", pa.list_(pa.string())),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
    ]
)
SCHEMA = pa.schema(
    [
        ("dataset", pa.string()),
        ("table", pa.string()),
        ("shard", pa.string()),
        ("verdict", pa.string()),
        ("reason", pa.string()),
        ("run_id", pa.string()),
        ("checked_at", pa.timestamp("us", tz="UTC")),
        ("topic", pa.string()),
        ("source", pa.string()),
        ("source_rows", pa.int64()),
        ("topic_rows", pa.int64()),
        ("missing", pa.int64()),
        ("extra", pa.int64()),
        ("mismatched", pa.int64()),
        # The names that `proven_from` and `proven_to` had: for one release beside the new ones.
        ("first", pa.string()),
        ("fence", pa.string()),
        ("proven_from", pa.string()),
        ("proven_to", pa.string()),
        ("committed", pa.string()),
        ("lag_s", pa.float64()),
        ("seconds", pa.float64()),
        ("columns", pa.int32()),
        ("left_out", pa.list_(pa.string())),
        ("warnings", pa.list_(pa.string())),
        ("samples", pa.list_(_SAMPLE)),
        ("foreign_rows", pa.int64()),
        ("foreign_shards", pa.list_(pa.string())),
    ],
    metadata={_VERSION: str(VERSION)},
)


def to_table(verdicts: Sequence[ShardVerdict]) -> Any:
    """The verdicts as an Arrow table of `SCHEMA`."""
    return pa.Table.from_pylist([verdict.document() for verdict in verdicts], SCHEMA)


def from_table(table: Any) -> list[ShardVerdict]:
    """The inverse of `to_table`. Columns of other releases are left out; missing ones take their default."""
    found = []
    for row in table.to_pylist():
        given = {name: value for name, value in row.items() if value is not None}
        given["proven_from"] = given.get("proven_from") or given.get("first", "")
        given["proven_to"] = given.get("proven_to") or given.get("fence", "")
        given["checked_at"] = given["checked_at"].astimezone(UTC)
        found.append(msgspec.convert(given, ShardVerdict))
    return found


def version_of(table: Any) -> int:
    """The version that a table was written as; those of releases that wrote none are of the first."""
    return int((table.schema.metadata or {}).get(_VERSION, b"1"))


def last_of_each_shard(table: Any) -> Any:
    """The rows with the latest `checked_at` of their shard; of two at one moment the later row."""
    latest: dict[str, tuple[Any, int]] = {}
    times = table.column("checked_at").cast(pa.int64()).to_pylist()
    for at, (shard, checked) in enumerate(zip(table.column("shard").to_pylist(), times, strict=True)):
        if shard not in latest or latest[shard][0] <= checked:
            latest[shard] = (checked, at)
    return table.take(pa.array(sorted(at for _, at in latest.values()), type=pa.int64()))


def concatenated(tables: Sequence[Any]) -> Any:
    """Tables of this and of earlier versions in one."""
    return pa.concat_tables([SCHEMA.empty_table(), *tables], promote_options="default")
