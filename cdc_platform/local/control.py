"""Talking to the supervisor of a stack, and starting one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import psutil

from cdc_platform.errors import StackError
from cdc_platform.local.services import Launch, Running
from cdc_platform.local.supervisor import LOCK_FILE, PIDS_FILE, REQUEST_BYTES, SOCKET_FILE, start_of

_STARTED_WITHIN = 15.0
_COMPLAINT = re.compile(r"\b(ERROR|FATAL|PANIC)\b|\w*(Exception|[Ee]rror):")


class Control:
    """The supervisor of one stack directory, as its users see it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def alive(self) -> bool:
        """True while a supervisor has this directory."""
        try:
            with (self._directory / LOCK_FILE).open("r") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def start_supervisor(self, *, owner_fd: int | None = None) -> None:
        """Start the supervisor, in a session of its own, and wait until it answers.

        With `owner_fd`, the read end of a pipe, it ends the stack when the
        write end closes.
        """
        argv = [sys.executable, "-m", "cdc_platform.local.supervisor", "--dir", str(self._directory)]
        if owner_fd is not None:
            argv += ["--owner-fd", str(owner_fd)]
        log_path = self._directory / "logs" / "supervisor.log"
        with log_path.open("ab") as log:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=() if owner_fd is None else (owner_fd,),
            )
        deadline = time.monotonic() + _STARTED_WITHIN
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(StackError):
                self.running()
                return
            time.sleep(0.02)
        process.kill()
        process.wait()
        raise StackError(
            f"the supervisor did not start:\n{tail(log_path, 10)}", where=str(log_path), cure="Read its log."
        )

    def spawn(self, launch: Launch) -> Running:
        """Start a service's process."""
        return msgspec.convert(self._ask({"op": "spawn", "launch": launch}), Running)

    def signal(self, name: str, number: int) -> Running:
        """Send a signal to a service's process."""
        return msgspec.convert(self._ask({"op": "signal", "name": name, "signal": int(number)}), Running)

    def reserve(self, ports: Iterable[int]) -> None:
        """Keep ports for this stack while the supervisor lives."""
        self._ask({"op": "reserve", "ports": list(ports)})

    def running(self) -> dict[str, Running]:
        """All processes that were started, with exit codes."""
        return msgspec.convert(self._ask({"op": "list"}), dict[str, Running])

    def wait_ended(self, name: str, timeout: float) -> bool:
        """True once the service has ended; False when it still runs after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            found = self.running().get(name)
            if found is None or found.code is not None:
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)

    def settled(self, timeout: float = 90.0) -> bool:
        """True when the supervisor lives and answers, False when there is none; waits for one that is ending.

        Raises:
            StackError: one lives and does not answer for `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while self.alive():
            try:
                self.running()
            except StackError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return True
        return False

    def shut_down(self, timeout: float = 90.0) -> None:
        """End all services and the supervisor. Raises StackError when that takes longer."""
        # One that does not answer is ending already.
        with contextlib.suppress(StackError):
            self._ask({"op": "shutdown"})
        deadline = time.monotonic() + timeout
        while self.alive():
            if time.monotonic() > deadline:
                raise StackError(
                    f"the supervisor is still there after {timeout:.0f} s.",
                    where=str(self._directory),
                    cure=f"Kill the process that holds {LOCK_FILE} there: its children end with it.",
                )
            time.sleep(0.05)

    def leftovers(self) -> list[psutil.Process]:
        """Processes of an earlier supervisor that outlived it.

        A pid counts only with the start time that was written down, so that a
        pid that was given to another program since is never taken for ours.
        """
        try:
            written = msgspec.json.decode((self._directory / PIDS_FILE).read_bytes(), type=dict[str, Running])
        except (FileNotFoundError, msgspec.DecodeError):
            return []
        found = []
        for one in written.values():
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                process = psutil.Process(one.pid)
                if start_of(one.pid) == one.started and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def _ask(self, request: dict[str, Any]) -> Any:
        folder = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(10.0)
                # Through the open directory: a socket's path may only have 107 bytes.
                connection.connect(f"/proc/self/fd/{folder}/{SOCKET_FILE}")
                connection.sendall(msgspec.json.encode(request) + b"\n")
                line = connection.makefile("rb").readline(REQUEST_BYTES)
        except (OSError, TimeoutError) as error:
            raise StackError(
                f"its supervisor does not answer: {error}.",
                where=str(self._directory),
                cure="`cdc-platform stack up` starts the stack.",
            ) from error
        finally:
            os.close(folder)
        if not line:
            raise StackError("its supervisor hung up.", where=str(self._directory), cure="Read its log.")
        reply = msgspec.json.decode(line)
        if "error" in reply:
            raise StackError(f"{reply['error']}.", where=str(self._directory))
        return reply["ok"]


def tail(log: Path, lines: int) -> str:
    """The last lines of a log, empty when there is none."""
    return "\n".join(_recent(log)[-lines:])


def complaints(log: Path, lines: int) -> str:
    """The last lines that say what went wrong, as Java, MariaDB and Postgres say it."""
    return "\n".join([line for line in _recent(log) if _COMPLAINT.search(line)][-lines:])


def _recent(log: Path) -> list[str]:
    try:
        with log.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - 64 * 1024))
            return stream.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return []
