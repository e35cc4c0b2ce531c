"""The systemd unit and the agent's promises on a host: rights of its files, throttled restarts, small memory."""

from __future__ import annotations

import configparser
import os
import shlex
import stat
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from cdc_platform.agent.command import agent
from cdc_platform.agent.leader_directory import LeaderDirectory
from cdc_platform.agent.task_restarter import Restarter
from cdc_platform.connectors.leader_files import LeaderFile
from cdc_platform.model.observed import ObservedTask
from cdc_platform.model.topology import LEADER_DIR, Address

UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "cdc-platform-agent.service"
ID = "127.0.0.1:8083"


class _Unit(configparser.RawConfigParser):
    def optionxform(self, optionstr: str) -> str:
        return optionstr


def unit() -> configparser.RawConfigParser:
    parser = _Unit(strict=True)
    parser.read_string(UNIT.read_text().replace("\\\n", " "))
    return parser


def test_the_systemd_unit_starts_the_agent_with_options_that_it_has() -> None:
    words = shlex.split(unit()["Service"]["ExecStart"])
    assert words[:2] == ["/opt/cdc-platform/bin/cdc-platform", "agent"]
    known = {name: option for option in agent.params for name in option.opts}
    given = dict(zip(words[2::2], words[3::2], strict=True))
    assert given.keys() <= known.keys()
    required = {option.opts[0] for option in agent.params if option.required}
    assert required <= given.keys()
    assert given["--leader-dir"] == LEADER_DIR


def test_the_systemd_unit_runs_with_little_rights_and_in_the_workers_group() -> None:
    service = unit()["Service"]
    assert (
        service["User"] != "root"
        and service["Group"]
        == shlex.split(service["ExecStart"])[shlex.split(service["ExecStart"]).index("--group") + 1]
    )
    assert f"/var/lib/{service['StateDirectory']}" == LEADER_DIR
    assert service["Restart"] == "always"
    for name in ("NoNewPrivileges", "ProtectHome", "PrivateTmp"):
        assert service[name] == "true"


@pytest.mark.skipif(os.geteuid() != 0 and len(os.getgroups()) < 2, reason="needs a second group of this user")
def test_leader_files_belong_to_the_workers_group(tmp_path: Path) -> None:
    group = 12345 if os.geteuid() == 0 else next(gid for gid in os.getgroups() if gid != os.getegid())
    directory = LeaderDirectory(tmp_path / "leaders", owner="w0", group=str(group))
    assert directory.write({"pins.00000": LeaderFile(leader=Address("db", 3306), generation=1)}) == {}
    info = (tmp_path / "leaders" / "pins.00000.properties").stat()
    assert (info.st_gid, stat.S_IMODE(info.st_mode)) == (group, 0o640)
    folder = (tmp_path / "leaders").stat()
    assert (folder.st_gid, stat.S_IMODE(folder.st_mode)) == (group, 0o750)


class Busy:
    """A worker with thousands of tasks that counts how many restarts run at one time."""

    def __init__(self, shards: int) -> None:
        self.shards = shards
        self.restarted: list[str] = []
        self.now = self.most = self.looks = 0
        self.lock = threading.Lock()

    def tasks(self) -> Mapping[str, tuple[ObservedTask, ...]]:
        self.looks += 1
        return {f"pins.{n:05d}": (ObservedTask(id=0, state="RUNNING", worker=ID),) for n in range(self.shards)}

    def restart_task(self, name: str, task: int) -> None:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.0005)
        with self.lock:
            self.now -= 1
            self.restarted.append(name)


def test_thousands_of_shards_that_move_at_once_are_restarted_a_few_at_a_time_each_once() -> None:
    worker, settled = Busy(5000), threading.Event()
    done: set[str] = set()

    def note(names: Mapping[str, LeaderFile]) -> None:
        done.update(names)
        if len(done) == worker.shards:
            settled.set()

    restarter = Restarter(worker, ID, parallel=4, settled=note)
    restarter.start()
    restarter.add({name: LeaderFile(leader=Address("new", 1), generation=1) for name in worker.tasks()})
    assert settled.wait(120)
    restarter.stop()
    assert worker.most <= 4
    assert len(worker.restarted) == len(set(worker.restarted)) == 5000
    assert worker.looks < 20, "the status is read once a round, not once a shard"
    assert restarter.waiting() == {}
