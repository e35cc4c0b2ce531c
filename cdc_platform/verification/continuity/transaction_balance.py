"""Transactions are whole when the table's topic has as many of their events as their END counts. Pure, on arrays."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cdc_platform.model.position_codec import parse_lsn
from cdc_platform.model.positions import parse_position
from cdc_platform.model.topology import Engine
from cdc_platform.verification.proof.change_events import Words

# An END as far as it is about one table. `stream` and `seq` are the position of the transaction's end, `record`
# is where it stands (`change_events.packed`), `time` its own (ms).
END = np.dtype(
    [
        ("transaction", "u8"), ("shard", "u4"), ("count", "u4"), ("stream", "u4"), ("seq", "u8"),
        ("record", "i8"), ("time", "i8"),
    ]
)  # fmt: skip


# So many distinct events of a transaction were sent by a task run.
SEEN = np.dtype(
    [("transaction", "u8"), ("shard", "u4"), ("run", "u4"), ("count", "u4"), ("record", "i8"), ("time", "i8")]
)


Rows = npt.NDArray[np.void]


@dataclass(frozen=True, slots=True)
class Balance:
    """What is left of ENDs and of events, how many transactions of each shard (by number) are whole, and which."""

    checked: Mapping[int, int]
    ends: Rows
    seen: Rows
    closed: Words


def balance(ends: Rows, seen: Rows, closed: Words) -> Balance:
    """Transactions whose last END is matched by the events of one task run.

    A run that took over in mid-transaction sends the rest of it, and an END that counts only the rest:
    so the last END counts, and what one run sent is not added to what another did. What is sent again of
    those that were whole before (`closed`) is left out.
    """
    ends, seen = (rows[~np.isin(transaction_keys(rows), closed)] for rows in (ends, seen))
    ends, seen = _last_ends(ends), _by_run(seen)
    of_ends, of_seen = transaction_keys(ends), transaction_keys(seen)
    order = np.argsort(of_seen, kind="stable")
    ranked = of_seen[order]
    starts = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1])) if len(ranked) else np.zeros(0, np.int64)
    most = np.maximum.reduceat(seen["count"][order], starts) if len(starts) else np.zeros(0, np.uint32)
    keys = ranked[starts]
    at = np.searchsorted(keys, of_ends)
    known = at < len(keys)
    known[known] = keys[at[known]] == of_ends[known]
    found = np.zeros(len(ends), dtype=np.uint32)
    found[known] = most[at[known]]
    whole = found >= ends["count"]
    shards, counts = np.unique(ends["shard"][whole], return_counts=True)
    return Balance(
        dict(zip(shards.tolist(), counts.tolist(), strict=True)),
        ends[~whole],
        seen[~np.isin(of_seen, of_ends[whole])],
        of_ends[whole],
    )


def found_of(ends: Rows, seen: Rows) -> list[int]:
    """How many events of each END's transaction there are: the most of any one run."""
    most: dict[tuple[int, int], int] = defaultdict(int)
    for row in _by_run(seen):
        key = (int(row["shard"]), int(row["transaction"]))
        most[key] = max(most[key], int(row["count"]))
    return [most[int(row["shard"]), int(row["transaction"])] for row in ends]


def handed_on(engine: Engine, committed: str, ends: Rows) -> npt.NDArray[np.bool_]:
    """Which of these transactions lie at or before a committed position (text of a GTID set or an LSN).

    All of their records were acknowledged before the commit. Raises BadInput.
    """
    if engine is Engine.POSTGRES:
        reached: npt.NDArray[np.bool_] = ends["seq"] <= np.uint64(parse_lsn(committed))
        return reached
    return parse_position(engine, committed).sees(ends["stream"], ends["seq"])


def _last_ends(ends: Rows) -> Rows:
    order = np.lexsort((ends["record"], ends["transaction"], ends["shard"]))
    ends = ends[order]
    if not len(ends):
        return ends
    last = (ends["transaction"][1:] != ends["transaction"][:-1]) | (ends["shard"][1:] != ends["shard"][:-1])
    kept: Rows = ends[np.append(last, True)]
    return kept


def _by_run(seen: Rows) -> Rows:
    """Counts of one run in several partitions, and of several readings, in one."""
    order = np.lexsort((seen["run"], seen["transaction"], seen["shard"]))
    seen = seen[order]
    if not len(seen):
        return seen
    names = ("shard", "transaction", "run")
    new = np.any([seen[name][1:] != seen[name][:-1] for name in names], axis=0)
    starts = np.flatnonzero(np.append(True, new))
    found: Rows = seen[starts].copy()
    found["count"] = np.add.reduceat(seen["count"], starts)
    found["record"] = np.minimum.reduceat(seen["record"], starts)
    found["time"] = np.maximum.reduceat(seen["time"], starts)
    return found


def transaction_keys(rows: Rows) -> Words:
    """Shard and transaction in one number."""
    word = rows["transaction"] ^ (rows["shard"].astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    spread: Words = (word ^ (word >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
    return spread


def bucket_of(rows: Rows, buckets: int) -> npt.NDArray[np.uint64]:
    """In which of so many parts a row's transaction is: parts are balanced one by one, to bound memory."""
    parts: npt.NDArray[np.uint64] = (transaction_keys(rows) >> np.uint64(33)) % np.uint64(buckets)
    return parts
