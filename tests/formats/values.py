"""The values that are recorded, written out by hand.

Fixtures of every release hold them, so none is ever changed: what a later format adds gets a value of its own.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cdc_platform.agent.journal import OldLeader, Remembered
from cdc_platform.alerting.conditions import AlertCondition
from cdc_platform.connectors.leader_files import LeaderFile
from cdc_platform.defs.sensor_cursor import SensorCursor
from cdc_platform.defs.translator import CdcTableProps
from cdc_platform.local.services import Launch
from cdc_platform.local.stack import Stack
from cdc_platform.model.agent_report import AgentReport
from cdc_platform.model.alert_messages import Severity
from cdc_platform.model.topology import (
    Address,
    BootstrapMode,
    Cluster,
    Credentials,
    Dataset,
    Engine,
    Limits,
    Pause,
    Shard,
    Table,
    TopicSpec,
    Topology,
)
from cdc_platform.planning.canary import CanaryRecord, RolledOut
from cdc_platform.planning.canary import CanaryVerdict as RolloutVerdict
from cdc_platform.planning.health.duplicate_tasks import ZombieRecord
from cdc_platform.planning.health.failures import Failure
from cdc_platform.planning.health.incidents import Incident
from cdc_platform.planning.health.liveness import CapturedRecord, LeaderRecord, LiveRecord
from cdc_platform.planning.health.restarts import RestartRecord
from cdc_platform.planning.health.task_balance import SkewRecord
from cdc_platform.planning.health.watched_states import WatchedRecord
from cdc_platform.planning.holds import HoldRecord
from cdc_platform.planning.memory import ClusterSize, DatasetSize
from cdc_platform.snapshots.request import KeyRange, Load, Request, RunKind
from cdc_platform.snapshots.run_records import Hole, Phase, RowCount, Run, ShardState, Watermark
from cdc_platform.verification.proof.verdicts import KeyDifference, ShardVerdict, Verdict
from cdc_platform.verification.repair.repair_plan import RepairPlan, ShardRepair

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
MINUTE = timedelta(minutes=1)

# What passes remember

RESTARTS = {
    "pins.00000": RestartRecord(
        failure=Failure.CONNECTION,
        attempts=3,
        first_failed=NOW,
        last_restart=NOW + MINUTE,
        next_restart=NOW + 5 * MINUTE,
    ),
    "pins.00001": RestartRecord(
        failure=Failure.STALE_LOGIN, attempts=0, first_failed=NOW, last_restart=None, next_restart=NOW + MINUTE
    ),
}
CAPTURED = {"pins.00000": CapturedRecord(since=NOW, generation=7, cluster="main")}
LIVE = {"pins.00000": LiveRecord(since=NOW + MINUTE)}
LEADERS = {"pins.00000": LeaderRecord(generation=4, since=NOW)}
ZOMBIES = {
    "pins.00000": ZombieRecord(since=NOW, workers=("w0:8083", "w1:8083"), bounces=1, last_bounce=NOW + MINUTE),
    "pins.00001": ZombieRecord(since=NOW, workers=("w1:8083", "w2:8083")),
}
SKEWS = {"main": SkewRecord(since=NOW, cures=2, last_cure=NOW + MINUTE)}
CANARIES = {
    "pins": CanaryRecord(
        digest="0123456789abcdef",
        shards={"pins.00000": {"poll.interval.ms": "500", "max.batch.size": None}},
        since=NOW,
        passes=2,
        verdict=RolloutVerdict.FAILED,
        reason="pins.00000: its task failed",
    )
}
ROLLOUTS = {"boards": RolledOut(digest="fedcba9876543210")}
TROUBLES = {
    "connection@db-1:3306": Incident(
        failure=Failure.CONNECTION,
        place="db-1:3306",
        since=NOW,
        down=2,
        recovering=1,
        sample=("pins.00000", "pins.00001"),
        cause="Connection refused",
        advice="See whether the server runs.",
        crash_looping=1,
    )
}
HOLDS = {"pins.00002": HoldRecord(run="run-1", reason="backfill run-1 resets its offsets", since=NOW)}
CLUSTER_SIZES = {"main": ClusterSize(12)}
WATCHED = {"main/shop": WatchedRecord(state="PAUSED", since=NOW)}  # since `watched`
DATASET_SIZES = {"pins": DatasetSize(8), "boards": DatasetSize(4)}

# Bootstraps and backfills

BACKFILL = Run(
    id="run-1",
    request=Request(
        kind=RunKind.BACKFILL,
        dataset="pins",
        tables=("pins",),
        shards=("00000", "00001"),
        failed_of=None,
        key_range=KeyRange(column="id", low="10", high="20"),
        conditions={"00000": "id IN (1,2)"},
        load=Load(max_parallel_shards=4, max_parallel_per_host=2, max_rows_per_s=1000, max_bytes_per_s=None),
    ),
    mode=None,
    tables=("pins",),
    shards=("00000", "00001"),
    created=NOW,
)
BOOTSTRAP = Run(
    id="run-0",
    request=Request(
        kind=RunKind.BOOTSTRAP,
        dataset="pins",
        shards=("00000",),
        mode=BootstrapMode.POSITION,
        positions={"00000": "0-1-5"},
        again=True,
        schema_unchanged=True,
    ),
    mode=BootstrapMode.POSITION,
    tables=("pins", "boards"),
    shards=("00000",),
    created=NOW,
    finished=NOW + 5 * MINUTE,
    failed=1,
)
OFFSET = {"gtids": "0-1-9", "file": "b.1", "pos": 4, "incremental_snapshot_collections": "[]"}
BACKFILL_SHARDS = {
    "00000": ShardState(
        phase=Phase.READING,
        since=NOW + MINUTE,
        began=NOW,
        reset=True,
        attempt=2,
        before={"gtids": "0-1-4"},
        start=OFFSET,
        rows={"pins": 120},
    ),
    "00001": ShardState(
        phase=Phase.FAILED,
        since=NOW + MINUTE,
        began=NOW,
        end={"gtids": "0-1-12"},
        error="its source did not answer",
    ),
}
# Since rows are counted: of run-0, and of a dataset of which no older release has a watermark.
COUNTS = {"pins": RowCount(read=467, low=600, high=602), "boards": RowCount(read=7, uncounted="it took too long.")}
COUNTED_SHARDS = {
    "00000": ShardState(
        phase=Phase.FAILED,
        since=NOW + MINUTE,
        began=NOW,
        attempt=3,
        asked=("p.pins",),
        tries=2,
        rows={"pins": 467, "boards": 7},
        unread={"users": "it cannot be read in chunks."},
        counts=COUNTS,
        error="pins: read 467 of 600..602 rows",
    )
}
COUNTED_WATERMARK = Watermark(
    dataset="boards",
    table="pins",
    shard="00000",
    mode=BootstrapMode.INCREMENTAL,
    run="run-0",
    position="0-1-9",
    offset={},
    since=NOW,
    rows=467,
    count=COUNTS["pins"],
)
WATERMARKS = {
    ("pins", "00000"): Watermark(
        dataset="pins",
        table="pins",
        shard="00000",
        mode=BootstrapMode.INCREMENTAL,
        run="run-0",
        position="0-1-9",
        offset=OFFSET,
        since=NOW,
        complete=NOW + MINUTE,
        rows=120,
        hole=Hole(since="0-1-4", until=None),
        backfilled="run-1",
    ),
    ("pins", "00001"): Watermark(
        dataset="pins",
        table="pins",
        shard="00001",
        mode=BootstrapMode.LATEST,
        run="run-0",
        position=None,
        offset={},
        since=NOW,
    ),
}

# Alerts

CONDITION = AlertCondition(
    key="check/cdc/pins/pins/complete",
    cause="check/cdc/pins/pins/complete",
    severity=Severity.CRITICAL,
    title="complete of cdc/pins/pins fails",
    text="1 of 8 shards is mismatched.",
    advice="Repair it.",
    owners=("team:pins",),
    runbook="https://wiki.example/cdc#check-complete",
    run="https://dagster.example/runs/1",
)

# Verdicts and repairs

REPAIR = RepairPlan(
    run_id="rep-1",
    dataset="pins",
    table="pins",
    created=NOW,
    shards=(
        ShardRepair(shard="00000", emit=(("1",), ("2",)), extra=((0, 17), (3, 4))),
        ShardRepair(shard="00001", emit=(("a", "b"),)),
    ),
    tombstones=True,
)
PROVEN = ShardVerdict(
    dataset="pins",
    table="pins",
    shard="00000",
    verdict=Verdict.PROVEN,
    reason="every row equals the topic",
    run_id="run-1",
    checked_at=NOW,
    topic="cdc.pins.pins",
    source="db-1:3306",
    source_rows=100,
    topic_rows=100,
    proven_from="0-1-4",
    proven_to="0-1-9",
    committed="0-1-10",
    lag_s=0.25,
    seconds=1.5,
    columns=3,
    left_out=("note",),
    warnings=("price: rounded",),
)
MISMATCHED = ShardVerdict(
    dataset="pins",
    table="pins",
    shard="00001",
    verdict=Verdict.MISMATCHED,
    reason="3 keys differ",
    run_id="run-1",
    checked_at=NOW,
    topic="cdc.pins.pins",
    source="db-1:3306",
    source_rows=9,
    topic_rows=9,
    missing=1,
    extra=1,
    mismatched=1,
    samples=(
        KeyDifference(key='{"id": 1}', kind="missing"),
        KeyDifference(key='{"id": 2}', kind="mismatched", columns=("title",), partition=2, offset=44),
        KeyDifference(key="#0123456789abcdef", kind="extra", partition=0, offset=7),
    ),
)
# Its shard was judged once more, in a run of its own.
HEALED = ShardVerdict(
    dataset="pins",
    table="pins",
    shard="00001",
    verdict=Verdict.PROVEN,
    reason="every row equals the topic",
    run_id="rep-1-proof",
    checked_at=NOW + MINUTE,
    topic="cdc.pins.pins",
    source="db-1:3306",
    source_rows=10,
    topic_rows=10,
)

# Topology

TOPOLOGY = Topology(
    datasets={
        "pins": Dataset(
            name="pins",
            engine=Engine.MARIADB,
            tables=(Table(name="pins"), Table(name="likes", key=("user", "pin"))),
            clusters=("main",),
            credentials=Credentials(user="${file:/run/secrets/pins.properties:user}", password="${env:PINS}"),
            topics=TopicSpec(partitions=16, config={"retention.ms": "604800000"}),
            bootstrap=BootstrapMode.SNAPSHOT,
            connector={"max.batch.size": "1024"},
            limits=Limits(snapshot_rows_per_second=5000),
            verification={"chunk_rows": 1000},
            owners=("team:pins",),
            extra={"cost_centre": "42"},
        ),
        "users": Dataset(
            name="users",
            engine=Engine.POSTGRES,
            tables=(Table(name="users", schema="app"),),
            clusters=("spare", "main"),
            credentials=Credentials(user="${env:PG_USER}", password="${env:PG_PASSWORD}"),
            topic_pattern="app.{dataset}.{table}",
            pause=Pause(reason="migration", author="ann", until=NOW),
        ),
    },
    shards={
        "pins": tuple(
            Shard(
                dataset="pins",
                id=f"{number:05d}",
                leader=Address(f"db-{number}.internal", 3306),
                replicas=(Address(f"db-{number}b.internal", 3307),),
                database=f"pins_{number:05d}",
            )
            for number in range(2)
        ),
        "users": (
            Shard(
                dataset="users",
                id="eu",
                leader=Address("pg.internal", 5432),
                database="users",
                generation=3,
                connector={"snapshot.fetch.size": "10"},
                pause=Pause(reason="look", author="bob"),
                extra={"rack": "r7"},
            ),
            Shard(dataset="users", id="us", leader=Address("pg-us.internal", 5432), database="users", generation=8),
        ),
    },
    clusters={
        "main": Cluster(
            name="main",
            urls=("http://w0:8083", "http://w1:8083"),
            capacity=500,
            labels={"w0:8083": "zone-a"},
            metrics={"w0:8083": "http://w0:9404/metrics"},
        ),
        "spare": Cluster(name="spare", urls=("https://s0:8083",), leader_dir="/var/leaders", draining=True),
    },
    pause=Pause(reason="upgrade", author="cem", until=NOW + MINUTE),
)

# Agents

LEADER_FILES = {
    "pins.00000": LeaderFile(leader=Address("db-0b.internal", 3307), generation=1),
    "users.eu": LeaderFile(leader=Address("pg.internal", 5432), generation=3),
}
REMEMBERED = Remembered(
    applied={"pins.00000": LeaderFile(leader=Address("db-0.internal", 3306), generation=0)},
    old={"pins.00000": OldLeader(leader=Address("db-0.internal", 3306), since=NOW)},
)
REPORT = AgentReport(
    connect_worker="w0:8083",
    connect_url="http://w0:8083",
    leader_dir="/var/lib/cdc-platform/leaders",
    pid=4711,
    host="w0",
    started=NOW.replace(microsecond=0),
    reported=NOW.replace(microsecond=0) + MINUTE,
    synced=99,
    files=2,
    unsynced=frozenset({"users.eu"}),
    ahead=frozenset({"pins.00001"}),
    moving={"pins.00000": 1},
    problem="Connect does not answer",
    blocked={"pins.00000": "the new leader lags behind"},
    split={"pins.00001": "db-1.internal:3306 still takes writes"},
)

# Dagster

CURSOR = SensorCursor(
    need="0123456789abcdef",
    tries=2,
    not_before=NOW.timestamp() + 60.0,
    refreshed=NOW.timestamp(),
    turn=5,
    refused="0123456789ab",
    health={"pins": "1/2:0123456789ab", "users": "1/1:"},
)
CHECK = "check/cdc/pins/pins/complete"
TABLES = (
    CdcTableProps(
        platform="cdc",
        dataset="pins",
        table="pins",
        source_table="pins",
        engine="mariadb",
        topic="cdc.pins.pins",
        partitions=16,
        replication=3,
        bootstrap="snapshot",
        clusters=("main",),
        key_columns=("id",),
        owners=("team:pins",),
        verify_schedule="0 3 * * *",
        verify_shards=2,
    ),
    CdcTableProps(
        platform="cdc",
        dataset="users",
        table="users",
        source_table="app.users",
        engine="postgres",
        topic="app.users.users",
        partitions=8,
        replication=3,
        bootstrap="incremental",
    ),
)

# The local stack

STACK = Stack(
    directory=Path(),
    launches={
        "kafka": Launch(
            name="kafka",
            argv=("java", "kafka.Kafka"),
            cwd="/stack/kafka",
            log="/stack/kafka/log",
            env={"LANG": "C"},
            ports={"kafka": 9092},
            grace=20.0,
            stage=1,
        ),
        "w0": Launch(
            name="w0",
            argv=("java", "ConnectDistributed"),
            cwd="/stack/w0",
            log="/stack/w0/log",
            ports={"connect": 8083},
            user="cdc",
            stop_signal=2,
            stage=3,
            needs=("kafka",),
        ),
    },
    workers=("w0",),
    mariadb=("mariadb-a", "mariadb-b"),
    secure=True,
)
