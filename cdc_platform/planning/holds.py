"""What passes leave to bootstraps and backfills. Pure.

A hold keeps passes away from a shard while its offsets are changed. And some options of a connector
are read only when a snapshot begins: a pass gives them to a connector that it creates and leaves
those of an existing one as they are (docs/decisions/0081).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from cdc_platform.planning.records import Kept, Record, Writer

# Read when a connector has no offsets, and when an incremental snapshot reads its chunks.
SNAPSHOT_OPTIONS = ("snapshot.mode", "incremental.snapshot.chunk.size")
# `watermark/<dataset>/<table>/<shard>`: what is known of a (shard, table); see snapshots/run_records.py.
WATERMARK = "watermark/"


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldRecord(Record):
    """Passes leave the shard alone: the run that asks for it, why, and since when."""

    kept = Kept("hold", Writer.SNAPSHOT)

    run: str
    reason: str
    since: datetime


def keep_snapshot_options(desired: Mapping[str, str], current: Mapping[str, str]) -> Mapping[str, str]:
    """The desired config of a connector that exists: its snapshot options stay."""
    kept = {key: current[key] for key in SNAPSHOT_OPTIONS if key in desired and key in current}
    return {**desired, **kept} if any(desired[key] != value for key, value in kept.items()) else desired
