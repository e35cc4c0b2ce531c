"""The state topic of an earlier release, read by the code of now."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from cdc_platform.alerting.outbox import AlertPorts, CheckView, notify
from cdc_platform.alerting.transitions import AlertRecord
from cdc_platform.clients.platform import Platform
from cdc_platform.errors import Fenced
from cdc_platform.model.alert_messages import Event, Message, Severity
from cdc_platform.planning.canary import CanaryRecord, RolledOut
from cdc_platform.planning.health.duplicate_tasks import ZombieRecord
from cdc_platform.planning.health.incidents import Incident
from cdc_platform.planning.health.liveness import CapturedRecord, LeaderRecord, LiveRecord
from cdc_platform.planning.health.restarts import RestartRecord
from cdc_platform.planning.health.task_balance import SkewRecord
from cdc_platform.planning.health.watched_states import WatchedRecord
from cdc_platform.planning.holds import HoldRecord
from cdc_platform.planning.memory import ClusterSize, DatasetSize, Memory
from cdc_platform.reconciler.last_pass import age
from cdc_platform.reconciler.state_records import read_memory
from cdc_platform.settings import AlertTarget, Settings
from cdc_platform.snapshots.run_lifecycle import RequestedState, requested_state
from cdc_platform.snapshots.run_records import runs, shard_states, watermarks
from cdc_platform.testing import FakeKafka, InMemoryTopologyStore
from cdc_platform.verification.continuity.breaks import Break, BreakKind
from cdc_platform.verification.continuity.ledger import breaks_on_record
from cdc_platform.verification.repair.repair_plan import recorded_plan
from tests.formats import values
from tests.formats.record import STATE
from tests.formats.releases import RELEASES
from tests.formats.state_log import Records, state_topic
from tests.formats.values import MINUTE, NOW

Documents = dict[str, dict[str, object]]


def log_of(release: Path) -> Records:
    lines = (release / "state" / STATE).read_bytes().splitlines()
    return [(key, value or None) for key, _, value in (line.partition(b"\t") for line in lines)]


@pytest.fixture(params=RELEASES, ids=lambda path: path.name)
def records(request: pytest.FixtureRequest) -> Records:
    return log_of(request.param)


@pytest.fixture
def documents(records: Records) -> Documents:
    with state_topic(records) as store:
        found = store.read()
        assert store.problems == {}
    return {key: dict(document) for key, document in found.items()}


def test_the_kinds_of_records_are_all_there(documents: Documents) -> None:
    assert {key.partition("/")[0] for key in documents} - {"watched"} == {
        "restart", "shard", "live", "leader", "zombie", "skew", "canary", "rollout", "trouble", "size", "hold", "pass",
        "backfill", "watermark", "alert", "outbox", "repair", "continuity",
    }  # fmt: skip
    assert "live/pins.00009" not in documents  # its tombstone came last


def test_what_passes_remember(documents: Documents) -> None:
    since_watched = {WatchedRecord: values.WATCHED} if "watched/main/shop" in documents else {}
    assert read_memory(documents) == Memory(
        since_watched
        | {
            RestartRecord: values.RESTARTS,
            ClusterSize: values.CLUSTER_SIZES,
            DatasetSize: values.DATASET_SIZES,
            CapturedRecord: values.CAPTURED,
            LiveRecord: values.LIVE,
            LeaderRecord: values.LEADERS,
            ZombieRecord: values.ZOMBIES,
            SkewRecord: values.SKEWS,
            CanaryRecord: values.CANARIES,
            RolledOut: values.ROLLOUTS,
            Incident: values.TROUBLES,
            HoldRecord: values.HOLDS,
        }
    )


def test_the_last_pass(documents: Documents) -> None:
    quantiles = ("0.5", "0.9", "0.99", "1.0")
    since_watched = {"watched": {"main": {"connectors": 2, "down": {"main/shop": "PAUSED"}}}}
    assert documents["pass/last"] == (since_watched if "watched/main/shop" in documents else {}) | {
        "at": "2026-01-02T03:04:05.678901+00:00",
        "generation": 7,
        "seconds": {"observe": 0.123, "apply": 1.0},
        "planned": {},
        "done": {},
        "failed": {},
        "refused": ["boards"],
        "totals": {"passes": 42, "restarts": {"connection": 3}},
        "datasets": {
            "pins": {
                "shards": 2,
                "up": 1,
                "states": {"RUNNING": 1, "FAILED": 1},
                "lag_s": dict.fromkeys(quantiles, 1.5),
                "beat_s": dict.fromkeys(quantiles, 15.0),
            }
        },
        "clusters": {
            "main": {
                "reachable": True,
                "connectors": 1,
                "workers": {"w0:8083": {"tasks": 1, "answers": True, "heap": 0.25, "rebalances": 2}},
            }
        },
    }
    assert age(documents["pass/last"], NOW + MINUTE) == 60.0


def test_bootstraps_and_backfills(documents: Documents) -> None:
    assert runs(documents) == {"run-0": values.BOOTSTRAP, "run-1": values.BACKFILL}
    assert shard_states(documents, "run-1") == values.BACKFILL_SHARDS
    assert requested_state(documents, values.BACKFILL) is RequestedState.PAUSED
    assert requested_state(documents, values.BOOTSTRAP) is RequestedState.RUNNING
    assert watermarks(documents, "pins") == values.WATERMARKS


def test_counts_of_rows(documents: Documents) -> None:
    if "watermark/boards/pins/00000" not in documents:
        assert shard_states(documents, "run-0") == {}, "a release that counted no rows"
        return
    assert shard_states(documents, "run-0") == values.COUNTED_SHARDS
    assert watermarks(documents, "boards") == {("pins", "00000"): values.COUNTED_WATERMARK}


def test_a_repair_under_way(documents: Documents) -> None:
    assert recorded_plan(documents, "rep-1") == values.REPAIR


def test_breaks_of_the_ledger(documents: Documents) -> None:
    gap = Break(
        shard="00000",
        kind=BreakKind.TRANSACTION,
        range="transaction 0-1-4 (its END: partition 0, offset 3)",
        found_at=NOW,
        expected=3,
        found=2,
    )
    assert breaks_on_record(documents, "pins", "pins") == {"00000": (gap,)}


MESSAGE = Message(
    id="85e6716647b3ed2d",
    incident="9523962ebc854846",
    route="oncall",
    event=Event.FIRING,
    severity=Severity.CRITICAL,
    title="[CRITICAL] complete of cdc/pins/pins fails",
    body=(
        "1 of 8 shards is mismatched.\nSince 2026-01-02 03:05:05Z.\nWhat to do: Repair it.\nOwner: team:pins\n"
        "Runbook: https://wiki.example/cdc#check-complete\nDagster run: https://dagster.example/runs/1"
    ),
    created=NOW + MINUTE,
    attempts=1,
    not_before=NOW + 1.5 * MINUTE,
)


class Receiver:
    def __init__(self) -> None:
        self.taken: list[Message] = []

    def send(self, message: Message) -> None:
        self.taken.append(message)

    def ping(self, route: str) -> None:
        pass


def test_alerts_that_were_open_go_on(records: Records) -> None:
    """The message that could not be sent is sent, nobody is told twice, and what is right again recovers."""
    receiver = Receiver()
    zookeeper = InMemoryTopologyStore()
    zookeeper.import_topology(values.TOPOLOGY)
    with state_topic(records) as store:
        platform = Platform(
            settings=replace(Settings(), alerts={"oncall": AlertTarget(url="${env:URL}")}),
            topology=zookeeper,
            kafka=FakeKafka(),
            state=store,
            connect=lambda cluster: None,  # type: ignore[arg-type,return-value]
        )
        outside = AlertPorts(platform=platform, store=store, notifiers=receiver)
        key = values.CONDITION.key
        told = msgspec.convert(store.read()[f"alert/{key}"], AlertRecord)
        assert told == AlertRecord(
            condition=values.CONDITION,
            active=True,
            since=NOW + MINUTE,
            changed=NOW + MINUTE,
            notified=Event.FIRING,
            notified_severity=Severity.CRITICAL,
            routes=("oncall",),
            fired=(NOW + MINUTE,),
        )
        report = notify(outside, CheckView(present={key: values.CONDITION}), now=NOW + 2 * MINUTE)
        assert receiver.taken == [MESSAGE]
        assert (report.waiting, report.open) == (0, 1)
        notify(outside, CheckView(absent=[key]), now=NOW + 2.5 * MINUTE)
        assert [(one.event, one.incident) for one in receiver.taken[1:]] == [(Event.RECOVERED, MESSAGE.incident)]


def test_an_older_control_plane_is_refused(records: Records) -> None:
    with state_topic(records) as store:
        with pytest.raises(Fenced, match="written under lock generation 7, ours is 6"):
            store.claim(6)
        store.claim(8)
    assert records[-1] == (b"writer", b'{"version":1,"generation":8}')


def test_a_record_of_a_higher_version_is_left_alone_and_named(records: Records) -> None:
    key = b"restart/pins.00000"
    newer = json.loads(dict(records)[key] or b"") | {"version": 2}
    records.append((b"hold/pins.00007", json.dumps({**newer, "run": "x"}).encode()))
    at = len(records) - 1
    with state_topic(records) as store:
        documents = store.read()
        assert store.problems == {"hold/pins.00007": f"offset {at}: its version is 2, not 1"}
        assert read_memory(documents).of(HoldRecord) == values.HOLDS
        # The way on: who writes the key anew is understood again.
        store.write({"hold/pins.00007": {"run": "y", "reason": "z", "since": NOW.isoformat()}})
        assert store.read()["hold/pins.00007"]["run"] == "y"
        assert store.problems == {}


def test_fields_of_a_later_release_are_passed_over_and_what_passes_cannot_read_is_left_out(
    documents: Documents, caplog: pytest.LogCaptureFixture
) -> None:
    """Kinds of records carry no version of their own."""
    known = documents["restart/pins.00000"]
    documents["restart/pins.00000"] = known | {"later": [1]}
    documents["restart/pins.00005"] = known | {"failure": "moonlight"}
    del documents["zombie/pins.00001"]["workers"]
    found = read_memory(documents)
    assert found.of(RestartRecord) == values.RESTARTS
    assert found.of(ZombieRecord).keys() == {"pins.00000"}
    left_out = [record.args[0] for record in caplog.records if isinstance(record.args, tuple)]
    assert left_out == [
        "zombie/pins.00001",
        "restart/pins.00005",
    ]
