"""What a verification says of a shard."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from cdc_platform.model.naming import some_of
from cdc_platform.verification.proof.change_events import NO_SHARD


class Verdict(StrEnum):
    """Decided by positions, never by how long something took."""

    PROVEN = "proven"
    PENDING = "pending"
    MISMATCHED = "mismatched"
    UNVERIFIABLE = "unverifiable"


WORST_FIRST = (Verdict.MISMATCHED, Verdict.UNVERIFIABLE, Verdict.PENDING, Verdict.PROVEN)


# Kinds of records that readers by key take for a row, while the row goes on, or ended, elsewhere: under another
# spelling of its key, or, by the same key, in another partition.
LEFTOVER, MOVED = "leftover", "moved"

# What a tombstone removes. All count as extra.
EXTRA_KINDS = frozenset({"extra", LEFTOVER, MOVED})


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyDifference:
    """One key that differs, with the columns that do.

    `kind` is missing (in the source only), extra (in the topic only), mismatched,
    LEFTOVER or MOVED. `partition` and `offset` are those of the topic's last event of
    the key. No values: they may be secret.
    """

    key: str
    kind: str
    columns: tuple[str, ...] = ()
    partition: int | None = None
    offset: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignRows:
    """Rows of shards that the topology lacks: how many, and whose."""

    rows: int
    shards: tuple[str, ...]

    def sentence(self, dataset: str, table: str) -> str:
        """What is wrong, and the cure."""
        named = " ".join(repr(shard) if shard == NO_SHARD else shard for shard in self.shards[:5])
        return (
            f"{self.rows} rows in the topic are of shards that the topology does not have:"
            f" {some_of(self.shards, 5)}. `cdc-platform repair {dataset} {named} --table {table} --tombstones` removes"
            " them."
        )


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
    `foreign_rows` is of the table, not of the shard: rows that the topic had then of shards that the topology
    lacks (`foreign_shards`; NO_SHARD: the key names none); None when they were not counted.
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
    foreign_rows: int | None = None
    foreign_shards: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """Its fields. `first` and `fence` are the old names of `proven_from` and `proven_to`, kept for one release."""
        return asdict(self) | {
            "verdict": str(self.verdict),
            "first": self.proven_from,
            "fence": self.proven_to,
        }


def foreign_rows(verdicts: Iterable[ShardVerdict]) -> ForeignRows | None:
    """What the newest of a table's verdicts that counted them says; None where none did."""
    counted = [verdict for verdict in verdicts if verdict.foreign_rows is not None]
    if not counted:
        return None
    newest = max(counted, key=lambda verdict: verdict.checked_at)
    return ForeignRows(rows=newest.foreign_rows or 0, shards=newest.foreign_shards)
