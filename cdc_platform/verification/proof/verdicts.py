"""What a verification says of a shard."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """Decided by positions, never by how long something took."""

    PROVEN = "proven"
    PENDING = "pending"
    MISMATCHED = "mismatched"
    UNVERIFIABLE = "unverifiable"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyDifference:
    """One key that differs, with the columns that do.

    `kind` is missing (in the source only), extra (in the topic only) or
    mismatched. `partition` and `offset` are those of the topic's last event of
    the key. No values: they may be secret.
    """

    key: str
    kind: str
    columns: tuple[str, ...] = ()
    partition: int | None = None
    offset: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardVerdict:
    """One row of the audit frame.

    `proven` says: every row of the source, at some position between `proven_from` and
    `proven_to`, equals the topic folded up to there. `committed` is the connector's
    offset that shows the topic had got so far; `lag_s` the seconds it took from
    `proven_to` until then. Counts are rows, those of the topic as of the positions at
    which the source was read; `samples` names some of the keys.
    `left_out` are columns that no event carries, `warnings` columns whose values
    the capture may get wrong, and keys whose last record in the topic is stale.
    """

    dataset: str
    table: str
    shard: str
    verdict: Verdict
    reason: str
    run_id: str
    checked_at: datetime
    topic: str
    source: str
    source_rows: int = 0
    topic_rows: int = 0
    missing: int = 0
    extra: int = 0
    mismatched: int = 0
    proven_from: str = ""
    proven_to: str = ""
    committed: str = ""
    lag_s: float | None = None
    seconds: float = 0.0
    columns: int = 0
    left_out: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    samples: tuple[KeyDifference, ...] = ()

    def document(self) -> dict[str, Any]:
        """Its fields. `first` and `fence` are the old names of `proven_from` and `proven_to`, kept for one release."""
        return asdict(self) | {
            "verdict": str(self.verdict),
            "first": self.proven_from,
            "fence": self.proven_to,
        }
