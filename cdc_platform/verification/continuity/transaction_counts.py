"""How many events of each transaction a task run has sent: what the ledger takes in. Pure, on arrays."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from cdc_platform.verification.duplicates.deliveries import Deliveries, mixed
from cdc_platform.verification.proof.change_events import Words

# So many distinct events of a transaction were sent by a task run, from `offset` on. A `run` with the bit
# TOGETHER stands for all runs of its shard that number on: what one of them sent again is not counted.
TRANSACTION_COUNT = np.dtype([("transaction", "u8"), ("run", "u4"), ("count", "u4"), ("offset", "i8"), ("time", "i8")])

TOGETHER = np.uint32(1 << 31)


def count_transactions(
    fresh: Deliveries, transactions: Words, copied: npt.NDArray[np.bool_], counting_on: Collection[int]
) -> npt.NDArray[np.void]:
    """How many distinct events each task run sent of each transaction; rows of snapshots have none.

    A run that numbers on in mid-transaction sends an END that counts all of it, its predecessor's part too. So those
    of `counting_on` (numbers of runs) are counted together, without the `copied`.
    """
    on = np.isin(fresh["run"], list(counting_on))
    streamed = (transactions != 0) & ~(on & copied)
    if not streamed.any():
        return np.zeros(0, dtype=TRANSACTION_COUNT)
    run = np.where(on, fresh["run"] | TOGETHER, fresh["run"])[streamed]
    # Most transactions have one event in a partition, so only the others' events are told apart.
    groups = mixed(mixed(run.astype(np.uint64)) ^ transactions[streamed])
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.append(True, groups[order][1:] != groups[order][:-1]))
    count = np.diff(np.append(starts, len(order)))
    indexes = np.flatnonzero(streamed)[order]
    found = np.zeros(len(starts), dtype=TRANSACTION_COUNT)
    found["transaction"], found["run"] = transactions[indexes[starts]], run[order[starts]]
    found["offset"] = np.minimum.reduceat(fresh["offset"][indexes], starts)
    found["time"] = np.maximum.reduceat(fresh["time"][indexes], starts)
    found["count"] = count
    several = np.repeat(count > 1, count)
    if several.any():
        group = np.repeat(np.arange(len(starts)), count)[several]
        events = fresh[indexes[several]]
        found["count"] -= _again(group, events["key"], events["position"], len(starts))
    return found


def _again(group: npt.NDArray[np.int64], keys: Words, at: Words, groups: int) -> npt.NDArray[np.uint32]:
    """How many events of each group are in it already, by key and position."""
    order = np.lexsort((at, keys, group))
    same = np.ones(len(order) - 1, dtype=np.bool_)
    for values in (group, keys, at):
        ranked = values[order]
        same &= ranked[1:] == ranked[:-1]
    return np.bincount(group[order][1:][same], minlength=groups).astype(np.uint32)
