"""Whether a pass has anything to do: a cheap answer that changes nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cdc_platform.model.fingerprints import fingerprint
from cdc_platform.model.naming import some_of
from cdc_platform.model.observed import ObservedState
from cdc_platform.planning.health.liveness import CapturedRecord
from cdc_platform.planning.inputs import Planned
from cdc_platform.planning.plan import Plan
from cdc_platform.planning.records import Writer
from cdc_platform.reconciler import last_pass
from cdc_platform.reconciler.report import DatasetHealth, health_of, running_shards
from cdc_platform.reconciler.state_records import captured_documents, captured_shards, changed_records, documents_of

# A pass at least this often, so that its record, and what reads it, stays fresh.
REPORT_SECONDS = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """What the next pass would do.

    `captured` are shards that run and are not on record as such; `records` the keys of the
    state topic that are out of date. `health` is that of the datasets now.
    """

    plan: Plan
    captured: tuple[str, ...]
    records: tuple[str, ...]
    health: Mapping[str, DatasetHealth]

    def __bool__(self) -> bool:
        return bool(self.plan or self.captured or self.records)

    @property
    def overdue(self) -> bool:
        """The last pass is so long ago that there should be one, whatever else is due."""
        return last_pass.KEY in self.records

    @property
    def fingerprint(self) -> str:
        """The same for two that ask for the same; empty when nothing but a report is due."""
        records = [key for key in self.records if key != last_pass.KEY]
        if not (self.plan or self.captured or records):
            return ""
        text = json.dumps([self.plan.fingerprint, self.captured, records])
        return fingerprint(text)

    def sentence(self) -> str:
        """What is due, in one sentence."""
        if self.plan or not self:
            return self.plan.sentence()
        if self.captured:
            return f"Shards that run and are not on record yet: {some_of(self.captured, 3)}."
        if self.records == (last_pass.KEY,):
            return f"The last report is older than {REPORT_SECONDS / 60:.0f} minutes."
        return f"Records of the state topic that are out of date: {len(self.records)}."


def due(observed: ObservedState, planned: Planned, records: Mapping[str, Mapping[str, Any]]) -> Due:
    """Compare what was seen and planned with what the state topic has on record."""
    running = running_shards(observed, observed.clusters)
    captured = tuple(sorted(running.keys() - captured_shards(records)))
    moved = captured_documents(running, records, observed.taken_at, 0).keys() - {
        CapturedRecord.key_of(name) for name in captured
    }
    restarts = documents_of(planned.changes, Writer.RESTART)
    stale = {*restarts, *changed_records(planned.changes, records), *moved}
    since = last_pass.age(records.get(last_pass.KEY), observed.taken_at)
    if since is None or abs(since) > REPORT_SECONDS:
        stale.add(last_pass.KEY)
    return Due(
        plan=planned.plan,
        captured=captured,
        records=tuple(sorted(stale)),
        health=health_of(observed.topology, planned, observed.clusters),
    )
