"""What the policy of a table judges: one row a shard, with its verdict, duplicates and ledger. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from cdc_platform.model.topology import EMPTY
from cdc_platform.verification.continuity.breaks import ShardContinuity
from cdc_platform.verification.duplicates.causes import Cause, ShardDuplicates
from cdc_platform.verification.proof.verdicts import ShardVerdict, Verdict, foreign_rows

# Columns of the rows: all of them always, so that a policy finds them in an empty one too.
COLUMNS = (
    "dataset", "table", "shard", "verdict", "reason", "source_rows", "topic_rows", "missing", "extra", "mismatched",
    "foreign_rows", "lag_s", "age_s", "fence", "proven_to", "run_id", "columns_behind", "duplicates",
    "duplicates_alarming", "transactions", "breaks",
    *(str(cause) for cause in Cause),
)  # fmt: skip

# The verdict of a shard that was never verified.
UNVERIFIED = "unverified"


def judged_rows(
    dataset: str,
    table: str,
    shards: Sequence[str],
    *,
    verdicts: Iterable[ShardVerdict],
    duplicates: Mapping[str, ShardDuplicates],
    now: datetime,
    continuity: Mapping[str, ShardContinuity] = EMPTY,
) -> list[dict[str, Any]]:
    """One row for each shard of the topology, `unverified` where there is no verdict.

    Numbers that are not known (lag, age, duplicates not counted, no ledger) are None. `breaks` counts those that
    no proof has followed. `foreign_rows` is the table's, the same in all rows.
    """
    verdicts = list(verdicts)
    foreign = foreign_rows(verdicts)
    known = {verdict.shard: verdict for verdict in verdicts}
    widest = max((verdict.columns for verdict in known.values()), default=0)
    rows = []
    for shard in shards:
        verdict, sent = known.get(shard), duplicates.get(shard)
        row: dict[str, Any] = dict.fromkeys(COLUMNS)
        row |= {"dataset": dataset, "table": table, "shard": shard, "verdict": UNVERIFIED, "reason": ""}
        row["foreign_rows"] = None if foreign is None else foreign.rows
        if verdict is not None:
            names = ("reason", "source_rows", "topic_rows", "missing", "extra", "mismatched", "lag_s", "proven_to")
            row |= {name: getattr(verdict, name) for name in names}
            row |= {
                "verdict": str(verdict.verdict),
                "fence": verdict.proven_to,  # its name of before, for one release
                "run_id": verdict.run_id,
                "age_s": (now - verdict.checked_at).total_seconds(),
                "columns_behind": widest - verdict.columns if verdict.columns else None,
            }
        if sent is not None:
            row |= {str(cause): sent.counts.get(cause, 0) for cause in Cause}
            row |= {"duplicates": sent.total, "duplicates_alarming": sent.alarming}
        kept = continuity.get(shard)
        if kept is not None:
            proven = verdict.checked_at if verdict is not None and verdict.verdict is Verdict.PROVEN else None
            row |= {"transactions": kept.checked, "breaks": len(kept.unproven(proven))}
        rows.append(row)
    return rows
