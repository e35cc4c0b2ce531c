"""A Dagster of processes of its own, as an operator has it, for tests that kill it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import dagster as dg
import psutil

from cdc_platform.defs.names import Names
from cdc_platform.defs.run_kinds import RunOf
from cdc_platform.settings import CONFIG_ENV, Settings
from tests.settings_file import write_settings

_ROOT = Path(__file__).parents[2]
_BIN = Path(sys.executable).parent
_MODULE = ("-m", "cdc_platform.definitions")


def settings_file(settings: Settings, directory: Path) -> Path:
    """The settings as a file that other processes read, in this directory, with a cache of its own there."""
    return write_settings(replace(settings, cache_dir=str(directory / "cache")), directory / "cdc-platform.toml")


@dataclass(kw_only=True)
class OutsideDagster:
    """`home` is a new directory; `settings` are written there for the processes to find.

    `code` says what is loaded, `more` is appended to the settings file; `environment` is of its processes.
    """

    home: Path
    settings: Settings
    code: Sequence[str] = _MODULE
    more: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    _seen: list[psutil.Process] = field(default_factory=list)
    _count: int = 0

    def __post_init__(self) -> None:
        self.home.mkdir(parents=True)
        shutil.copy(_ROOT / "dagster_home/dagster.yaml", self.home / "dagster.yaml")
        with settings_file(self.settings, self.home).open("a") as file:
            file.write(self.more)
        # Two processes that make Dagster's SQLite files at once get in each other's way.
        with dg.DagsterInstance.from_config(str(self.home)):
            pass

    @property
    def names(self) -> Names:
        """Of its jobs and ops."""
        return Names(self.settings.platform)

    def execute(self, job: str, config: Mapping[str, Any]) -> subprocess.Popen[bytes]:
        """A run in a process that we start: `dagster job execute`; its steps are processes of their own."""
        return self._spawn(
            "dagster", "job", "execute", *self.code, "-j", self.names.job(RunOf(job)), "-c", self._file(job, config)
        )

    def launch(self, job: str, config: Mapping[str, Any], op: str = "") -> None:
        """A run in the queue, for the daemon to start. `op` takes the config, by default `open_<job>`."""
        done = self._spawn(
            "dagster", "job", "launch", *self.code, "-j", self.names.job(RunOf(job)), "-c", self._file(job, config, op)
        )
        assert done.wait(timeout=180) == 0, self.log()

    def materialize(self, asset: str) -> int:
        """A run by hand, in a process of its own: its exit code."""
        return self._spawn("dagster", "asset", "materialize", *self.code, "--select", asset).wait(timeout=180)

    def daemon(self) -> subprocess.Popen[bytes]:
        """The daemon, with its code server: sensors, the queue, the runs."""
        return self._spawn("dagster-daemon", "run", *self.code)

    def webserver(self, port: int) -> subprocess.Popen[bytes]:
        """The pages, at a port of this host."""
        return self._spawn("dagster-webserver", "-h", "127.0.0.1", "-p", str(port), *self.code)

    def kill(self, process: subprocess.Popen[bytes], *, family: bool) -> None:
        """SIGKILL to the process, and with `family` to all that it started."""
        members = self._family(process.pid)
        self._seen += members
        for member in members if family else members[:1]:
            _kill(member)
        process.wait()
        if family:
            psutil.wait_procs(members, timeout=30)

    def end(self) -> None:
        """Kill what is left of all that was started."""
        members = self._seen + [one for seen in self._seen for one in self._family(seen.pid)]
        for member in members:
            _kill(member)
        psutil.wait_procs(members, timeout=30)

    def log(self) -> str:
        """The end of what all of it printed."""
        return "\n".join(path.read_text(errors="replace")[-3000:] for path in sorted(self.home.glob("*.log")))

    def _file(self, job: str, config: Mapping[str, Any], op: str = "") -> str:
        path = self.home / f"{job}.json"  # JSON is YAML
        path.write_text(
            json.dumps({"ops": {self.names.of(op or f"open_{job}"): {"config": dict(config)}}} if config else {})
        )
        return str(path)

    def _spawn(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        self._count += 1
        with (self.home / f"{self._count:02d}-{program}.log").open("wb") as log:
            process = subprocess.Popen(
                [str(_BIN / program), *arguments],
                cwd=self.home,
                env={
                    **os.environ,
                    "DAGSTER_HOME": str(self.home),
                    CONFIG_ENV: str(self.home / "cdc-platform.toml"),
                    "DAGSTER_DISABLE_TELEMETRY": "1",
                    **self.environment,
                },
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._seen.append(psutil.Process(process.pid))
        return process

    def _family(self, pid: int) -> Sequence[psutil.Process]:
        try:
            process = psutil.Process(pid)
            return [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


def _kill(process: psutil.Process) -> None:
    try:
        # By the handle, which knows when its pid has become another's.
        process.send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        return
