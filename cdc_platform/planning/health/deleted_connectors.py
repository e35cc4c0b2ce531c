"""Connectors of ours that another program deletes: passes make them again, and say so. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from cdc_platform.model.naming import ShardName, some_of
from cdc_platform.planning.health.liveness import CapturedRecord
from cdc_platform.planning.records import Kept, Record

# So long after it was seen last it is over.
LASTS = timedelta(hours=1)
_MOST, _NAMED = 10, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletedRecord(Record):
    """Remembered of a dataset: when passes found connectors deleted, newest last, and some of the newest's names."""

    kept = Kept("deleted")

    times: tuple[datetime, ...]
    connectors: int
    sample: tuple[str, ...]

    def sentence(self) -> str:
        """It in one sentence."""
        again = f", {len(self.times)} times since {self.times[0]:%Y-%m-%d %H:%M:%S}Z" if len(self.times) > 1 else ""
        names = some_of(self.sample, _NAMED, total=self.connectors)
        return f"another program deleted {self.connectors} connectors ({names}){again}: passes make them again"


def deleted_elsewhere(
    missing: Iterable[tuple[str, str]],
    captured: Mapping[str, CapturedRecord],
    before: Mapping[str, DeletedRecord],
    now: datetime,
) -> dict[str, DeletedRecord | None]:
    """The changed records by dataset.

    Args:
        missing: connectors that are to be made, with their Connect cluster. One that ran there before, and that no
            pass deleted, was deleted by another program: a pass that deletes it forgets that it ran.
    """
    gone: dict[str, list[str]] = defaultdict(list)
    for name, cluster in missing:
        if name in captured and captured[name].cluster == cluster:
            gone[ShardName.parse(name).dataset].append(name)
    changed: dict[str, DeletedRecord | None] = {
        dataset: None for dataset, record in before.items() if now - record.times[-1] > LASTS and dataset not in gone
    }
    for dataset, names in gone.items():
        known = before[dataset].times if dataset in before else ()
        times = (*(time for time in known if now - time <= LASTS), now)[-_MOST:]
        changed[dataset] = DeletedRecord(times=times, connectors=len(names), sample=tuple(sorted(names)[:_NAMED]))
    return changed
