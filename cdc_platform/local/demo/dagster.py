"""Dagster's webserver and daemon beside the demo's stack, and what its API says of the runs.

Dagster runs as processes of its own; nothing is imported from it here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from cdc_platform.documents.project_files import repository_file
from cdc_platform.errors import StackError
from cdc_platform.local.control import tail
from cdc_platform.local.ports import chosen
from cdc_platform.local.services import Launch
from cdc_platform.local.stack import Stack
from cdc_platform.settings import CONFIG_ENV

WEBSERVER = "dagster-webserver"
DAEMON = "dagster-daemon"
STARTED_WITHIN = 90.0


class DagsterProcesses:
    """The webserver and the daemon of one demo."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self.home = stack.directory / "dagster_home"
        self.address = ""

    def start(self) -> None:
        """Start both and wait until the webserver has loaded the code location.

        Raises:
            StackError: one of them ended, or was not ready in time; with its last log lines.
        """
        self.home.mkdir(exist_ok=True)
        shutil.copy(repository_file("dagster_home/dagster.yaml"), self.home / "dagster.yaml")
        with chosen(["dagster.webserver"], fixed={}, before={}) as ports:
            port = ports["dagster.webserver"]
            self._stack.control.reserve([port])
        self.address = f"http://127.0.0.1:{port}"
        bin_dir = Path(sys.executable).parent
        self._make_databases(bin_dir / "dagster")
        module = ["-m", "cdc_platform.definitions"]
        self._spawn(DAEMON, [str(bin_dir / "dagster-daemon"), "run", *module], {})
        self._spawn(
            WEBSERVER,
            [str(bin_dir / "dagster-webserver"), "-h", "127.0.0.1", "-p", str(port), *module],
            {"webserver": port},
        )
        self._wait()

    def _make_databases(self, dagster: Path) -> None:
        """Webserver and daemon, started at once on an empty home, would both make them, and one may end of it."""
        done = subprocess.run(
            [str(dagster), "instance", "info"],
            env={**os.environ, **self._env()},
            capture_output=True,
            text=True,
            timeout=STARTED_WITHIN,
        )
        if done.returncode != 0:
            raise StackError(
                f"Dagster cannot make its databases:\n{done.stderr[-2000:]}",
                where=str(self.home),
                cure="Read the message.",
            )

    def _env(self) -> dict[str, str]:
        return {
            "DAGSTER_HOME": str(self.home),
            CONFIG_ENV: str(self._stack.settings_file),
            "DAGSTER_DISABLE_TELEMETRY": "1",
            "PYTHONUNBUFFERED": "1",
        }

    def _spawn(self, name: str, argv: list[str], ports: dict[str, int]) -> None:
        self._stack.control.spawn(
            Launch(
                name=name,
                argv=tuple(argv),
                cwd=str(self.home),
                log=str(self._log(name)),
                env=self._env(),
                ports=ports,
                grace=15.0,
                stage=99,
            )
        )

    def _log(self, name: str) -> Path:
        return self._stack.directory / "logs" / f"{name}.log"

    def _wait(self) -> None:
        end = time.monotonic() + STARTED_WITHIN
        problem = "no answer yet"
        while time.monotonic() < end:
            running = self._stack.running()
            for name in (WEBSERVER, DAEMON):
                if name not in running:
                    raise StackError(
                        f"{name} ended at its start:\n{tail(self._log(name), 15)}",
                        where=str(self._log(name)),
                        cure="Read its log.",
                    )
            try:
                self._location()
                return
            except (httpx.HTTPError, LookupError) as error:
                problem = str(error)
            time.sleep(0.5)
        raise StackError(
            f"Dagster was not ready in {STARTED_WITHIN:.0f} s: {problem}.",
            where=str(self._log(WEBSERVER)),
            cure="Read its log.",
        )

    def _location(self) -> None:
        answer = self.query(
            "{ workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError {"
            " __typename ... on PythonError { message } } } } } }"
        )
        entries = answer["workspaceOrError"]["locationEntries"]
        loaded = entries[0]["locationOrLoadError"] if entries else None
        if not loaded:
            raise LookupError("the code location is loading")
        if loaded["__typename"] == "PythonError":
            raise StackError(
                f"Dagster cannot load the definitions: {loaded['message']}",
                where="cdc_platform.definitions",
                cure="Read the message.",
            )

    def query(self, text: str, **variables: Any) -> Any:
        """The `data` of a GraphQL query. Raises httpx.HTTPError and LookupError."""
        reply = httpx.post(
            f"{self.address}/graphql", json={"query": text, "variables": variables}, timeout=20.0
        ).raise_for_status()
        document = reply.json()
        if document.get("errors"):
            raise LookupError(str(document["errors"][0]["message"]))
        return document["data"]

    def runs(self) -> list[str]:
        """The states of all runs of the job `reconcile`."""
        data = self.query(
            '{ runsOrError(filter: {pipelineName: "cdc_reconcile"}) { ... on Runs { results { status } } } }'
        )
        return [run["status"] for run in data["runsOrError"]["results"]]

    def ticks(self) -> int:
        """How many ticks of the sensor requested a run or found nothing to do."""
        data = self.query(
            "query Ticks($selector: SensorSelector!) { sensorOrError(sensorSelector: $selector) {"
            " ... on Sensor { sensorState { ticks(limit: 500) { status } } } } }",
            selector=self._selector("reconcile_sensor"),
        )
        ticks = data["sensorOrError"]["sensorState"]["ticks"]
        return sum(1 for tick in ticks if tick["status"] in ("SUCCESS", "SKIPPED"))

    def materialized_partitions(self) -> int:
        """How many shards have a materialization."""
        data = self.query(
            "{ assetNodes { partitionStats { numMaterialized } } }",
        )
        return sum(node["partitionStats"]["numMaterialized"] for node in data["assetNodes"] if node["partitionStats"])

    def _selector(self, sensor: str) -> dict[str, str]:
        data = self.query(
            "{ repositoriesOrError { ... on RepositoryConnection { nodes { name location { name } } } } }"
        )
        node = data["repositoriesOrError"]["nodes"][0]
        return {
            "repositoryName": node["name"],
            "repositoryLocationName": node["location"]["name"],
            "sensorName": sensor,
        }
