"""Kafka Connect without Kafka Connect: `protocols.Connect` over a `ConnectModel`."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from cdc_platform.clients.connect.wire import UNASSIGNED, says_rebalance
from cdc_platform.clients.protocols import Plugin, WorkerHealth
from cdc_platform.errors import CdcError, ConnectRebalancing, ConnectRejected, NotFound
from cdc_platform.model.observed import ObservedConnector, ObservedTask
from cdc_platform.testing.connect_model import PAUSED, RUNNING, STOPPED, ConnectModel
from cdc_platform.testing.connect_validation import RestRefusal

T = TypeVar("T")


class FakeConnect:
    """One Connect cluster in memory; `model` is the world behind it, for tests to set up and break.

    `outage`, once set, is raised by every call. `writes` lists what changed
    something: (verb, connector), in order.
    """

    def __init__(self, name: str = "main", model: ConnectModel | None = None) -> None:
        self.name = name
        self.model = model or ConnectModel()
        self._outages: list[CdcError] = []
        self.writes: list[tuple[str, str]] = []
        self._check: Callable[[], None] | None = None

    @property
    def outage(self) -> CdcError | None:
        """What every call raises now, of the fenced ones too."""
        return self._outages[-1] if self._outages else None

    @outage.setter
    def outage(self, error: CdcError | None) -> None:
        self._outages[:] = [] if error is None else [error]

    def fenced(self, check: Callable[[], None]) -> FakeConnect:
        """The same cluster, where each change is preceded by `check`."""
        fenced = copy.copy(self)
        fenced._check = check
        return fenced

    def close(self) -> None:
        """Nothing to close."""

    def connectors(self) -> Mapping[str, ObservedConnector]:
        """All connectors; one without a status yet is UNASSIGNED."""
        infos = self._ask(lambda: self.model.expanded(["info"]))
        statuses = self._ask(lambda: self.model.expanded(["status"]))
        return {
            name: _observed(name, entry["info"], statuses.get(name, {}).get("status")) for name, entry in infos.items()
        }

    def connector(self, name: str) -> ObservedConnector:
        """One connector. Raises NotFound."""
        info = self._ask(lambda: self.model.info(name))
        try:
            status = self._ask(lambda: self.model.status(name))
        except NotFound:
            status = None
        return _observed(name, info, status)

    def workers(self) -> Mapping[str, int]:
        """Worker ids that run connectors or tasks, with the number of their tasks."""
        count: Counter[str] = Counter()
        for connector in self.connectors().values():
            if connector.worker:
                count[connector.worker] += 0
            count.update(task.worker for task in connector.tasks)
        return dict(count)

    def health(self) -> Sequence[WorkerHealth]:
        """All workers, healthy; or unreachable in an outage."""
        status, message = ("unreachable", str(self.outage)) if self.outage else ("healthy", "")
        return [WorkerHealth(url=f"http://{worker}", status=status, message=message) for worker in self.model.workers]

    def plugins(self) -> Sequence[Plugin]:
        """The connector classes that the workers can run."""
        found = self._ask(self.model.plugins)
        return [Plugin(class_name=p["class"], type=p["type"], version=p["version"]) for p in found]

    def offsets(self, name: str) -> Sequence[Mapping[str, Any]]:
        """The committed source offsets. Raises NotFound."""
        found: list[Mapping[str, Any]] = self._ask(lambda: self.model.offsets(name))["offsets"]
        return found

    def create(self, name: str, config: Mapping[str, str], *, stopped: bool = False) -> None:
        """Create a connector; one that is there with this very config is no error."""
        initial = STOPPED if stopped else None
        try:
            self._change(lambda: self.model.create(name, config, initial))
        except ConnectRejected:
            if not self._is_made(name, config, stopped):
                raise
        else:
            self.writes.append(("create", name))

    def update(self, name: str, config: Mapping[str, str]) -> None:
        """Replace the whole config."""
        self._change(lambda: self.model.put_config(name, config))
        self.writes.append(("update", name))

    def delete(self, name: str) -> None:
        """Delete; a connector that is gone already is no error."""
        try:
            self._change(lambda: self.model.delete(name))
        except NotFound:
            return
        self.writes.append(("delete", name))

    def restart_failed(self, name: str) -> None:
        """Restart the connector and those of its tasks that are FAILED."""
        self._change(lambda: self.model.restart_failed(name))
        self.writes.append(("restart_failed", name))

    def restart_task(self, name: str, task: int) -> None:
        """Restart one task."""
        self._change(lambda: self.model.restart_task(name, task))
        self.writes.append(("restart_task", name))

    def pause(self, name: str) -> None:
        """Pause: tasks stay assigned."""
        self._change(lambda: self.model.set_target(name, PAUSED))
        self.writes.append(("pause", name))

    def resume(self, name: str) -> None:
        """Resume a paused or stopped connector."""
        self._change(lambda: self.model.set_target(name, RUNNING))
        self.writes.append(("resume", name))

    def stop(self, name: str) -> None:
        """Stop: tasks are shut down."""
        self._change(lambda: self.model.set_target(name, STOPPED))
        self.writes.append(("stop", name))

    def alter_offsets(self, name: str, offsets: Sequence[Mapping[str, Any]]) -> None:
        """Write source offsets. The connector must be stopped."""
        self._change(lambda: self.model.alter_offsets(name, offsets))
        self.writes.append(("alter_offsets", name))

    def reset_offsets(self, name: str) -> None:
        """Forget all source offsets. The connector must be stopped."""
        self._change(lambda: self.model.reset_offsets(name))
        self.writes.append(("reset_offsets", name))

    def _change(self, call: Callable[[], T]) -> T:
        if self._check is not None:
            self._check()
        return self._ask(call)

    def _ask(self, call: Callable[[], T]) -> T:
        if self.outage is not None:
            raise self.outage
        try:
            return call()
        except RestRefusal as refusal:
            self._refuse(refusal)

    def _refuse(self, refusal: RestRefusal) -> NoReturn:
        where = f"Connect cluster {self.name}"
        if refusal.status == 404:
            raise NotFound(f"{refusal.message}.", where=where) from None
        if says_rebalance(refusal.status, refusal.message):
            raise ConnectRebalancing(f"{refusal.message}.", where=where) from None
        raise ConnectRejected(f"HTTP {refusal.status}: {refusal.message}.", where=where) from None

    def _is_made(self, name: str, config: Mapping[str, str], stopped: bool) -> bool:
        found = self.connectors().get(name)
        return (
            found is not None
            and found.config == {**config, "name": name}
            and (not stopped or found.state in (STOPPED, UNASSIGNED))
        )


def _observed(name: str, info: Mapping[str, Any], status: Mapping[str, Any] | None) -> ObservedConnector:
    if status is None:
        return ObservedConnector(name=name, config=info["config"], state=UNASSIGNED, worker="")
    part = status["connector"]
    return ObservedConnector(
        name=name,
        config=info["config"],
        state=part["state"],
        worker=part["worker_id"],
        trace=part.get("trace"),
        tasks=tuple(
            ObservedTask(id=t["id"], state=t["state"], worker=t["worker_id"], trace=t.get("trace"))
            for t in status["tasks"]
        ),
    )
