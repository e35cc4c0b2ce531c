"""Bringing a stack up and down."""

from __future__ import annotations

import contextlib
import os
import shutil
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path

import psutil
from filelock import FileLock

from cdc_platform.errors import StackError
from cdc_platform.local import artifacts, java, kafka, mysql_program, postgres_directories, replication
from cdc_platform.local.configuring import configure, port_names
from cdc_platform.local.control import Control
from cdc_platform.local.ports import chosen
from cdc_platform.local.stack import STATE_FILE, Stack, StackSpec
from cdc_platform.local.supervisor import LOCK_FILE

# The write end of an owned stack's pipe: closed when this process ends, however it ends.
_OWNED: dict[Path, int] = {}

# Two commands on one directory wait for each other.
_ONE_COMMAND = "command.lock"


def up(spec: StackSpec, progress: artifacts.Progress | None = None) -> Stack:
    """Have the stack of `spec` running: start all of it, or what is down of one that runs.

    Raises:
        StackError: programs not to be had, a port taken, a service that did
            not come up; nothing is left running that was not before.
    """
    directory = spec.directory.resolve()
    java.java_executable()
    programs = artifacts.provide(spec.cache_dir, progress=progress)
    mysql = mysql_program.find(spec.cache_dir, spec.mysqld, progress) if spec.mysql else None
    _make_directories(directory)
    with FileLock(directory / _ONE_COMMAND):
        stack = _up(spec, directory, programs, mysql)
    if mysql is not None:
        mysql_program.note_ran(mysql)
    return stack


def _up(spec: StackSpec, directory: Path, programs: artifacts.Programs, mysql: mysql_program.Program | None) -> Stack:
    control = Control(directory)
    if control.settled():
        stack = Stack.load(directory)
        _check_same(spec, stack)
        _start_all(stack, programs)
        return stack
    end_leftovers(control)
    owner = None
    if spec.owned:
        owner, _OWNED[directory] = os.pipe()
    try:
        control.start_supervisor(owner_fd=owner)
    finally:
        if owner is not None:
            os.close(owner)
    try:
        before = Stack.load(directory) if (directory / STATE_FILE).exists() else None
        with chosen(port_names(spec), fixed=spec.ports, before=before.ports if before else {}) as ports:
            control.reserve(ports.values())
        stack = configure(spec, directory, ports, programs, before, mysql)
        _start_all(stack, programs)
        return stack
    except BaseException:
        control.shut_down()
        _disown(directory)
        raise


def _disown(directory: Path) -> None:
    if directory in _OWNED:
        os.close(_OWNED.pop(directory))


def down(directory: Path, *, purge: bool = False) -> None:
    """End everything that the stack in `directory` runs; `purge` removes the directory as well.

    Raises:
        StackError: the directory holds no stack.
    """
    directory = directory.resolve()
    control = Control(directory)
    if not (directory / LOCK_FILE).exists():
        raise StackError("there is no stack here.", where=str(directory), cure="Name its directory by --dir.")
    with FileLock(directory / _ONE_COMMAND):
        if control.alive():
            control.shut_down()
        end_leftovers(control)
        _disown(directory)
    if purge:
        postgres_directories.remove(directory / "postgres")
        shutil.rmtree(directory)


def _make_directories(directory: Path) -> None:
    # What is removed by `purge` must be ours as a whole.
    if directory.exists() and not (directory / LOCK_FILE).exists() and any(directory.iterdir()):
        raise StackError(
            "the directory is not empty and holds no stack.",
            where=str(directory),
            cure="Name another one by --dir; it is made when it is not there.",
        )
    for folder in ("logs", "secrets"):
        (directory / folder).mkdir(parents=True, exist_ok=True)
    (directory / "secrets").chmod(0o700)
    (directory / LOCK_FILE).touch()


def end_leftovers(control: Control) -> None:
    left = control.leftovers()
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    _, alive = psutil.wait_procs(left, timeout=10)
    if alive:
        raise StackError(
            f"processes of an earlier stack do not end: {', '.join(str(p.pid) for p in alive)}.",
            cure="End them by hand.",
        )


def _check_same(spec: StackSpec, stack: Stack) -> None:
    has = (len(stack.workers), bool(stack.mariadb), bool(stack.postgres), bool(stack.mysql), stack.secure)
    if has != (spec.workers, spec.mariadb, spec.postgres, spec.mysql, spec.secure):
        raise StackError(
            "a stack with other parts runs here.",
            where=str(stack.directory),
            cure="`cdc-platform stack down` first, or use another --dir.",
        )


def _start_all(stack: Stack, programs: artifacts.Programs) -> None:
    """Start what is down, all parts at once, each as soon as what it needs is there."""
    running = stack.running()

    def start(name: str, *needed: Future[None]) -> None:
        for other in needed:
            other.result()
        if name not in running:
            if name == kafka.KAFKA:
                kafka.format_storage(Path(stack.launches[name].cwd), programs, stack.security)
            stack.start(name)

    pool = ThreadPoolExecutor(32, thread_name_prefix="start")
    try:
        databases = []
        if stack.mariadb:
            databases.append(pool.submit(replication.start_mariadb, stack))
        if stack.postgres:
            databases.append(pool.submit(replication.start_postgres, stack))
        if stack.mysql:
            databases.append(pool.submit(replication.start_mysql, stack))
        others: dict[str, Future[None]] = {}
        for name, launch in stack.launches.items():
            if name not in (*stack.mariadb, *stack.postgres, *stack.mysql):
                needed = [others[other] for other in launch.needs]
                others[name] = pool.submit(start, name, *needed)
        for job in as_completed([*others.values(), *databases]):
            job.result()
    finally:
        # Not waited for: after an error the threads end with the services they wait for.
        pool.shutdown(wait=False, cancel_futures=True)
