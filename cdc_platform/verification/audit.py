"""The audit frame: one row a shard, what the policy of a table judges.

Verdicts are kept by table and shard under the cache directory, the newest of each
shard: runs on several hosts need a directory they share, or each host judges what it proved.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from cdc_platform.verification.duplicates import Cause, ShardDuplicates
from cdc_platform.verification.verdicts import ShardVerdict


class AuditStore:
    """The newest verdict of each shard of each table."""

    def __init__(self, cache: Path, platform: str) -> None:
        self._root = cache / "audit" / platform

    def write(self, verdicts: Iterable[ShardVerdict]) -> None:
        """Keep these; of two verdicts of one shard the one that was reached later."""
        by_table: dict[tuple[str, str], list[ShardVerdict]] = {}
        for verdict in verdicts:
            by_table.setdefault((verdict.dataset, verdict.table), []).append(verdict)
        for (dataset, table), found in by_table.items():
            place = self._root / dataset / table
            place.mkdir(parents=True, exist_ok=True)
            # Each writing is a file of its own, so that ranges of shards proven side by side lose none;
            # names are in the order of writing, which decides between verdicts of one moment.
            with tempfile.NamedTemporaryFile(dir=place, prefix=f"{time.time_ns():020d}-", delete=False) as part:
                part.write(msgspec.json.encode(found))
            os.replace(part.name, f"{part.name}.json")  # noqa: PTH105
            self._thin(place)

    def read(self, dataset: str, table: str) -> dict[str, ShardVerdict]:
        """Shard id to its newest verdict."""
        found: dict[str, ShardVerdict] = {}
        for path in sorted((self._root / dataset / table).glob("*.json")):
            try:
                verdicts = msgspec.json.decode(path.read_bytes(), type=list[ShardVerdict])
            except (FileNotFoundError, msgspec.DecodeError):
                continue  # thinned out meanwhile, or of another version
            for verdict in verdicts:
                known = found.get(verdict.shard)
                if known is None or known.checked_at <= verdict.checked_at:
                    found[verdict.shard] = verdict
        return found

    def _thin(self, place: Path, most: int = 200) -> None:
        """Many files become one."""
        paths = sorted(place.glob("*.json"), key=lambda path: path.name)
        if len(paths) <= most:
            return
        table, dataset = place.name, place.parent.name
        merged = list(self.read(dataset, table).values())
        whole = place / f"{paths[-1].stem}-whole"
        whole.write_bytes(msgspec.json.encode(merged))
        whole.replace(whole.with_name(f"{whole.name}.json"))
        for path in paths:
            path.unlink(missing_ok=True)


# Columns of the frame, each of one type, so that a policy finds them in an empty one too.
COLUMNS = (
    "dataset", "table", "shard", "verdict", "reason", "source_rows", "topic_rows", "missing", "extra", "mismatched",
    "lag_s", "age_s", "fence", "run_id", "columns_behind", "duplicates", "duplicates_alarming",
    *(str(cause) for cause in Cause),
)  # fmt: skip

# The verdict of a shard that was never looked at.
UNVERIFIED = "unverified"


def frame(
    dataset: str,
    table: str,
    shards: Sequence[str],
    *,
    verdicts: Mapping[str, ShardVerdict],
    duplicates: Mapping[str, ShardDuplicates],
    now: datetime,
) -> list[dict[str, Any]]:
    """One row for each shard of the topology, `unverified` where there is no verdict.

    Numbers that are not known (lag, age, duplicates not counted) are None.
    """
    widest = max((verdict.columns for verdict in verdicts.values()), default=0)
    rows = []
    for shard in shards:
        verdict, sent = verdicts.get(shard), duplicates.get(shard)
        row: dict[str, Any] = dict.fromkeys(COLUMNS)
        row |= {"dataset": dataset, "table": table, "shard": shard, "verdict": UNVERIFIED, "reason": ""}
        if verdict is not None:
            row |= {
                name: getattr(verdict, name)
                for name in ("reason", "source_rows", "topic_rows", "missing", "extra", "mismatched", "lag_s", "fence")
            }
            row |= {
                "verdict": str(verdict.verdict),
                "run_id": verdict.run_id,
                "age_s": (now - verdict.checked_at).total_seconds(),
                "columns_behind": widest - verdict.columns if verdict.columns else None,
            }
        if sent is not None:
            row |= {str(cause): sent.counts.get(cause, 0) for cause in Cause}
            row |= {"duplicates": sent.total, "duplicates_alarming": sent.alarming}
        rows.append(row)
    return rows
