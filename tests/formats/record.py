"""Write every stored format anew, by the code that writes it: `python -m tests.formats.record DIR`.

The same values as in the fixtures of earlier releases, so that `diff -r` shows what a format has changed. Parquet
files name the version of the library that wrote them; all else is the same on every machine.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from cdc_platform.alerting.outbox import AlertPorts, CheckView, notify
from cdc_platform.clients.platform import Platform
from cdc_platform.clients.protocols import StateStore
from cdc_platform.errors import AlertUndelivered, SourceUnavailable
from cdc_platform.model.alert_messages import Message
from cdc_platform.model.observed import (
    ObservedBeats,
    ObservedCluster,
    ObservedConnector,
    ObservedHeartbeats,
    ObservedState,
    ObservedTask,
    ObservedWorker,
)
from cdc_platform.planning.canary import CanaryRecord, RolledOut
from cdc_platform.planning.health.duplicate_tasks import ZombieRecord
from cdc_platform.planning.health.incidents import Incident
from cdc_platform.planning.health.liveness import LeaderRecord, LiveRecord
from cdc_platform.planning.health.restarts import RestartRecord
from cdc_platform.planning.health.task_balance import SkewRecord
from cdc_platform.planning.health.watched_states import WatchedRecord
from cdc_platform.planning.inputs import Planned
from cdc_platform.planning.memory import ClusterSize, DatasetSize, RecordChanges
from cdc_platform.planning.plan import Plan, Refusal
from cdc_platform.planning.records import Writer
from cdc_platform.reconciler.last_pass import KEY as LAST_PASS
from cdc_platform.reconciler.last_pass import last_pass
from cdc_platform.reconciler.report import DatasetHealth, ShardDown
from cdc_platform.reconciler.state_records import captured_documents, changed_records, documents_of
from cdc_platform.settings import AlertTarget, Settings
from cdc_platform.snapshots.connector_waves import hold
from cdc_platform.snapshots.run_lifecycle import RequestedState, order
from cdc_platform.snapshots.run_records import ASIDE
from cdc_platform.testing import FakeKafka, InMemoryTopologyStore
from cdc_platform.verification.audit_frame import AuditFrame
from cdc_platform.verification.repair.repair_plan import plan_records
from tests.formats import control, values
from tests.formats.proof import (
    FixedClock,
    append_more,
    extend,
    kept_ledger,
    scan,
    sent_topic,
    source_table,
    table_topic,
)
from tests.formats.state_log import Records, state_topic
from tests.formats.values import MINUTE, NOW

STATE = "state-topic.tsv"


class _DeadReceiver:
    """A receiver of alerts that does not answer: messages stay in the outbox."""

    def send(self, message: Message) -> None:
        raise AlertUndelivered("it did not answer.", where=message.route)

    def ping(self, route: str) -> None:
        """Nobody to tell."""


def state_topic_records(root: Path) -> None:
    """`state-topic.tsv`: a record a line, key and value as they stand in the topic. No value: a tombstone."""
    records: Records = []
    with state_topic(records) as store:
        store.claim(7)
        _remember(store)
        _backfills(store)
        _alerts(store)
        store.write(plan_records(values.REPAIR))
    with mock.patch("cdc_platform.verification.continuity.ledger.datetime", FixedClock):
        found = kept_ledger(root / "scratch")
    shutil.rmtree(root / "scratch")
    with state_topic(records) as store:
        store.write(found.store.read())
        store.write({"live/pins.00009": None})
    lines = [key + b"\t" + (value or b"") + b"\n" for key, value in records]
    (root / STATE).write_bytes(b"".join(lines))


def _remember(store: StateStore) -> None:
    store.write(documents_of(RecordChanges({RestartRecord: values.RESTARTS}), Writer.RESTART))
    store.write(captured_documents({"pins.00000": "main"}, {}, NOW, 7))
    planned = Planned(
        plan=Plan(refusals=(Refusal(scope="boards", reason="half of it is gone"),)),
        changes=RecordChanges(
            {
                LiveRecord: values.LIVE,
                LeaderRecord: values.LEADERS,
                ZombieRecord: values.ZOMBIES,
                SkewRecord: values.SKEWS,
                CanaryRecord: values.CANARIES,
                RolledOut: values.ROLLOUTS,
                Incident: values.TROUBLES,
                ClusterSize: values.CLUSTER_SIZES,
                DatasetSize: values.DATASET_SIZES,
                WatchedRecord: values.WATCHED,
            }
        ),
    )
    store.write(changed_records(planned.changes, {}))
    store.write({LAST_PASS: _last_pass(planned)})


def _last_pass(planned: Planned) -> Mapping[str, object]:
    seen = ObservedCluster(
        name="main",
        connectors={
            "pins.00000": ObservedConnector(
                name="pins.00000",
                config={},
                state="RUNNING",
                worker="w0:8083",
                tasks=(ObservedTask(id=0, state="RUNNING", worker="w0:8083"),),
            )
        },
    )
    picture = ObservedState(
        taken_at=NOW,
        topology=values.TOPOLOGY,
        clusters={"main": seen},
        topics={},
        heartbeats=ObservedHeartbeats(
            since=NOW - MINUTE, newest=NOW, beats={"pins.00000": ObservedBeats(last=NOW - MINUTE / 4, senders={})}
        ),
        workers={
            "w0:8083": ObservedWorker(
                worker="w0:8083", heap_used=256, heap_max=1024, tasks=1, rebalances=2, lag_ms={"pins.00000": 1500}
            )
        },
    )
    down = ShardDown(shard="pins.00001", state="FAILED", reason="Connection refused")
    paused = ShardDown(shard="main/shop", state="PAUSED", reason="it was paused elsewhere")
    return last_pass(
        generation=7,
        observed=picture,
        planned=planned,
        outcomes=(),
        clusters={"main": seen},
        health={"pins": DatasetHealth(dataset="pins", shards=2, up=1, down=(down,))},
        watched={"main": DatasetHealth(dataset="main", shards=2, up=1, down=(paused,))},
        seconds={"observe": 0.12345, "apply": 1.0},
        before={"totals": {"passes": 41, "restarts": {"connection": 3}}},
    )


def _backfills(store: StateStore) -> None:
    for run in (values.BOOTSTRAP, values.BACKFILL):
        store.write({run.key: run.document()})
    run = values.BACKFILL
    store.write({run.shard_key(shard): state.document() for shard, state in values.BACKFILL_SHARDS.items()})
    store.write({one.key: one.document() for one in (*values.WATERMARKS.values(), values.COUNTED_WATERMARK)})
    counted = {values.BOOTSTRAP.shard_key(shard): state for shard, state in values.COUNTED_SHARDS.items()}
    store.write({key: state.document() for key, state in counted.items()})
    outside: Any = SimpleNamespace(platform=_platform(store), writer=lambda name: store)
    with mock.patch("cdc_platform.snapshots.run_lifecycle.datetime", FixedClock):
        order(outside, run.id, RequestedState.PAUSED)
    held: Any = SimpleNamespace(shard=SimpleNamespace(name="pins.00002"))
    with mock.patch("cdc_platform.snapshots.connector_waves.datetime", FixedClock):
        hold(store, run, [held], values.HOLDS["pins.00002"].reason)
    # As the runner of a slice writes it, for no reader but the broker: it fences an older worker.
    store.write({run.shard_key(f"{ASIDE}worker/slice-run-1-0"): {"at": NOW.isoformat()}})


def _alerts(store: StateStore) -> None:
    outside = AlertPorts(platform=_platform(store), store=store, notifiers=_DeadReceiver())
    notify(outside, CheckView(present={values.CONDITION.key: values.CONDITION}), now=NOW + MINUTE)


def _platform(store: StateStore) -> Platform:
    settings = replace(Settings(), alerts={"oncall": AlertTarget(url="${env:ONCALL_URL}")})
    made = InMemoryTopologyStore()
    made.import_topology(values.TOPOLOGY)
    return Platform(settings=settings, topology=made, kafka=FakeKafka(), state=store, connect=lambda cluster: None)  # type: ignore[arg-type,return-value]


def proof_caches(root: Path) -> None:
    """`folds/`, `scans/`, `sightings/` and `ledger/` of the cache directory."""
    topic = table_topic()
    extend(topic, root)
    append_more(topic)
    extend(topic, root)
    scan(root / "whole", source_table(5), chunk_rows=2)
    table = source_table(120)
    table.during_read = _breaks_off(after=110)
    with pytest.raises(SourceUnavailable):
        scan(root / "begun", table, chunk_rows=1)
    sent_topic().counts(root / "sent")
    with mock.patch("cdc_platform.verification.continuity.ledger.datetime", FixedClock):
        kept_ledger(root / "kept")
    for lock in root.rglob("lock"):
        lock.unlink()


def _breaks_off(*, after: int) -> Callable[[], None]:
    """The source answers for so many chunks (it is told of each twice)."""
    calls = [0]

    def told() -> None:
        calls[0] += 1
        if calls[0] > 2 * after:
            raise SourceUnavailable("it did not answer.", where="there")

    return told


def audit_frames(root: Path) -> None:
    """`<dataset>/<table>/*.parquet`: one file a run."""
    frame = AuditFrame(str(root))
    with mock.patch("secrets.token_hex", return_value="abcdef"):
        frame.write([values.PROVEN, values.MISMATCHED])
        frame.write([values.HEALED])


FORMATS: Mapping[str, Callable[[Path], None]] = {
    "state": state_topic_records,
    "proof": proof_caches,
    "audit": audit_frames,
    **control.FORMATS,
}


def record(root: Path) -> None:
    """All formats, each in a directory of its own below `root`."""
    for name, write in FORMATS.items():
        (root / name).mkdir(parents=True)
        write(root / name)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directory", type=Path, help="a new directory")
    record(parser.parse_args().directory)


if __name__ == "__main__":
    main()
