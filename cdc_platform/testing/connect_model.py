"""What a distributed Kafka Connect group does, in memory, in its REST API's own words.

Messages, status codes and the order of checks are those of Kafka 4.3, held to it
by `tests/clients`. What takes a real group a moment takes `settle` seconds here:
until then the old status stays, and a new connector has none.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cdc_platform.connectors.engines.registry import ENGINES
from cdc_platform.testing.connect_validation import Config, RestRefusal, check_config

RUNNING, PAUSED, STOPPED, FAILED = "RUNNING", "PAUSED", "STOPPED", "FAILED"
UNASSIGNED = "UNASSIGNED"

FILE_SOURCE = "org.apache.kafka.connect.file.FileStreamSourceConnector"
CLASSES = (FILE_SOURCE, *(facts.connector_class for facts in ENGINES.values()))
VERSION = "4.3.1"
_STALE = (
    "Cannot complete request momentarily due to stale configuration (typically caused by a concurrent config change)"
)
_EXPECTED = "Request cannot be completed because a rebalance is expected"


@dataclass
class _Part:
    """A connector or one of its tasks, as its status shows it."""

    state: str
    worker: str
    trace: str | None = None

    def document(self) -> dict[str, Any]:
        found = {"state": self.state, "worker_id": self.worker, "version": VERSION}
        return found if self.trace is None else {**found, "trace": self.trace}


@dataclass
class _Held:
    config: dict[str, str]
    target: str
    connector: _Part | None = None
    tasks: list[_Part] = field(default_factory=list)
    # The tasks run with an older config: the group starts them again.
    stale: bool = False


@dataclass
class ConnectModel:
    """One Connect group.

    Args:
        workers: worker ids.
        settle: seconds until a change shows in the status.
        kafka_cluster_id: as `GET /` tells it.
        refuses: asked with name and config at each validation; a text refuses it (400),
            as a source that is down does.
        fails: asked at each start of a task; a text is the trace of its failure.
        rebalancing: say so to all that needs the group's leader.
        starts: how often each connector's task was started.
    """

    workers: Sequence[str] = ("127.0.0.1:8083", "127.0.0.1:8084")
    settle: float = 0.0
    kafka_cluster_id: str = "fake-kafka-cluster-id"
    classes: Sequence[str] = CLASSES
    refuses: Callable[[str, Config], str | None] = lambda name, config: None
    fails: Callable[[str, Config], str | None] = lambda name, config: None
    clock: Callable[[], float] = time.monotonic
    rebalancing: bool = False
    starts: Counter[str] = field(default_factory=Counter)
    version: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._held: dict[str, _Held] = {}
        self._offsets: dict[str, dict[str, tuple[dict[str, Any], dict[str, Any]]]] = {}
        self._pending: list[tuple[float, str, _Held]] = []

    # What a test does to it

    def fail_task(self, name: str, trace: str, *, task: int = 0) -> None:
        """A task dies of itself."""
        with self._lock:
            part = self._known(name).tasks[task]
            part.state, part.trace = FAILED, trace
            self.version += 1

    def commit_offsets(self, name: str, offsets: Iterable[Mapping[str, Any]]) -> None:
        """The task commits, as it does every few seconds."""
        with self._lock:
            self._merge(name, offsets)

    def fill(self, connectors: Mapping[str, Config]) -> None:
        """Many running connectors at once, without validation."""
        with self._lock:
            for at, (name, config) in enumerate(connectors.items()):
                worker = self.workers[at % len(self.workers)]
                self._held[name] = _Held(
                    {**config, "name": name}, RUNNING, _Part(RUNNING, worker), [_Part(RUNNING, worker)]
                )
            self.version += 1

    # What REST answers

    def server(self) -> dict[str, Any]:
        """GET /."""
        return {"version": VERSION, "commit": "fake", "kafka_cluster_id": self.kafka_cluster_id}

    def plugins(self) -> list[dict[str, Any]]:
        """GET /connector-plugins."""
        return [{"class": name, "type": "source", "version": VERSION} for name in self.classes]

    def names(self) -> list[str]:
        """GET /connectors."""
        with self._lock:
            self._tick()
            return list(self._held)

    def expanded(self, parts: Iterable[str]) -> dict[str, Any]:
        """GET /connectors?expand=...: without the connectors that have not all of the parts yet."""
        wanted = set(parts)
        found: dict[str, Any] = {}
        with self._lock:
            self._tick()
            for name, held in self._held.items():
                if "status" in wanted and held.connector is None:
                    continue
                found[name] = {}
                if "info" in wanted:
                    found[name]["info"] = self._info(name, held)
                if "status" in wanted:
                    found[name]["status"] = self._status(name, held)
        return found

    def info(self, name: str) -> dict[str, Any]:
        """GET /connectors/{name}: in a rebalance it is a 500, unlike all else."""
        with self._lock:
            if self.rebalancing:
                raise RestRefusal(500, _EXPECTED)
            return self._info(name, self._known(name))

    def status(self, name: str) -> dict[str, Any]:
        """GET /connectors/{name}/status."""
        with self._lock:
            self._tick()
            held = self._held.get(name)
            if held is None or held.connector is None:
                raise RestRefusal(404, f"No status found for connector {name}")
            return self._status(name, held)

    def offsets(self, name: str) -> dict[str, Any]:
        """GET /connectors/{name}/offsets."""
        with self._lock:
            self._known(name)
            entries = self._offsets.get(name, {}).values()
            return {"offsets": [{"partition": dict(p), "offset": dict(o)} for p, o in entries]}

    def create(self, name: str, config: Config, initial_state: str | None) -> dict[str, Any]:
        """POST /connectors."""
        with self._lock:
            if initial_state not in (None, RUNNING, PAUSED, STOPPED):
                raise RestRefusal(500, f"No enum constant CreateConnectorRequest.InitialState.{initial_state}")
            check_config(name, config, self.classes, self.refuses)
            self._leader()
            if name in self._held:
                raise RestRefusal(409, f"Connector {name} already exists")
            return self._put(name, config, initial_state or RUNNING)

    def put_config(self, name: str, config: Config) -> tuple[bool, dict[str, Any]]:
        """PUT /connectors/{name}/config: creates, or bounces the connector, and its tasks if the config changed."""
        with self._lock:
            check_config(name, config, self.classes, self.refuses)
            self._leader()
            held = self._held.get(name)
            if held is None:
                return True, self._put(name, config, RUNNING)
            held.stale = held.stale or held.config != {**config, "name": name}
            held.config = {**config, "name": name}
            self._later(name, held)
            return False, self._info(name, held)

    def delete(self, name: str) -> None:
        """DELETE /connectors/{name}. Its offsets stay: a connector of that name resumes there."""
        with self._lock:
            self._leader()
            self._known(name)
            del self._held[name]
            self.version += 1

    def set_target(self, name: str, target: str) -> None:
        """PUT /connectors/{name}/pause, resume, stop. Only stop needs the leader."""
        with self._lock:
            if target == STOPPED:
                self._leader()
            if name not in self._held:
                raise RestRefusal(404, f"Unknown connector {name}")
            held = self._held[name]
            if held.target != target:
                held.target = target
                self._later(name, held)

    def restart_failed(self, name: str) -> dict[str, Any]:
        """POST /connectors/{name}/restart?includeTasks=true&onlyFailed=true."""
        with self._lock:
            self._leader()
            if name not in self._held:
                raise RestRefusal(404, f"Unknown connector: {name}")
            held = self._held[name]
            if held.connector is not None and held.connector.state == FAILED:
                held.connector = _Part(held.target, held.connector.worker)
            for at, part in enumerate(held.tasks):
                if part.state == FAILED:
                    held.tasks[at] = self._task(name, held, part.worker)
            self.version += 1
            return self.status(name)

    def restart_task(self, name: str, task: int) -> None:
        """POST /connectors/{name}/tasks/{task}/restart."""
        with self._lock:
            self._leader()
            if name not in self._held:
                raise RestRefusal(404, f"Unknown connector: {name}")
            held = self._held[name]
            if not 0 <= task < len(held.tasks):
                raise RestRefusal(404, f"Unknown task: {name}-{task}")
            held.tasks[task] = self._task(name, held, held.tasks[task].worker)
            self.version += 1

    def alter_offsets(self, name: str, offsets: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """PATCH /connectors/{name}/offsets: partitions that are not named stay, null forgets one."""
        if not offsets:
            raise RestRefusal(400, "Partitions / offsets need to be provided for an alter offsets request")
        with self._lock:
            self._must_be_stopped(name)
            self._merge(name, offsets)
            return {"message": "The offsets for this connector have been altered successfully"}

    def reset_offsets(self, name: str) -> dict[str, Any]:
        """DELETE /connectors/{name}/offsets."""
        with self._lock:
            self._must_be_stopped(name)
            self._offsets.pop(name, None)
            return {"message": "The offsets for this connector have been reset successfully"}

    # How it works

    def _known(self, name: str) -> _Held:
        self._tick()
        if name not in self._held:
            raise RestRefusal(404, f"Connector {name} not found")
        return self._held[name]

    def _leader(self) -> None:
        if self.rebalancing:
            raise RestRefusal(409, _STALE)

    def _must_be_stopped(self, name: str) -> None:
        self._leader()
        if self._known(name).target != STOPPED:
            raise RestRefusal(
                400,
                "Connectors must be in the STOPPED state before their offsets can be modified. This can be done "
                f"for the specified connector by issuing a 'PUT' request to the '/connectors/{name}/stop' endpoint",
            )

    def _put(self, name: str, config: Config, target: str) -> dict[str, Any]:
        held = _Held({**config, "name": name}, target)
        self._held[name] = held
        self._later(name, held)
        return self._info(name, held)

    def _later(self, name: str, held: _Held) -> None:
        self.version += 1
        if self.settle <= 0:
            self._start(name, held)
        else:
            self._pending.append((self.clock() + self.settle, name, held))

    def _tick(self) -> None:
        now = self.clock()
        due = [entry for entry in self._pending if entry[0] <= now]
        if due:
            self._pending = [entry for entry in self._pending if entry[0] > now]
            for _, name, held in due:
                if self._held.get(name) is held:
                    self._start(name, held)

    def _start(self, name: str, held: _Held) -> None:
        """The group has met: connector and tasks are where the target says."""
        self.version += 1
        held.connector = _Part(held.target, self._place(held.connector))
        if held.target == STOPPED:
            held.tasks = []
        elif held.stale or any(part.worker not in self.workers for part in held.tasks):
            held.tasks = [self._task(name, held, self._place(part)) for part in held.tasks]
        elif held.tasks:
            # Pausing and resuming restarts nothing, and a failed task stays failed.
            for part in held.tasks:
                part.state = part.state if part.state == FAILED else held.target
        elif held.target == RUNNING:
            held.tasks = [self._task(name, held, self._place(None))]
        held.stale = False

    def _task(self, name: str, held: _Held, worker: str) -> _Part:
        if held.target == PAUSED:
            return _Part(PAUSED, worker)
        self.starts[name] += 1
        trace = self.fails(name, held.config)
        return _Part(RUNNING if trace is None else FAILED, worker, trace)

    def _place(self, part: _Part | None) -> str:
        """Where it was, if that worker is still there: assignment is sticky."""
        if part is not None and part.worker in self.workers:
            return part.worker
        return self._least_loaded()

    def _least_loaded(self) -> str:
        load = Counter(dict.fromkeys(self.workers, 0))
        for held in self._held.values():
            for part in (held.connector, *held.tasks):
                if part is not None and part.worker in load:
                    load[part.worker] += 1
        return min(load, key=lambda worker: (load[worker], worker))

    def _merge(self, name: str, offsets: Iterable[Mapping[str, Any]]) -> None:
        held = self._offsets.setdefault(name, {})
        for entry in offsets:
            key = json.dumps(entry["partition"], sort_keys=True)
            if entry["offset"] is None:
                held.pop(key, None)
            else:
                held[key] = (dict(entry["partition"]), dict(entry["offset"]))

    def _info(self, name: str, held: _Held) -> dict[str, Any]:
        return {
            "name": name,
            "config": dict(held.config),
            "tasks": [{"connector": name, "task": at} for at in range(len(held.tasks))],
            "type": "source",
        }

    def _status(self, name: str, held: _Held) -> dict[str, Any]:
        assert held.connector is not None
        return {
            "name": name,
            "connector": held.connector.document(),
            "tasks": [{"id": at, **part.document()} for at, part in enumerate(held.tasks)],
            "type": "source",
        }
