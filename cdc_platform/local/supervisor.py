"""The process that owns a stack's processes: they live while it lives, and no longer.

It starts what it is asked to over a Unix socket, remembers exit codes, and
restarts nothing: fault tests want the dead to stay dead. The kernel kills its
children if it is killed (PR_SET_PDEATHSIG, which is bound to the thread that
forked: so there is only one thread here). With `--owner-fd` it ends the stack
when the other end of that pipe closes, that is when its owner is gone.

A lock on `supervisor.lock` says that it lives; ports of services stay bound,
not listening, so that no other stack takes them while a service is down.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import pwd
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import msgspec

from cdc_platform.local.ports import reserve
from cdc_platform.local.services import Launch, Running

LOCK_FILE = "supervisor.lock"
SOCKET_FILE = "supervisor.sock"
PIDS_FILE = "pids.json"
REQUEST_BYTES = 1024 * 1024
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Supervisor:
    """The children of one stack directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._launches: dict[str, Launch] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._running: dict[str, Running] = {}
        self._reserved: dict[int, socket.socket] = {}

    def handle(self, request: Mapping[str, Any]) -> Any:
        """Do one request: `spawn`, `signal`, `reserve` or `list`."""
        match request["op"]:
            case "spawn":
                return self.spawn(msgspec.convert(request["launch"], Launch))
            case "signal":
                return self.signal(request["name"], int(request["signal"]))
            case "reserve":
                for port in request["ports"]:
                    self._reserve(int(port))
                return None
            case "list":
                self.reap()
                return self._running
            case other:
                raise ValueError(f"no such operation: {other}")

    def spawn(self, launch: Launch) -> Running:
        """Start a process; one of that name that still runs is a mistake of the caller."""
        self.reap()
        known = self._running.get(launch.name)
        if known and known.code is None:
            raise ValueError(f"{launch.name} runs already, pid {known.pid}")
        for port in launch.ports.values():
            self._reserve(port)
        account = pwd.getpwnam(launch.user) if launch.user else None
        parent = os.getpid()

        def in_child() -> None:
            # After setuid, which would clear it again.
            _libc.prctl(_PR_SET_PDEATHSIG, launch.death_signal)
            if os.getppid() != parent:
                os._exit(1)

        with Path(launch.log).open("ab") as log:
            process = subprocess.Popen(
                launch.argv,
                cwd=launch.cwd,
                env=dict(launch.env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=in_child,
                user=account.pw_uid if account else None,
                group=account.pw_gid if account else None,
                extra_groups=[] if account else None,
            )
        self._launches[launch.name] = launch
        self._processes[launch.name] = process
        running = Running(pid=process.pid, started=start_of(process.pid))
        self._running[launch.name] = running
        self._write_pids()
        return running

    def signal(self, name: str, number: int) -> Running:
        """Send a signal to a service's process; one that has ended already gets none."""
        self.reap()
        if name not in self._running:
            raise ValueError(f"{name} was never started")
        process = self._processes[name]
        if self._running[name].code is None:
            process.send_signal(number)
        return self._running[name]

    def reap(self) -> None:
        """Note who has ended."""
        changed = False
        for name, process in self._processes.items():
            if self._running[name].code is None and process.poll() is not None:
                self._running[name] = replace(self._running[name], code=process.returncode)
                changed = True
        if changed:
            self._write_pids()

    def shut_down(self) -> None:
        """End all children: the highest stage first, SIGKILL for those that take too long."""
        for stage in sorted({launch.stage for launch in self._launches.values()}, reverse=True):
            deadline = {}
            for name, launch in self._launches.items():
                if launch.stage == stage and self._running[name].code is None:
                    self._processes[name].send_signal(launch.stop_signal)
                    deadline[name] = time.monotonic() + launch.grace
            for name, end in deadline.items():
                process = self._processes[name]
                try:
                    process.wait(timeout=max(0.0, end - time.monotonic()))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            for name in deadline:
                # What a child started itself and left behind, such as a run of Dagster's daemon.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._processes[name].pid, signal.SIGKILL)
        self.reap()

    def _reserve(self, port: int) -> None:
        if port not in self._reserved:
            self._reserved[port] = reserve(port)

    def _write_pids(self) -> None:
        alive = {name: running for name, running in self._running.items() if running.code is None}
        temporary = self._directory / f"{PIDS_FILE}.new"
        temporary.write_bytes(msgspec.json.encode(alive))
        temporary.replace(self._directory / PIDS_FILE)


def start_of(pid: int) -> str:
    """When a process was started, as `Running.started` holds it. Raises ProcessLookupError.

    A zombie still has one: the supervisor's own children stay until it has their exit code.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        raise ProcessLookupError(f"there is no process {pid}") from None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}:{fields[19]}"  # field 22, proc(5)


def serve(supervisor: Supervisor, directory: Path, owner: int | None) -> None:
    """Answer requests until asked to end, by request, signal or the owner's end."""
    stop = False

    def ask_to_stop(number: int, frame: object) -> None:
        nonlocal stop
        stop = True

    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, ask_to_stop)
    signal.signal(signal.SIGINT, ask_to_stop)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with _listening(directory) as listener, selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ, "request")
        selector.register(wake_read, selectors.EVENT_READ, "signal")
        if owner is not None:
            selector.register(owner, selectors.EVENT_READ, "owner")
        while not stop:
            for key, _ in selector.select():
                if key.data == "request":
                    connection, _address = listener.accept()
                    with connection:
                        stop = _answer(connection, supervisor.handle) or stop
                elif key.data == "signal":
                    os.read(wake_read, 4096)
                    supervisor.reap()
                elif not os.read(key.fd, 1):
                    stop = True
        listener.close()
        supervisor.shut_down()


def _answer(connection: socket.socket, handle: Callable[[Mapping[str, Any]], Any]) -> bool:
    """One request, one answer; True when it asks for the end."""
    connection.settimeout(5.0)
    try:
        request = msgspec.json.decode(connection.makefile("rb").readline(REQUEST_BYTES), type=dict[str, Any])
        if request["op"] == "shutdown":
            connection.sendall(b'{"ok":null}\n')
            return True
        try:
            reply = {"ok": handle(request)}
        except (ValueError, KeyError, OSError, subprocess.SubprocessError, msgspec.MsgspecError) as error:
            reply = {"error": f"{error}"}
        connection.sendall(msgspec.json.encode(reply) + b"\n")
    except (OSError, msgspec.DecodeError, KeyError) as error:
        # A caller that vanished or sent no request: its problem, and in the log.
        print(f"request dropped: {error!r}", file=sys.stderr, flush=True)  # noqa: T201 (the log is stderr)
    return False


@contextlib.contextmanager
def _listening(directory: Path) -> Iterator[socket.socket]:
    # Bound by a relative name: a socket's path may only have 107 bytes.
    os.chdir(directory)
    Path(SOCKET_FILE).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        old = os.umask(0o077)
        listener.bind(SOCKET_FILE)
        os.umask(old)
        listener.listen(16)
        yield listener
    Path(SOCKET_FILE).unlink(missing_ok=True)


@click.command()
@click.option("--dir", "directory", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--owner-fd", type=int, default=None)
def main(directory: Path, owner_fd: int | None) -> None:
    """Own the processes of one stack."""
    directory = directory.resolve()
    # Never closed: the lock falls when this process is gone, not a moment before. By hand, not by filelock: it must
    # not be inherited by children, and `Control.alive` tests it with a shared lock, which makes no file.
    lock = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SystemExit("another supervisor has this stack") from None
    serve(Supervisor(directory), directory, owner_fd)


if __name__ == "__main__":
    main()
