"""Windows of time in a lake: up to when its runs are complete, the events of a window, and events that came late."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cdc_platform.errors import NotFound
from cdc_platform.lake.policy import LakePolicy
from cdc_platform.lake.tables import KEY, SEQ, STREAM, LakeState, Late, lake_errors, open_tables, state_of
from cdc_platform.model.positions import Committed
from cdc_platform.model.topology import Dataset, Engine
from cdc_platform.reading.batches import OPERATION, POSITION, SHARD
from cdc_platform.verification.windows.boundaries import OPEN, Marks, complete_up_to, windows_of

if TYPE_CHECKING:
    from pyiceberg.table import Table

# How long late events are remembered, and how many of their keys are named.
_KEPT = timedelta(days=7)
_NAMED = 5


def lake_reached(policy: LakePolicy, dataset: Dataset, table: str, marks: Mapping[str, Marks]) -> int:
    """The boundary up to which `changes` has all events of these shards; 0 without a run.

    Raises LakeUnavailable and ExtraMissing.
    """
    changes = open_tables(policy, dataset.name, table).changes()
    if changes is None or not marks:
        return 0
    with lake_errors(table):
        state = state_of(changes, changes.current_snapshot())
    reached = []
    for shard, own in marks.items():
        known = state.shards.get(shard)
        committed = None if known is None else Committed(dataset.engine, known.position)
        reached.append(complete_up_to(dataset.engine, _unreached(own), committed))
    return min(reached)


def window_events(
    policy: LakePolicy, dataset: Dataset, table: str, marks: Mapping[str, Marks], begin: int
) -> Iterator[pa.RecordBatch]:
    """The events of `changes` that committed in the window which begins there (seconds since 1970).

    At least once: what a connector sent again is there again, at another offset. Rows that snapshots read are of no
    window. Raises NotFound where a boundary of the window is not known (any more), LakeUnavailable, ExtraMissing.
    """
    end = _end(marks, begin)
    changes = open_tables(policy, dataset.name, table).changes()
    if changes is None:
        return
    with lake_errors(table):
        for batch in changes.scan().to_arrow_batch_reader():
            if STREAM not in batch.schema.names:
                return  # of before windows were kept
            own = batch.filter(pa.array(ends_of(dataset.engine, marks, batch) == end))
            if len(own):
                yield own


def ends_of(engine: Engine, marks: Mapping[str, Marks], batch: pa.RecordBatch) -> npt.NDArray[np.int64]:
    """For each event the boundary that ends its window; OPEN where that is not known."""
    found = np.full(len(batch), OPEN, dtype=np.int64)
    shards = np.array(batch[SHARD].to_pylist(), dtype=object)
    stream = np.array(batch[STREAM].fill_null(0)).astype(np.uint32)
    seq = np.array(batch[SEQ].fill_null(0)).astype(np.uint64)
    for shard, own in marks.items():
        chosen = shards == shard
        if chosen.any():
            found[chosen] = windows_of(engine, own, stream[chosen], seq[chosen])
    return found


class LateEvents:
    """Looks for events of windows that were whole by the run before: then they must have been in it, or be copies."""

    def __init__(self, engine: Engine, marks: Mapping[str, Marks], before: LakeState) -> None:
        self._engine, self._marks = engine, marks
        self._whole = {
            shard: complete_up_to(engine, _unreached(own), Committed(engine, before.shards[shard].position))
            for shard, own in marks.items()
            if shard in before.shards
        }
        # Shard, key, position and operation of each event to the boundary that ends its window.
        self._found: dict[tuple[str, str, str, str], int] = {}

    def look(self, batch: pa.RecordBatch) -> None:
        """Take in what a run writes."""
        if not self._whole or not len(batch):
            return
        ends = ends_of(self._engine, self._marks, batch)
        shards = batch[SHARD].to_pylist()
        whole = np.array([self._whole.get(shard, 0) for shard in shards])
        for at in np.flatnonzero((ends > 0) & (ends <= whole)).tolist():
            self._found[_identity(batch, at)] = int(ends[at])

    def found(self, changes: Table, now: datetime) -> tuple[Late, ...]:
        """Those that no run before this one has, by shard and window."""
        if self._found:
            self._drop_copies(changes)
        grouped: dict[tuple[str, int], list[str]] = {}
        for (shard, key, _, _), end in self._found.items():
            grouped.setdefault((shard, end), []).append(key)
        return tuple(
            Late(at=now.isoformat(), shard=shard, until=end, events=len(keys), keys=tuple(keys[:_NAMED]))
            for (shard, end), keys in sorted(grouped.items())
        )

    def _drop_copies(self, changes: Table) -> None:
        names = (SHARD, KEY, POSITION, OPERATION)
        for batch in changes.scan(selected_fields=names).to_arrow_batch_reader():
            for one in zip(*(batch[name].to_pylist() for name in names), strict=True):
                self._found.pop(one, None)


def _identity(batch: pa.RecordBatch, at: int) -> tuple[str, str, str, str]:
    shard, key, position, operation = (batch[name][at].as_py() for name in (SHARD, KEY, POSITION, OPERATION))
    return shard, key, position, operation


def kept(late: Sequence[Late], now: datetime) -> tuple[Late, ...]:
    """Those of the last week."""
    return tuple(each for each in late if now - datetime.fromisoformat(each.at) < _KEPT)


def _unreached(marks: Marks) -> Marks:
    return msgspec.structs.replace(marks, complete=0)


def _end(marks: Mapping[str, Marks], begin: int) -> int:
    for shard, own in marks.items():
        end = begin + own.seconds
        needed = [boundary for boundary in (begin, end) if boundary >= own.first]
        if any(boundary not in own.positions for boundary in needed):
            raise _unknown(shard)
    return begin + next(iter(marks.values())).seconds if marks else 0


def _unknown(shard: str) -> NotFound:
    return NotFound(
        f"the positions of that window are not known for shard {shard}.",
        cure="Positions are kept for 192 windows, and a window has them when it has ended on all shards.",
    )
