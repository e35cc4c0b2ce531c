"""The supervisor's promises, with real processes that only sleep."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cdc_platform.errors import StackError
from cdc_platform.local.control import Control
from cdc_platform.local.lifecycle import end_leftovers
from cdc_platform.local.probes import wait_ready
from cdc_platform.local.services import Launch
from cdc_platform.local.supervisor import PIDS_FILE, start_of
from tests.waiting import assert_eventually


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    # Longer than a Unix socket's path may be.
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    (deep / "logs").mkdir(parents=True)
    return deep


@pytest.fixture
def control(directory: Path) -> Iterator[Control]:
    found = Control(directory)
    yield found
    if found.alive():
        found.shut_down()


def sleeper(directory: Path, name: str = "s", **more: object) -> Launch:
    return launch(directory, "import time; time.sleep(600)", name=name, **more)


def launch(directory: Path, code: str, *, name: str = "s", **more: object) -> Launch:
    log = str(directory / "logs" / f"{name}.log")
    argv = (sys.executable, "-c", code)
    return Launch(name=name, argv=argv, cwd=str(directory), log=log, **more)  # type: ignore[arg-type]


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def supervisor_pid(pid: int) -> int:
    return psutil.Process(pid).ppid()


def test_a_service_runs_and_its_exit_code_is_known(directory: Path, control: Control) -> None:
    control.start_supervisor()
    control.spawn(launch(directory, "print('hello'); raise SystemExit(7)"))
    assert control.wait_ended("s", 10.0)
    assert control.running()["s"].code == 7
    assert (directory / "logs" / "s.log").read_text() == "hello\n"


def test_a_dead_service_stays_dead_and_can_be_started_again(directory: Path, control: Control) -> None:
    control.start_supervisor()
    first = control.spawn(sleeper(directory))
    control.signal("s", signal.SIGKILL)
    assert control.wait_ended("s", 10.0)
    assert control.running()["s"].code == -signal.SIGKILL
    second = control.spawn(sleeper(directory))
    assert second.pid != first.pid


def test_a_running_service_is_not_started_twice(directory: Path, control: Control) -> None:
    control.start_supervisor()
    control.spawn(sleeper(directory))
    with pytest.raises(StackError, match="runs already"):
        control.spawn(sleeper(directory))


def test_a_program_that_is_missing_is_an_error_of_the_call(directory: Path, control: Control) -> None:
    control.start_supervisor()
    broken = Launch(name="s", argv=("/nowhere/program",), cwd=str(directory), log=str(directory / "logs" / "s.log"))
    with pytest.raises(StackError, match="/nowhere/program"):
        control.spawn(broken)
    assert control.running() == {}


def test_services_see_no_environment_but_their_own(
    directory: Path, control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOP_SECRET", "hunter2")
    control.start_supervisor()
    code = "import os; print(sorted(k for k in os.environ if k != 'LC_CTYPE'))"
    control.spawn(launch(directory, code, env={"WORKER": "w0"}))
    control.wait_ended("s", 10.0)
    assert (directory / "logs" / "s.log").read_text() == "['WORKER']\n"


def test_killed_supervisor_leaves_no_orphans(directory: Path, control: Control) -> None:
    control.start_supervisor()
    child = control.spawn(sleeper(directory)).pid
    os.kill(supervisor_pid(child), signal.SIGKILL)
    assert_eventually(lambda: gone(child), "the child is gone", 10)
    assert_eventually(lambda: not control.alive(), "the supervisor is gone", 10)


def test_owned_stack_ends_with_its_killed_owner(directory: Path, control: Control) -> None:
    code = (
        "import os, sys, time; from pathlib import Path; from cdc_platform.local.control import Control\n"
        f"read, write = os.pipe(); Control(Path({str(directory)!r})).start_supervisor(owner_fd=read)\n"
        "os.close(read); print('up', flush=True); time.sleep(600)"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"up\n"
    child = control.spawn(sleeper(directory)).pid
    owner.kill()
    owner.wait()
    owner.stdout.close()
    assert_eventually(lambda: gone(child), "the child is gone", 10)
    assert_eventually(lambda: not control.alive(), "the supervisor is gone", 10)


def test_detached_stack_survives_the_shell_that_started_it(directory: Path, control: Control) -> None:
    code = (
        "from pathlib import Path; from cdc_platform.local.control import Control\n"
        f"Control(Path({str(directory)!r})).start_supervisor()"
    )
    shell = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    assert shell.wait() == 0
    with pytest.raises(ProcessLookupError):
        os.killpg(shell.pid, signal.SIGHUP)  # nobody of its session is left
    child = control.spawn(sleeper(directory)).pid
    assert not gone(child)


def test_shut_down_stops_the_highest_stage_first_and_kills_the_stubborn(directory: Path, control: Control) -> None:
    control.start_supervisor()
    stubborn = (
        "import signal, sys, time\n"
        "def told(*_): print('told', time.monotonic(), flush=True)\n"
        "signal.signal(signal.SIGTERM, told); print('ready', flush=True)\n"
        "while True: time.sleep(600)"
    )
    polite = (
        "import signal, sys, time\n"
        "def told(*_): print('told', time.monotonic(), flush=True); sys.exit()\n"
        "signal.signal(signal.SIGTERM, told); print('ready', flush=True)\n"
        "while True: time.sleep(600)"
    )
    control.spawn(launch(directory, polite, name="low", stage=0))
    pid = control.spawn(launch(directory, stubborn, name="high", stage=1, grace=0.3)).pid
    logs = {name: directory / "logs" / f"{name}.log" for name in ("low", "high")}
    assert_eventually(lambda: all("ready" in log.read_text() for log in logs.values()), "both are ready", 10)
    asked = time.monotonic()
    control.shut_down()
    assert gone(pid)
    told = {name: float(log.read_text().split()[-1]) for name, log in logs.items()}
    assert told["high"] < told["low"]
    assert told["low"] - asked >= 0.3  # the grace of the higher stage


def test_a_supervisor_that_is_ending_is_waited_for(directory: Path, control: Control) -> None:
    control.start_supervisor()
    slow = "import signal, time; signal.signal(15, lambda *_: None); print(1, flush=True); time.sleep(600)"
    child = control.spawn(launch(directory, slow + "; time.sleep(600)", grace=1.0)).pid
    assert_eventually(lambda: (directory / "logs" / "s.log").read_text(), "it writes its log", 10)
    os.kill(supervisor_pid(child), signal.SIGTERM)
    assert_eventually(lambda: not control.settled(), "it is noticed", 10)
    assert gone(child)
    control.start_supervisor()
    assert control.settled()
    control.shut_down()


def test_a_second_supervisor_does_not_take_the_directory(directory: Path, control: Control) -> None:
    control.start_supervisor()
    child = control.spawn(sleeper(directory)).pid
    argv = [sys.executable, "-m", "cdc_platform.local.supervisor", "--dir", str(directory)]
    second = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert second.returncode == 1
    assert "another supervisor" in second.stderr
    assert not gone(child)
    assert "s" in control.running()


def test_leftovers_of_a_dead_supervisor_are_ended(directory: Path, control: Control) -> None:
    orphan = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    written = {"s": {"pid": orphan.pid, "started": start_of(orphan.pid)}}
    (directory / PIDS_FILE).write_text(json.dumps(written))
    assert [process.pid for process in control.leftovers()] == [orphan.pid]
    end_leftovers(control)
    assert gone(orphan.pid)
    orphan.wait()


def test_a_reused_pid_is_never_killed(directory: Path, control: Control) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    boot, tick = start_of(stranger.pid).split(":")
    written = {"s": {"pid": stranger.pid, "started": f"{boot}:{int(tick) - 1}"}}
    (directory / PIDS_FILE).write_text(json.dumps(written))
    try:
        assert control.leftovers() == []
        end_leftovers(control)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_garbage_on_the_socket_does_not_end_it(directory: Path, control: Control) -> None:
    control.start_supervisor()
    child = control.spawn(sleeper(directory)).pid
    folder = os.open(directory, os.O_RDONLY)
    for sent in (b"", b"not json\n", b'{"op":"fly"}\n', b'{"no":"op"}\n'):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(f"/proc/self/fd/{folder}/supervisor.sock")
            connection.sendall(sent)
    os.close(folder)
    assert control.running()["s"].code is None
    assert not gone(child)


def test_readiness_error_shows_the_last_log_lines(directory: Path, control: Control) -> None:
    control.start_supervisor()
    one = launch(directory, "print('cannot bind'); raise SystemExit(3)")
    control.spawn(one)
    with pytest.raises(StackError, match="ended with code 3") as caught:
        wait_ready(control, "s", one.log, lambda: "not yet")
    assert "cannot bind" in str(caught.value)


def test_readiness_has_a_deadline(directory: Path, control: Control) -> None:
    control.start_supervisor()
    one = sleeper(directory)
    control.spawn(one)
    with pytest.raises(StackError, match="not ready within 0 s: no answer"):
        wait_ready(control, "s", one.log, lambda: "no answer", timeout=0.2)


def test_nobody_there_is_one_clear_error(directory: Path, control: Control) -> None:
    assert not control.alive()
    with pytest.raises(StackError, match="does not answer"):
        control.running()
