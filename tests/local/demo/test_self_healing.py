"""While the demo runs, things are broken by hand; the sensor puts each right within 90 seconds and says so."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest

from cdc_platform.connectors.leader_files import file_name
from cdc_platform.documents import dump_yaml, parse_yaml
from cdc_platform.local.demo import running, sources
from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import Engine
from cdc_platform.wiring import topology_store
from tests.local.demo.test_demo import COMMAND, processes_of
from tests.waiting import assert_eventually

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]

RIGHT_WITHIN = 90.0


class LiveDemo:
    """A demo that runs in a process of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory / "demo.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [COMMAND, "demo", "--dir", str(directory)],
                stdout=log,
                stderr=log,
                # Ctrl-C is for it, also where the tests themselves run in the background of a shell.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        self.assert_eventually(lambda: "All shards are captured" in self.log.read_text(), "the demo is up", 300)
        self.stack = Stack.load(directory / "stack")
        found = re.search(r"Dagster: (http://\S+)", self.log.read_text())
        assert found
        self.dagster = found[1]
        self.connect = self.stack.connect_urls[0]

    def assert_eventually(self, holds: Callable[[], bool], what: str, seconds: float) -> None:
        assert_eventually(holds, what, seconds, pause=0.5, meanwhile=self._assert_alive)

    def _assert_alive(self) -> None:
        assert self.process.poll() is None, self.log.read_text()[-3000:]

    def status(self, name: str) -> dict[str, object] | None:
        reply = httpx.get(f"{self.connect}/connectors/{name}/status", timeout=10)
        return reply.json() if reply.status_code == 200 else None

    def task_state(self, name: str) -> str | None:
        document = self.status(name)
        tasks = document["tasks"] if document else []
        return tasks[0]["state"] if tasks else None  # type: ignore[index]

    def config(self, name: str) -> dict[str, str]:
        reply = httpx.get(f"{self.connect}/connectors/{name}/config", timeout=10)
        return reply.json() if reply.status_code == 200 else {}

    def query(self, text: str) -> dict[str, object]:
        reply = httpx.post(f"{self.dagster}/graphql", json={"query": text}, timeout=20).raise_for_status()
        document = reply.json()
        assert "errors" not in document, document
        return document["data"]  # type: ignore[no-any-return]

    def runs(self) -> list[dict[str, str]]:
        data = self.query(
            '{ runsOrError(filter: {pipelineName: "cdc_reconcile"}) { ... on Runs { results { runId status } } } }'
        )
        return data["runsOrError"]["results"]  # type: ignore[index, no-any-return]

    def messages(self) -> str:
        """All messages of the runs' event logs."""
        lines = []
        for run in self.runs():
            data = self.query(
                '{ logsForRun(runId: "' + run["runId"] + '") { ... on EventConnection { events {'
                " ... on MessageEvent { message } } } } }"
            )
            lines += [event["message"] for event in data["logsForRun"]["events"] if event]  # type: ignore[index]
        return "\n".join(lines)

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "CDC_PLATFORM_CONFIG": str(self.stack.settings_file)}
        return subprocess.run([COMMAND, *arguments], capture_output=True, text=True, env=environment, timeout=120)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveDemo]:
    directory = tmp_path_factory.mktemp("live")
    for part in (directory, directory.parent):
        part.chmod(0o755)
    live = LiveDemo(directory)
    yield live
    live.process.send_signal(signal.SIGINT)
    assert live.process.wait(timeout=120) == 130, live.log.read_text()[-3000:]
    # Dagster's code servers end by themselves once nobody asks them any more.
    end = time.monotonic() + 60
    while processes_of(directory) and time.monotonic() < end:
        time.sleep(0.5)
    assert processes_of(directory) == []


def test_a_demo_is_found_from_another_terminal(demo: LiveDemo) -> None:
    assert demo.stack.directory in running.demo_directories(), "`cdc-platform --demo` finds it"


def test_demo_sensor_puts_drift_right_within_90_seconds(demo: LiveDemo) -> None:
    store = topology_store(demo.stack.settings())
    try:
        topology = store.load()
        # A task killed into FAILED.
        failed = _fail_a_task(demo)
        # A connector deleted by REST.
        httpx.delete(f"{demo.connect}/connectors/orders.00001", timeout=30).raise_for_status()
        # A dataset override changed in ZooKeeper.
        store.put_dataset(replace(topology.dataset("orders"), connector={"poll.interval.ms": "250"}))
        # A shard added, with its database.
        shard = topology.shard("pins", "00000")
        admin = demo.stack.admin(Engine.MARIADB)
        script = (Path(__file__).parents[3] / "examples/sql/pins.sql").read_text()
        sources.create_mariadb(demo.stack.mariadb_primary, admin, ["pins_00008"], script)
        store.put_shard(replace(shard, id="00008", database="pins_00008"))
    finally:
        store.close()
    broken = time.monotonic()
    demo.assert_eventually(
        lambda: demo.task_state("orders.00001") == "RUNNING", "the deleted connector runs again", RIGHT_WITHIN
    )
    demo.assert_eventually(lambda: demo.task_state(failed) == "RUNNING", "the failed task runs again", RIGHT_WITHIN)
    demo.assert_eventually(
        lambda: all(demo.config(f"orders.0000{n}").get("poll.interval.ms") == "250" for n in range(4)),
        "the override arrived at every shard",
        RIGHT_WITHIN,
    )
    demo.assert_eventually(
        lambda: demo.task_state("pins.00008") == "RUNNING", "the new shard is captured", RIGHT_WITHIN
    )
    assert time.monotonic() - broken < RIGHT_WITHIN
    demo.assert_eventually(lambda: "pins.00008" in demo.messages(), "the event log tells of it", 30)
    log = demo.messages()
    for sentence in (
        r"Create connector orders\.00001 in cluster \S+: done\.",
        rf"Restart connector {re.escape(failed)} in cluster \S+ \(attempt 1, connection: .*\): done\.",
        r"Update connector orders\.0000\d in cluster \S+: poll\.interval\.ms: done\.",
        r"Create connector pins\.00008 in cluster \S+: done\.",
    ):
        assert re.search(sentence, log), f"{sentence} is not in the event log"


def test_demo_goes_on_after_the_host_of_a_pass_was_killed_in_mid_pass(demo: LiveDemo) -> None:
    before = len(demo.runs())
    store = topology_store(demo.stack.settings())
    try:
        topology = store.load()
        store.put_dataset(replace(topology.dataset("pins"), connector={"poll.interval.ms": "300"}))
    finally:
        store.close()
    killed = []

    def kill_the_pass() -> bool:
        for process in psutil.process_iter():
            try:
                mine = str(demo.directory) in process.environ().get("DAGSTER_HOME", "")
                command = " ".join(process.cmdline())
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            if mine and "execute_run" in command:
                process.kill()
                killed.append(process.pid)
        return bool(killed) or "started" in _states(demo)

    def _states(live: LiveDemo) -> set[str]:
        return {run["status"].lower() for run in live.runs()[: max(0, len(live.runs()) - before)]}

    demo.assert_eventually(kill_the_pass, "a pass ran and was killed", RIGHT_WITHIN)
    demo.assert_eventually(
        lambda: all(demo.config(f"pins.0000{n}").get("poll.interval.ms") == "300" for n in range(8)),
        "a later pass did the work",
        180,
    )
    demo.assert_eventually(
        lambda: not [run for run in demo.runs() if run["status"] in ("STARTED", "STARTING", "QUEUED")],
        "no run is left started",
        120,
    )


def test_demo_plan_is_empty_and_a_shard_less_is_a_named_delete(demo: LiveDemo, tmp_path: Path) -> None:
    demo.assert_eventually(lambda: demo.cli("plan").returncode == 0, "the plan is empty", 120)
    exported = demo.cli("topology", "export")
    assert exported.returncode == 0, exported.stderr
    topology = parse_yaml(exported.stdout, where="export")
    less = {**topology.shards, "orders": topology.shards["orders"][:3]}
    file = tmp_path / "less.yaml"
    file.write_text(dump_yaml(replace(topology, shards=less)))
    imported = demo.cli("topology", "import", str(file), "--allow-deletes", "1")
    assert imported.returncode == 0, imported.stderr
    plan = demo.cli("plan")
    assert plan.returncode == 2, plan.stdout + plan.stderr
    assert "delete connector orders.00003" in plan.stdout
    assert json.loads(demo.cli("plan", "--json").stdout)["counts"] == {"delete connector": 1}


def _fail_a_task(demo: LiveDemo) -> str:
    """Send one task to a port where nobody listens, and give the right one back once it FAILED; its connector."""
    name = "pins.00003"
    files = [demo.stack.directory / "workers" / worker / "leaders" / file_name(name) for worker in demo.stack.workers]
    right = [file.read_text() for file in files]
    try:
        for file in files:
            file.write_text("host=127.0.0.1\nport=1\ngeneration=0\n")
        httpx.post(f"{demo.connect}/connectors/{name}/tasks/0/restart", timeout=30).raise_for_status()
        demo.assert_eventually(lambda: demo.task_state(name) == "FAILED", "the task failed", 60)
    finally:
        for file, text in zip(files, right, strict=True):
            file.write_text(text)
    return name
