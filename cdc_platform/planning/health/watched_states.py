"""States of watched connectors that no restart cures, and what passes remember of them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cdc_platform.planning.records import Kept, Record

MISSING, NO_TASK = "MISSING", "NO TASK"

LEFT_ALONE = {
    MISSING: "it is not in its Connect cluster: passes never make it again, and what it captured is not captured now",
    "PAUSED": "it was paused elsewhere: passes leave it so, and its source keeps the log that it has not read",
    "STOPPED": "it was stopped elsewhere: passes leave it so, and its source keeps the log that it has not read",
    NO_TASK: "Connect says RUNNING, but it has no task: see the worker's log",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedRecord(Record):
    """Remembered of a watched connector that captures nothing although nothing in it failed: since when it is so."""

    kept = Kept("watched")

    state: str
    since: datetime

    def sentence(self, name: str) -> str:
        """It in one sentence."""
        return (
            f"{name} is {self.state} since {self.since:%Y-%m-%d %H:%M:%S}Z: {LEFT_ALONE.get(self.state, 'see Connect')}"
        )
