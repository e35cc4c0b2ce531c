"""A Connect worker of a benchmark's own, in a group of its own, with a heap of any size; and what it costs."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil

from cdc_platform.clients.connect.client import ConnectClient
from cdc_platform.connectors.leader_files import LeaderFile, file_name, render
from cdc_platform.connectors.worker_properties import WORKER_ENV
from cdc_platform.local.ports import chosen
from cdc_platform.local.services import Launch
from cdc_platform.local.stack import Stack
from cdc_platform.local.workers import LEADER_DIR, worker_problem
from cdc_platform.model.topology import Cluster, Shard

_STARTED_WITHIN = 120.0
_MARK = "java.lang.OutOfMemoryError"


class OwnWorker:
    """Like the stack's first worker but for name, group, ports and heap. Connectors stay when it ends.

    Args:
        stack: the stack that it is beside.
        name: of the worker and of its group, unique in the stack.
    """

    def __init__(self, stack: Stack, name: str) -> None:
        self.stack = stack
        self.name = name
        self.home = stack.directory / "workers" / name
        (self.home / "leaders").mkdir(parents=True, exist_ok=True)
        self.log = stack.directory / "logs" / f"{name}.log"
        with chosen(["connect", "metrics"], fixed={}, before={}) as ports:
            self.ports = dict(ports)
            stack.control.reserve(self.ports.values())
        self.url = f"http://127.0.0.1:{self.ports['connect']}"
        self.connect = ConnectClient(self.name, (self.url,), timeout=60.0)
        self._read_from = 0

    @property
    def cluster(self) -> Cluster:
        """The Connect cluster of this one worker."""
        return Cluster(name=self.name, urls=(self.url,), leader_dir=LEADER_DIR)

    def lead(self, shard: Shard) -> None:
        """What the agent would write: where the shard's leader is."""
        text = render(LeaderFile(leader=shard.leader, generation=shard.generation))
        (self.home / "leaders" / file_name(shard.name)).write_text(text)

    def start(self, heap_mb: int) -> None:
        """Start it and wait until it answers. Raises RuntimeError."""
        self._read_from = self.log.stat().st_size if self.log.exists() else 0
        self.stack.control.spawn(self._launch(heap_mb))
        end = time.monotonic() + _STARTED_WITHIN
        while worker_problem(self.ports["connect"]) is not None:
            if time.monotonic() > end or self.dead():
                raise RuntimeError(f"{self.name} does not start with {heap_mb} MB; see {self.log}")
            time.sleep(0.2)

    def close(self) -> None:
        """End it, and what reaches it."""
        self.stop()
        self.connect.close()

    def stop(self) -> None:
        """End it at once, as a crash would."""
        if not self.dead():
            self.stack.kill(self.name)

    def dead(self) -> bool:
        """True when its process is gone."""
        return self.name not in self.stack.running()

    def out_of_memory(self) -> bool:
        """True when it has said so since its last start."""
        with self.log.open("rb") as log:
            log.seek(self._read_from)
            return _MARK.encode() in log.read()

    def pid(self) -> int:
        """Of its process."""
        return self.stack.pid(self.name)

    def _launch(self, heap_mb: int) -> Launch:
        like = self.stack.launches[self.stack.workers[0]]
        properties = Path(like.cwd, "worker.properties").read_text()
        own = self.home / "worker.properties"
        group = re.search(r"^group.id=(.*)$", properties, re.MULTILINE)
        assert group is not None
        text = properties.replace(group[1], f"cdc-connect-{self.name}")
        own.write_text(text.replace(str(like.ports["connect"]), str(self.ports["connect"])))
        argv = []
        for argument in like.argv:
            if argument.startswith("-Xmx"):
                argument = f"-Xmx{heap_mb}m"
            elif argument.startswith("-javaagent:"):
                argument = argument.replace(str(like.ports["metrics"]), str(self.ports["metrics"]))
            elif argument == f"{like.cwd}/worker.properties":
                argument = str(own)
            argv.append(argument)
        return replace(
            like,
            name=self.name,
            argv=tuple(argv),
            cwd=str(self.home),
            log=str(self.log),
            env={**like.env, WORKER_ENV: self.name},
            ports=self.ports,
        )


class Watched:
    """CPU seconds and the most resident bytes of a process while the block runs."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.peak = 0
        self.cpu = 0.0
        self.seconds = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watched:
        self._cpu = self._spent()
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.seconds = time.monotonic() - self._began
        self.cpu = self._spent() - self._cpu
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            try:
                self.peak = max(self.peak, self._process.memory_info().rss)
            except psutil.NoSuchProcess:
                return

    def _spent(self) -> float:
        try:
            times = self._process.cpu_times()
        except psutil.NoSuchProcess:
            return 0.0
        return times.user + times.system
