"""A position in the source's log for every event of a partition, also for those that carry none.

The order of a key's events is (epoch, seq), then offset. Streamed events carry
their position. Rows of an incremental snapshot and lone tombstones take that
of the last streamed event before them in the partition: Debezium emits such a
row at a moment when all earlier events of its key have been sent and no later
one has. The rows of a full snapshot open a new epoch: whatever came before is
superseded, also by a source whose positions have started over.

A tombstone that follows the delete event of its key says nothing new and is
dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from cdc_platform.verification.proof.change_events import DELETED, OWN, SNAPSHOT, STREAMED, TOMBSTONE, Decoded, Events

# Deletes whose tombstone is still to come; each has one, at once or not at all.
_PENDING = 50_000

# What is carried from batch to batch for each shard of a partition.
CARRIED = np.dtype([("epoch", "u2"), ("snapshot", "?"), ("stream", "u4"), ("seq", "u8"), ("events", "i8")])


@dataclass(slots=True)
class PositionAssigner:
    """Works through one partition, batch by batch; `carried` has one entry a shard number."""

    carried: npt.NDArray[np.void] = field(default_factory=lambda: np.zeros(0, dtype=CARRIED))
    deletes: dict[tuple[int, int, int], None] = field(default_factory=dict)

    def assign(self, decoded: Decoded, shards: int) -> Events:
        """The batch's events with epoch, stream, seq and sub filled in. `shards`: how many are known."""
        if shards > len(self.carried):
            more = np.zeros(shards - len(self.carried), dtype=CARRIED)
            self.carried = np.concatenate([self.carried, more])
        events, kinds = self._without_own_tombstones(decoded.events, decoded.kinds)
        if not len(events):
            return events
        if ((kinds != STREAMED) & (kinds != DELETED)).any():
            self._assign_all(events, kinds)
        else:
            self._note_streamed(events)
        return events

    def _without_own_tombstones(self, events: Events, kinds: Any) -> tuple[Events, Any]:
        dropped = []
        for at in np.flatnonzero((kinds == DELETED) | (kinds == TOMBSTONE)):
            key = (int(events["shard"][at]), int(events["key"][at]), int(events["raw"][at]))
            if kinds[at] == DELETED:
                self.deletes[key] = None
            elif key in self.deletes:
                del self.deletes[key]
                dropped.append(at)
        while len(self.deletes) > _PENDING:
            del self.deletes[next(iter(self.deletes))]
        if not dropped:
            return events, kinds
        return np.delete(events, dropped), np.delete(kinds, dropped)

    def _note_streamed(self, events: Events) -> None:
        """The fast way: only streamed events, which carry their positions; the last one is noted."""
        shard = events["shard"]
        events["epoch"] = self.carried["epoch"][shard]
        seq = self.carried["seq"].copy()
        np.maximum.at(seq, shard, events["seq"])
        ahead = (events["seq"] == seq[shard]) & (events["seq"] > self.carried["seq"][shard])
        self.carried["stream"][shard[ahead]] = events["stream"][ahead]
        self.carried["seq"] = seq
        counts = np.bincount(shard, minlength=len(self.carried))
        self.carried["snapshot"][counts > 0] = False
        self.carried["events"] += counts

    def _assign_all(self, events: Events, kinds: Any) -> None:
        order = np.argsort(events["shard"], kind="stable")
        part, sorts = events[order], kinds[order]
        shard = part["shard"]
        codes, starts, counts = np.unique(shard, return_index=True, return_counts=True)
        full = sorts == SNAPSHOT
        before = np.concatenate([[False], full[:-1]])
        before[starts] = self.carried["snapshot"][codes]
        opened = np.cumsum(full & ~before)
        # Epochs count on from what was carried, shard by shard.
        base = opened[starts] - (full & ~before)[starts]
        epoch = opened - np.repeat(base, counts) + np.repeat(self.carried["epoch"][codes].astype(np.int64), counts)
        fresh = epoch == np.repeat(self.carried["epoch"][codes], counts)
        part["epoch"] = np.minimum(epoch, 65_535)

        positioned = (sorts == STREAMED) | (sorts == DELETED)
        seqs = np.where(positioned, part["seq"], 0).astype(np.uint64)
        carried_seq = np.repeat(self.carried["seq"][codes], counts)
        seqs = np.where(fresh & (seqs < carried_seq), carried_seq, seqs)
        values, rank = np.unique(seqs, return_inverse=True)
        segment = np.cumsum(np.append(True, (np.diff(shard.astype(np.int64)) != 0) | (np.diff(epoch) != 0))) - 1
        running = np.maximum.accumulate((segment.astype(np.uint64) << np.uint64(32)) | rank.astype(np.uint64))
        highest = values[(running & np.uint64(0xFFFFFFFF)).astype(np.int64)]

        streams = self._streams(part, positioned, codes)
        loose = ~positioned
        part["seq"][loose] = np.where(full[loose], 0, highest[loose])
        part["stream"][loose] = [
            streams.get((int(s), int(q)), 0) for s, q in zip(shard[loose], part["seq"][loose], strict=True)
        ]
        part["sub"][loose] = OWN | part["offset"][loose].astype(np.uint64)
        events[order] = part

        ends = starts + counts - 1
        self.carried["epoch"][codes] = part["epoch"][ends]
        self.carried["seq"][codes] = highest[ends]
        self.carried["stream"][codes] = [
            streams.get((int(s), int(q)), 0) for s, q in zip(codes, highest[ends], strict=True)
        ]
        self.carried["snapshot"][codes] = full[ends]
        self.carried["events"][codes] += counts

    def _streams(self, part: Events, positioned: Any, codes: Any) -> dict[tuple[int, int], int]:
        """(shard, seq) to the stream of that event."""
        found = {(int(code), int(self.carried["seq"][code])): int(self.carried["stream"][code]) for code in codes}
        streamed = part[positioned]
        if len(streamed):
            pairs = zip(streamed["shard"].tolist(), streamed["seq"].tolist(), strict=True)
            found.update(zip(pairs, streamed["stream"].tolist(), strict=True))
        return found
