"""Proof, alert, gate, repair and ledger as an operator has them: the daemon calls the sensors and starts the runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from subprocess import Popen
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
import pytest

from cdc_platform.clients.protocols import Connect
from cdc_platform.defs.audit_asset import audit_key
from cdc_platform.defs.ledger_sensor import TAG_BREAKS
from cdc_platform.model.topology import Engine
from cdc_platform.settings import Settings
from cdc_platform.snapshots.connector_waves import stop
from cdc_platform.verification.audit_frame import AuditFrame
from cdc_platform.verification.proof.verdicts import Verdict
from tests.alerting.receivers import HttpReceiver, SmtpReceiver, served
from tests.engines import EACH_BINLOG
from tests.snapshots.dagster_outside import OutsideDagster
from tests.verification.repair.harness import ROWS, SHARDS, Harness, MakeHarness, lost
from tests.waiting import assert_eventually

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(2400)]

EXAMPLE = Path(__file__).parents[3] / "examples" / "downstream" / "definitions.py"
# The platform's own definitions with blocking checks, and beside them the example's asset that reads a topic.
LOCATION = """
import runpy
from pathlib import Path

import dagster as dg

from cdc_platform.defs import CdcPlatformComponent, CdcPlatformResource, CdcTopicIOManager, load_tables

example = runpy.run_path({example!r})
tables = load_tables(resource=CdcPlatformResource()).tables
found = [props for props in tables if (props.dataset, props.table) == ({dataset!r}, "items")]
defs = dg.Definitions.merge(
    dg.build_defs_for_component(CdcPlatformComponent(blocking=True)).map_asset_specs(
        func=lambda spec: spec.with_io_manager_key("cdc_topic")
    ),
    dg.Definitions(
        assets=[example["build_parquet_asset"](props, Path({target!r})) for props in found],
        sensors=[example["build_automation_sensor"]()],
        resources={{"cdc_topic": CdcTopicIOManager(cdc_platform=CdcPlatformResource())}},
    ),
)
"""
# Ticks are half a minute apart, and a run is several processes that each load the code: on a loaded machine minutes.
PATIENCE = 600.0


class Daemon:
    """The daemon of one dataset, what it told people, and what it left in Dagster's instance."""

    def __init__(self, harness: Harness, home: Path, hook: HttpReceiver, mail: SmtpReceiver) -> None:
        self.harness, self.hook, self.mail = harness, hook, mail
        self.target = home.parent / "lake" / "items.parquet"
        location, secret = home.parent / "location.py", home.parent / "alerts.properties"
        location.write_text(LOCATION.format(example=str(EXAMPLE), dataset=harness.world.name, target=str(self.target)))
        secret.write_text(
            f"hook=json://{hook.address}\ndog=http://{hook.address}/ping\n"
            f"mail=mailto://127.0.0.1:{mail.port}/?from=cdc@example.org&to=ann@example.org&mode=insecure\n"
        )
        routes = "".join(
            f'[alerts.{name}]\nurl = "${{file:{secret}:{name}}}"\nwatchdog = {str(name == "dog").lower()}\n'
            for name in ("hook", "mail", "dog")
        )
        self.dagster = OutsideDagster(
            home=home, settings=harness.platform.settings, code=("-f", str(location)), more=routes
        )
        self.instance = dg.DagsterInstance.from_config(str(home))
        self.process: Popen[bytes] = self.dagster.daemon()

    def assert_eventually(self, holds: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
        try:
            assert_eventually(holds, what, seconds, pause=1.0, meanwhile=self._assert_alive)
        except AssertionError:
            print(self.runs(), self.dagster.log(), sep="\n")
            raise

    def _assert_alive(self) -> None:
        assert self.process.poll() is None, "the daemon has ended"

    def runs(self) -> Sequence[tuple[str, str]]:
        return [(run.job_name, run.status.value) for run in self.instance.get_runs()]

    def verify(self) -> None:
        self.dagster.launch("verify", {"dataset": self.harness.world.name, "tables": ["items"]}, "plan_verification")

    @property
    def told(self) -> list[str]:
        """Kinds of the messages about `complete`."""
        return [m["type"] for m in self.hook.got if "complete fails for" in m["title"]]

    @property
    def mails(self) -> list[str]:
        return [str(m["Subject"]) for m in self.mail.got if "complete fails for" in str(m["Subject"])]

    def lake(self) -> int:
        """Rows of the downstream file."""
        return pq.read_metadata(self.target).num_rows if self.target.exists() else 0

    def built(self) -> list[str]:
        """Runs that automation has asked for the downstream asset."""
        key = dg.AssetKey(["lake", self.harness.world.name, "items"])
        return [
            run.run_id
            for run in self.instance.get_runs()
            if key in (run.asset_selection or ()) and run.tags.get("dagster/sensor_name") == "downstream_automation"
        ]

    def judged(self, passed: bool, since: float) -> bool:
        """True once `complete` was evaluated after that time, and said so."""
        table = audit_key(dg.AssetKey([self.harness.platform.settings.platform, self.harness.world.name, "items"]))
        latest = self.instance.get_latest_asset_check_evaluation_record(dg.AssetCheckKey(table, "complete"))
        found = None if latest is None or latest.create_timestamp < since else latest.evaluation
        # That of a check that is under way is none yet.
        return isinstance(found, dg.AssetCheckEvaluation) and found.passed is passed


@pytest.fixture
def daemon(engine: Engine, make_harness: MakeHarness, settings: Settings, tmp_path: Path) -> Iterator[Daemon]:
    own = replace(settings, cache_dir=str(tmp_path / "cache"), audit_dir=str(tmp_path / "audit"))
    with served(HttpReceiver()) as hook, served(SmtpReceiver()) as mail:
        harness = make_harness(engine, own)
        running = Daemon(harness, tmp_path / "home", hook, mail)
        try:
            with harness.alive():
                yield running
        finally:
            running.dagster.end()
            running.instance.dispose()


@EACH_BINLOG
def test_repair_alerts_gate_and_ledger_under_a_real_daemon(daemon: Daemon) -> None:
    harness = daemon.harness
    whole = SHARDS * ROWS
    daemon.verify()
    daemon.assert_eventually(lambda: daemon.lake() == whole, "the topic is proven, and the file is built on it")
    assert (daemon.told, len(daemon.built())) == ([], 1)

    # 37 rows leave the topic.
    harness.take_away(lost())
    builds, since = daemon.built(), time.time()
    daemon.verify()
    daemon.assert_eventually(lambda: daemon.told == ["failure"], "people are told")
    assert daemon.judged(False, since)
    (message,) = [m for m in daemon.hook.got if "complete fails for" in m["title"]]
    assert "37 missing" in message["message"]
    daemon.assert_eventually(lambda: len(daemon.mails) == 1, "by mail, too")
    # A person's run is stopped by the asset itself; of its own accord none is asked for, nor is anybody told again.
    stamp, since = daemon.target.stat().st_mtime, time.time()
    assert daemon.dagster.materialize(f"lake/{harness.world.name}/items") != 0
    daemon.verify()
    daemon.assert_eventually(lambda: daemon.judged(False, since), "it is judged again")
    calls = len(daemon.hook.pings)
    daemon.assert_eventually(lambda: len(daemon.hook.pings) > calls + 1, "two more looks of the alert sensor")
    assert (daemon.built(), daemon.told, daemon.target.stat().st_mtime) == (builds, ["failure"], stamp)

    # The job brings them back; its proof has the checks judged, which opens the gate.
    daemon.dagster.launch("repair", {"dataset": harness.world.name, "table": "items", "apply": True}, "plan_repair")
    daemon.assert_eventually(lambda: daemon.told == ["failure", "success"], "people are told that it is over")
    assert harness.read_by_snapshots() == {(shard, key): 1 for shard, keys in lost().items() for key in keys}
    daemon.assert_eventually(lambda: daemon.target.stat().st_mtime > stamp, "the file is built anew")
    daemon.assert_eventually(lambda: len(daemon.mails) == 2, "by mail, too")
    assert daemon.lake() == whole

    # The control plane dies: the watchdog outside hears nothing more. Started again, nothing is told twice.
    daemon.dagster.kill(daemon.process, family=True)
    calls = len(daemon.hook.pings)
    assert calls > 0
    quiet = time.monotonic() + 45.0  # longer than from one tick to the next
    while time.monotonic() < quiet:
        assert len(daemon.hook.pings) == calls
        time.sleep(1.0)
    daemon.process = daemon.dagster.daemon()
    daemon.assert_eventually(lambda: len(daemon.hook.pings) > calls, "the watchdog is called again")
    assert daemon.told == ["failure", "success"]

    # Somebody moves an offset on: what lies between is never sent. The ledger finds it, and has the shard proven.
    skipped = skip_rows(harness, 25)
    daemon.dagster.launch("checks", {})
    daemon.assert_eventually(lambda: proofs(daemon), "the ledger's break starts a proof")
    (proof,) = proofs(daemon)
    assert planned(proof)["shards"] == ["00000"]
    assert "was skipped" in proof.tags[TAG_BREAKS]
    audit = AuditFrame(harness.platform.settings.audit_dir)

    def found() -> bool:
        (verdict,) = audit.latest(harness.world.name, "items", ["00000"])
        return (verdict.verdict, verdict.missing) == (Verdict.MISMATCHED, skipped)

    daemon.assert_eventually(found, "the proof names what was skipped")
    daemon.assert_eventually(lambda: daemon.told == ["failure", "success", "failure"], "and people are told")


def proofs(daemon: Daemon) -> Sequence[dg.DagsterRun]:
    """Of this table: the dataset's other one, whose events the same connector sends, has a break and a proof, too."""
    broken = [run for run in daemon.instance.get_runs() if TAG_BREAKS in run.tags]
    return [run for run in broken if planned(run)["tables"] == ["items"]]


def planned(run: dg.DagsterRun) -> dict[str, Any]:
    """The config of the verification's first op."""
    config: Mapping[str, Any] = run.run_config
    return dict(config["ops"]["plan_verification"]["config"])


def skip_rows(harness: Harness, rows: int) -> int:
    """Rows written while the first shard's connector is stopped, whose offset is then moved behind them."""
    shard = harness.world.shards[0]
    connect: Connect = harness.platform.connect(harness.world.stack.cluster())
    # Passes would start it again.
    with harness.platform.topology.lock(owner="test", timeout=300.0):
        stop(connect, shard.name)
        last: Any = None
        while (now := list(connect.offsets(shard.name))) != last:
            last = now
            time.sleep(2.0)  # its last commit follows its last event
        with harness.world.admin(shard.database) as run:
            harness.world.fill(run, "items", 5_001, 5_000 + rows)
        offset = {name: value for name, value in last[0]["offset"].items() if name in _PLACE}
        moved = offset | {"gtids": harness.world.position(shard)}
        connect.alter_offsets(shard.name, [{"partition": {"server": shard.name}, "offset": moved}])
        connect.resume(shard.name)
    with harness.world.admin(shard.database) as run:
        run("UPDATE items SET v = v + 1 WHERE id = 1")
    assert_eventually(
        lambda: any(value and value["op"] == "u" for _, _, value in harness.records()),
        what="the new run sends an event of the table",
        seconds=PATIENCE,
    )
    return rows


# What of an offset is no transaction's and no snapshot's.
_PLACE = ("file", "pos", "server_id", "ts_sec")
