"""The program in places that are not a developer's terminal: each is a process of its own."""

from __future__ import annotations

import os
import pty
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = str(Path(sys.executable).parent / "cdc-platform")
# Nothing listens there: what is asked of servers ends at once.
NOWHERE = {"CDC_PLATFORM_ZOOKEEPER": "127.0.0.1:1"}


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CDC_PLATFORM_")}
    return kept | more


def run(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [COMMAND, *arguments], cwd=cwd, env=environment(**env), capture_output=True, timeout=120, check=False
    )


def assert_one_error(done: subprocess.CompletedProcess[bytes], *says: str) -> None:
    text = done.stderr.decode()
    assert "Traceback" not in text and text.count("Error: ") == 1, text
    assert [part for part in says if part not in text] == [], text


def test_a_reader_that_has_seen_enough_ends_it_without_a_word(tmp_path: Path) -> None:
    done = subprocess.run(
        f"{COMMAND} worker-properties main | head -1", shell=True, cwd=tmp_path, env=environment(),
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.count("\n"), done.stderr) == (0, 1, "")


def test_a_full_disk_behind_stdout_is_one_sentence(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [COMMAND, "worker-properties", "main"], cwd=tmp_path, env=environment(), stdout=full,
            stderr=subprocess.PIPE, timeout=120, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert_one_error(done, "the output could not be written", "No space left on device")


def test_a_full_disk_behind_a_file_is_one_sentence(tmp_path: Path) -> None:
    new = "topology new shop --engine mariadb --table t --shards 0-1 --database d{shard} --leader db:3306"
    done = run(*new.split(), "--connect", "http://c:8083", "--out", "/dev/full", cwd=tmp_path)
    assert done.returncode == 1
    assert_one_error(done)


@pytest.mark.parametrize("name", ["HOME", "PATH", "TERM", "LANG"])
def test_it_needs_no_variable_of_a_login(tmp_path: Path, name: str) -> None:
    kept = environment()
    kept.pop(name, None)
    done = subprocess.run([COMMAND, "worker-properties", "main"], cwd=tmp_path, env=kept, capture_output=True,
                          timeout=120, check=False)  # fmt: skip
    assert done.returncode == 0 and b"group.id=cdc-connect-main" in done.stdout, done.stderr


def test_a_home_that_may_not_be_written_costs_nothing_that_needs_none(tmp_path: Path) -> None:
    done = run("grants", "postgres", cwd=tmp_path, HOME="/nonexistent", XDG_CACHE_HOME="/nonexistent")
    assert done.returncode == 0 and b"CREATE" in done.stdout, done.stderr


@pytest.mark.parametrize("locale", ["C", "POSIX", "de_DE.ISO-8859-1"])
def test_names_in_another_locale_s_letters_are_printed(tmp_path: Path, locale: str) -> None:
    done = run("topology", "import", "köln.yaml", cwd=tmp_path, LC_ALL=locale, PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr and b"ln.yaml" in done.stderr, done.stderr


def test_a_directory_that_is_gone_is_one_sentence(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f"cd {gone} && rmdir {gone} && {COMMAND} plan"
    done = subprocess.run(
        ["bash", "-c", script], env=environment(**NOWHERE), capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert_one_error(done)


def in_terminal(*arguments: str, cwd: Path, columns: int, **env: str) -> str:
    """What a terminal so wide receives."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [COMMAND, *arguments], cwd=cwd, env=environment(TERM="xterm", COLUMNS=str(columns), **env), stdin=slave,
        stdout=slave, stderr=slave,
    )  # fmt: skip
    os.close(slave)
    received, end = b"", time.monotonic() + 120
    while time.monotonic() < end:
        ready, _, _ = select.select([master], [], [], 1.0)
        try:
            chunk = os.read(master, 65536) if ready else b"-"
        except OSError:  # as Linux says that the other side is closed
            break
        received += chunk if ready else b""
        if not chunk:
            break
    os.close(master)
    assert process.wait(timeout=30) in (0, 1, 64)
    return received.decode(errors="replace")


def test_help_fits_into_40_columns(tmp_path: Path) -> None:
    shown = in_terminal("worker-properties", "--help", cwd=tmp_path, columns=40)
    assert "Usage: " in shown and max(len(line.rstrip()) for line in shown.splitlines()) <= 60


def test_an_error_is_the_same_on_a_terminal_without_colours(tmp_path: Path) -> None:
    shown = in_terminal("status", cwd=tmp_path, columns=40, NO_COLOR="1", **NOWHERE)
    assert "\x1b[3" not in shown and "Traceback" not in shown
    assert "Error: 127.0.0.1:1: ZooKeeper does not answer" in shown


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_command_that_waits(tmp_path: Path, number: signal.Signals) -> None:
    """One that waits for a server which takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        process = subprocess.Popen(
            [COMMAND, "plan"], cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE,
            env=environment(CDC_PLATFORM_ZOOKEEPER=f"127.0.0.1:{silent.getsockname()[1]}"),
            # A shell's background job ignores them, and its children, too.
            preexec_fn=lambda: [signal.signal(one, signal.SIG_DFL) for one in (signal.SIGINT, signal.SIGTERM)],
        )  # fmt: skip
        silent.settimeout(60)
        connection, _ = silent.accept()  # it waits now
        began = time.monotonic()
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        connection.close()
    assert time.monotonic() - began < 25, "it waits for nothing: the session's end alone would be waited for 30 s"
    assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGTERM)
    assert b"Traceback" not in err and out == b"", err
