"""What a call costs: CPU, wall time and memory of a process of its own, and CPU of the servers that it uses."""

from __future__ import annotations

import gc
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

# A module's function that gets ready and returns what is to be measured.
Preparation = Callable[..., Callable[[], Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of one call. Seconds; `cpu` is user and system time of its process with all threads.

    `servers`: CPU of the watched servers meanwhile, their idle work included.
    `memory`: the most bytes that were resident, above what was before the call.
    """

    cpu: float
    wall: float
    servers: float
    memory: int
    found: Any

    @property
    def all_cpu(self) -> float:
        """CPU of both sides."""
        return self.cpu + self.servers


def measured(
    *calls: tuple[Preparation, tuple[Any, ...]], servers: Sequence[int] = (), timeout: float = 1800.0
) -> tuple[Cost, ...]:
    """Run each call in a process of its own, on one core of its own, all at once.

    They begin together, when all are prepared. `servers` are pids whose CPU (with
    their children's) counts; it is given to the first.

    Raises:
        RuntimeError: a call raised (its traceback is on stderr), or took longer than `timeout` seconds.
    """
    context = multiprocessing.get_context("spawn")
    cores = sorted(os.sched_getaffinity(0))
    started = []
    try:
        for number, (prepare, arguments) in enumerate(calls):
            here, there = context.Pipe()
            core = cores[-1 - number % len(cores)]
            process = context.Process(target=_run, args=(there, core, prepare, arguments))
            process.start()
            there.close()
            started.append((process, here))
        for _, pipe in started:
            _answer(pipe, timeout)
        before = server_cpu(servers)
        for _, pipe in started:
            pipe.send("go")
        found: list[Cost] = [_answer(pipe, timeout) for _, pipe in started]
        spent = server_cpu(servers) - before
    finally:
        for process, pipe in started:
            pipe.close()
            process.join(10)
            process.kill()
    first = found[0]
    with_servers = Cost(cpu=first.cpu, wall=first.wall, servers=spent, memory=first.memory, found=first.found)
    return (with_servers, *found[1:])


def _answer(pipe: Connection, timeout: float) -> Any:
    if not pipe.poll(timeout):
        raise RuntimeError(f"a measured process gave no answer within {timeout:.0f} s")
    try:
        return pipe.recv()
    except EOFError:
        raise RuntimeError("a measured process ended with an error") from None


def _run(pipe: Connection, core: int, prepare: Preparation, arguments: tuple[Any, ...]) -> None:
    os.sched_setaffinity(0, {core})
    call = prepare(*arguments)
    gc.collect()
    pipe.send("ready")
    pipe.recv()
    resident = _status("VmRSS")
    # 5 sets the peak back to what is resident now (proc(5), since Linux 4.0).
    Path("/proc/self/clear_refs").write_text("5")
    wall, cpu = time.perf_counter(), time.process_time()
    found = call()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    pipe.send(Cost(cpu=cpu, wall=wall, servers=0.0, memory=_status("VmHWM") - resident, found=found))


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {name}")


def server_cpu(pids: Sequence[int]) -> float:
    """CPU seconds so far of these processes and all their children, those that have ended too."""
    total = 0.0
    for pid in pids:
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue  # It ended just now; its time has gone to its parent, which is a little behind.
            total += times.user + times.system + times.children_user + times.children_system
    return total
