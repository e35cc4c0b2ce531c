"""What is stored outside: records of the state topic."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgspec

from cdc_platform.planning.health.incidents import Incident
from cdc_platform.planning.health.restarts import RestartRecord
from cdc_platform.planning.health.source_hazards import SourceRecord
from cdc_platform.planning.holds import HoldRecord
from cdc_platform.planning.inputs import Planned
from cdc_platform.planning.memory import KINDS, RecordChanges, SourcesAsked
from cdc_platform.planning.plan import Plan
from cdc_platform.planning.records import Record, Writer
from cdc_platform.reconciler.last_pass import KEY as LAST_PASS
from cdc_platform.reconciler.last_pass import last_pass
from cdc_platform.reconciler.report import ActionOutcome, ActionStatus, DatasetHealth
from cdc_platform.reconciler.state_records import captured_documents, changed_records, documents_of
from cdc_platform.snapshots.request import Request
from cdc_platform.snapshots.run_lifecycle import ORDER
from cdc_platform.snapshots.run_records import Hole, Run, ShardState, Watermark, hold_key
from cdc_platform.testing import FakeStateStore, FakeStateTopic
from cdc_platform.verification.continuity.breaks import Break
from cdc_platform.verification.continuity.ledger import CONTINUITY
from cdc_platform.verification.continuity.ledger import _document as _break
from cdc_platform.verification.repair.repair_plan import RepairPlan, plan_records
from tests.surface.json_output import GIVEN, picture
from tests.surface.samples import NOW, sample

Records = dict[str, Any]


def state_topic() -> Records:
    """Key to document, one record of each kind, with the value that each field has when it is filled."""
    return json.loads(json.dumps(records(), default=msgspec.to_builtins))  # type: ignore[no-any-return]


def records() -> Records:
    """The records as they are written."""
    changes = RecordChanges({kind: _samples(kind) for kind in KINDS.values() if kind.kept.writer is Writer.PLAN})
    restarts = RecordChanges({RestartRecord: _samples(RestartRecord)})
    run = Run(
        id="RUN",
        request=sample(Request, given=GIVEN),
        mode=sample(Watermark).mode,
        tables=("pins",),
        shards=("00000",),
        created=NOW,
        finished=NOW,
    )
    state = sample(ShardState)
    mark = replace(sample(Watermark), dataset="pins", table="pins", shard="00000", hole=sample(Hole), offset={"f": 1})
    found: Records = {**changed_records(changes, {}), **documents_of(restarts, Writer.RESTART)}
    found |= captured_documents({"pins.00000": "main"}, {}, NOW, 1)
    found |= {hold_key("pins.00000"): msgspec.to_builtins(sample(HoldRecord))}
    found |= {run.key: run.document(), run.shard_key("00000"): state.document(), mark.key: mark.document()}
    found |= {run.shard_key(ORDER): {"wanted": "paused", "at": NOW.isoformat()}}
    found |= {SourceRecord.key_of("pins.00000"): msgspec.to_builtins(sample(SourceRecord))}
    found |= {SourcesAsked.key_of("last"): msgspec.to_builtins(sample(SourcesAsked))}
    found |= {f"{CONTINUITY}pins/pins/00000": {"breaks": [_break(sample(Break))]}}
    found |= plan_records(sample(RepairPlan))
    found[LAST_PASS] = _last_pass()
    return found


def _samples(kind: type[Record]) -> dict[str, Record]:
    record = sample(kind)
    names = {RestartRecord: "pins.00000", Incident: getattr(record, "key", "")}
    return {names.get(kind, "text"): record}


def store() -> FakeStateStore:
    """A store with all of these records."""
    made = FakeStateStore(FakeStateTopic())
    made.claim(1)
    made.write(state_topic())
    return made


def _last_pass() -> Any:
    seen = picture()
    return last_pass(
        generation=1,
        observed=seen,
        planned=sample(Planned, given=GIVEN),
        outcomes=[
            replace(sample(ActionOutcome), action=action, status=status)
            for action in sample(Plan).actions
            for status in (ActionStatus.DONE, ActionStatus.FAILED)
        ],
        clusters=seen.clusters,
        health={"pins": replace(sample(DatasetHealth), dataset="pins")},
        watched={"main": replace(sample(DatasetHealth), dataset="main")},
        seconds={"look": 1.0},
        before=None,
    )
