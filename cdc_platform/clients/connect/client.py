"""One Kafka Connect cluster through its REST API."""

from __future__ import annotations

import copy
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import quote

from cdc_platform.clients.connect import wire
from cdc_platform.clients.connect.http import Deadline, OutcomeUnknown, RequestNotSent, Response, Workers
from cdc_platform.clients.protocols import Plugin, WorkerHealth
from cdc_platform.clients.secrets import Login
from cdc_platform.errors import (
    CdcError,
    ConnectRejected,
    ConnectUnavailable,
    NotFound,
    WrongCluster,
)
from cdc_platform.model.observed import CLUSTER_KEY, ObservedConnector, ObservedTask

log = logging.getLogger(__name__)

# Kept back from a write's deadline, to read what became of it.
_RE_READ_SECONDS = 4.0
_RE_READ_PAUSE = 0.2


class ConnectClient:
    """One Connect cluster; satisfies `protocols.Connect`. Safe to call from many threads.

    Each call has one deadline of `timeout` seconds, however many workers it has
    to ask. A worker that refuses the connection makes room for the next URL; the
    one that answered last is asked first. 409 (a rebalance) is tried again with
    jitter until the deadline. What was sent and not answered is never sent
    twice unless that is harmless: it is read back instead.

    Args:
        name: the cluster's name in the topology.
        urls: its workers' REST URLs.
        timeout: seconds for each call as a whole.
        auth: user and password, if the REST API wants basic authentication; what reads them is asked at each request.
        kafka_cluster_id: the Kafka cluster that its workers must belong to;
            None: that of the first worker that answers.
        verify: False or an SSL context, for https.
        hosts: patterns with `*`; nothing is sent to other hosts.
    """

    def __init__(
        self,
        name: str,
        urls: Sequence[str],
        timeout: float = 20.0,
        auth: Login = None,
        *,
        kafka_cluster_id: str | None = None,
        verify: Any = True,
        max_connections: int = 32,
        hosts: Sequence[str] = ("*",),
    ) -> None:
        self.name = name
        self.timeout = timeout
        self._workers = Workers(name, urls, auth, kafka_cluster_id, verify, max_connections, hosts)

    def close(self) -> None:
        """Close the connections."""
        self._workers.close()

    def fenced(self, check: Callable[[], None]) -> ConnectClient:
        """The same cluster and connections, where each request that changes something is preceded by `check`."""
        fenced = copy.copy(self)
        fenced._workers = self._workers.fenced(check)
        return fenced

    def __enter__(self) -> ConnectClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # What is there

    def connectors(self) -> Mapping[str, ObservedConnector]:
        """All connectors with config and status, from one worker's memory.

        Connect leaves a connector without a status (made a moment ago) out of
        the expanded list; it is in this one, UNASSIGNED.

        Raises:
            ConnectUnavailable: whatever the reason, not all connectors are known.
            WrongCluster: the connectors were made for another cluster.
        """
        deadline = Deadline(self.timeout)
        response = self._list("?expand=info&expand=status", deadline)
        found = wire.decode(wire.entries, response.body, response.where)
        names = self._list("", deadline)
        fresh = [n for n in wire.decode(wire.names, names.body, names.where) if n not in found]
        if fresh:
            late = self._list("?expand=info", deadline)
            entries = wire.decode(wire.entries, late.body, late.where)
            found.update((name, entries[name]) for name in fresh if name in entries)
        result = {
            name: wire.observed(name, entry.info, entry.status)
            for name, entry in found.items()
            if entry.info is not None
        }
        self._check_owned(result.values(), response.where)
        return result

    def connector(self, name: str) -> ObservedConnector:
        """One connector. Raises NotFound."""
        deadline = Deadline(self.timeout)
        response = self._ask("GET", _path(name), deadline)
        found = wire.decode(wire.info, response.body, response.where)
        status = self._workers.send("GET", _path(name, "status"), deadline)
        # Right after a create there is no status yet.
        seen = None
        if status.status != 404:
            status = self._judged(status)
            seen = wire.decode(wire.status, status.body, status.where)
        return wire.observed(name, found, seen)

    def workers(self) -> Mapping[str, int]:
        """Worker ids (host:port) that run connectors or tasks, with the number of their tasks."""
        response = self._list("?expand=status", Deadline(self.timeout))
        count: Counter[str] = Counter()
        for entry in wire.decode(wire.entries, response.body, response.where).values():
            if entry.status is not None:
                count[entry.status.connector.worker_id] += 0
                count.update(task.worker_id for task in entry.status.tasks)
        return dict(count)

    def tasks(self) -> Mapping[str, tuple[ObservedTask, ...]]:
        """The tasks of each connector that has a status. Cheap: no configs are copied."""
        response = self._list("?expand=status", Deadline(self.timeout))
        return {
            name: tuple(
                ObservedTask(id=task.id, state=task.state, worker=task.worker_id, trace=wire.shown_trace(task.trace))
                for task in entry.status.tasks
            )
            for name, entry in wire.decode(wire.entries, response.body, response.where).items()
            if entry.status is not None
        }

    def health(self) -> Sequence[WorkerHealth]:
        """Each URL's own word (KIP-1017); a worker that does not answer is `unreachable`. Never raises."""
        deadline = Deadline(self.timeout)
        found = []
        for at, url in enumerate(self._workers.urls):
            try:
                self._workers.check_host(url)
                response = self._workers.once(
                    url, "GET", "/health", None, deadline.left / (len(self._workers.urls) - at)
                )
                said = wire.decode(wire.health, response.body, response.where)
                found.append(WorkerHealth(url=url, status=said.status, message=said.message))
            except (RequestNotSent, OutcomeUnknown, ConnectUnavailable) as error:
                found.append(WorkerHealth(url=url, status="unreachable", message=str(error)))
        return found

    def plugins(self) -> Sequence[Plugin]:
        """The connector classes that the answering worker can run."""
        response = self._ask("GET", "/connector-plugins", Deadline(self.timeout))
        found = wire.decode(wire.plugins, response.body, response.where)
        return [Plugin(class_name=p.class_name, type=p.type, version=p.version) for p in found]

    def offsets(self, name: str) -> Sequence[Mapping[str, Any]]:
        """The committed source offsets: `[{"partition": {...}, "offset": {...}}]`. Raises NotFound.

        A partition that was added a moment ago may be missing: Connect does not read its offsets topic to the end
        before it lists a connector's partitions (KafkaOffsetBackingStore.connectorPartitions).
        """
        response = self._ask("GET", _path(name, "offsets"), Deadline(self.timeout))
        return wire.decode(wire.offsets, response.body, response.where).offsets

    # What changes it

    def create(self, name: str, config: Mapping[str, str], *, stopped: bool = False) -> None:
        """Create a connector; `stopped` makes it without tasks (KIP-980).

        One that is there already with this very config (and, if asked for,
        stopped) is no error: an earlier call whose answer was lost made it.

        Raises:
            ConnectUnavailable: not answered, and it is not there (yet).
            ConnectRejected: refused, or there with another config.
        """
        body: dict[str, Any] = {"name": name, "config": dict(config)}
        if stopped:
            body["initial_state"] = "STOPPED"

        def made(deadline: Deadline) -> bool | None:
            if self._config(name, deadline) != {**config, "name": name}:
                return False
            return self._is_stopped(name, deadline) if stopped else True

        self._write("POST", "/connectors", body, f"create connector {name}", made, config)

    def update(self, name: str, config: Mapping[str, str]) -> None:
        """Replace the whole config. Not a no-op when unchanged: diff first.

        Connect creates the connector, running, if it is gone.
        """

        def made(deadline: Deadline) -> bool | None:
            return self._config(name, deadline) == {**config, "name": name}

        self._write("PUT", _path(name, "config"), dict(config), f"update connector {name}", made, config)

    def delete(self, name: str) -> None:
        """Delete; a connector that is gone already is no error. Its offsets stay behind in Connect."""

        def made(deadline: Deadline) -> bool | None:
            return self._config(name, deadline) is None

        try:
            self._write("DELETE", _path(name), None, f"delete connector {name}", made)
        except NotFound:
            log.debug("%s: connector %s was gone already", self.name, name)

    def restart_failed(self, name: str) -> None:
        """Restart the connector and those of its tasks that are FAILED. No rebalance. Raises NotFound."""
        self._order("POST", _path(name, "restart?includeTasks=true&onlyFailed=true"))

    def restart_task(self, name: str, task: int) -> None:
        """Restart one task: its `${...}` references are resolved again. No rebalance. Raises NotFound."""
        self._order("POST", _path(name, f"tasks/{task}/restart"))

    def pause(self, name: str) -> None:
        """Pause: tasks stay assigned, no rebalance. Raises NotFound."""
        self._order("PUT", _path(name, "pause"), repeatable=True)

    def resume(self, name: str) -> None:
        """Resume a paused or stopped connector. Raises NotFound."""
        self._order("PUT", _path(name, "resume"), repeatable=True)

    def stop(self, name: str) -> None:
        """Stop: tasks are shut down a little later, then offsets may be changed. Raises NotFound."""
        self._order("PUT", _path(name, "stop"), repeatable=True)

    def alter_offsets(self, name: str, offsets: Sequence[Mapping[str, Any]]) -> None:
        """Write source offsets; partitions that are not named stay, an offset of None forgets one.

        Raises:
            ConnectRejected: the connector is not stopped, or does not take such offsets.
            NotFound: there is no such connector.
        """
        body = {"offsets": [dict(entry) for entry in offsets]}
        self._order("PATCH", _path(name, "offsets"), body, repeatable=True)

    def reset_offsets(self, name: str) -> None:
        """Forget all source offsets. Raises ConnectRejected (it is not stopped) and NotFound."""
        self._order("DELETE", _path(name, "offsets"), repeatable=True)

    # How it is asked

    def _list(self, query: str, deadline: Deadline) -> Response:
        response = self._workers.send("GET", f"/connectors{query}", deadline)
        if response.status != 200:
            raise ConnectUnavailable(
                f"the connectors cannot be listed: HTTP {response.status}: {response.message}",
                where=self._workers.where(response),
                cure="Look at the worker, and at user and password." if response.status in (401, 403) else None,
            )
        return response

    def _ask(self, method: str, path: str, deadline: Deadline) -> Response:
        return self._judged(self._workers.send(method, path, deadline))

    def _order(self, method: str, path: str, body: Any = None, *, repeatable: bool = False) -> None:
        """A request for which nothing has to be read back. A `repeatable` one may go to two workers."""
        try:
            response = self._workers.send(method, path, Deadline(self.timeout), body, repeatable=repeatable)
        except OutcomeUnknown as error:
            raise ConnectUnavailable(
                f"{error}; it may have been done all the same.",
                where=f"Connect cluster {self.name}",
                cure="Read its state before asking again.",
            ) from None
        self._judged(response)

    def _write(
        self,
        method: str,
        path: str,
        body: Any,
        what: str,
        made: Callable[[Deadline], bool | None],
        config: Mapping[str, str | None] | None = None,
    ) -> None:
        """A request that must not go out twice: without an answer, `made` reads what became of it.

        `made` says True (done), False (not done) or None (not known yet).
        """
        kept = min(_RE_READ_SECONDS, self.timeout / 3)
        deadline = Deadline(self.timeout - kept)
        try:
            response = self._workers.send(method, path, deadline, body, repeatable=False)
        except OutcomeUnknown as error:
            if self._read_back(made, Deadline(deadline.left + kept), until_seen=True):
                log.warning("%s: %s was not answered, but it is done", self.name, what)
                return
            raise ConnectUnavailable(
                f"{what}: {error}; it is not done yet, and may still be.",
                where=f"Connect cluster {self.name}",
                cure="Read again before asking again.",
            ) from None
        # A 409 that comes this far says that the connector exists.
        if response.status == 409 and self._read_back(made, Deadline(kept), until_seen=False):
            return
        self._judged(response, config or {})

    def _read_back(self, made: Callable[[Deadline], bool | None], deadline: Deadline, *, until_seen: bool) -> bool:
        while True:
            try:
                found = made(deadline)
            except CdcError as error:
                log.debug("%s: reading back: %s", self.name, error)
                found = None
            if found or (found is False and not until_seen) or deadline.left <= _RE_READ_PAUSE:
                return bool(found)
            time.sleep(_RE_READ_PAUSE)

    def _config(self, name: str, deadline: Deadline) -> dict[str, str | None] | None:
        response = self._workers.send("GET", _path(name), deadline)
        if response.status == 404:
            return None
        return wire.decode(wire.info, self._judged(response).body, response.where).config

    def _is_stopped(self, name: str, deadline: Deadline) -> bool | None:
        response = self._workers.send("GET", _path(name, "status"), deadline)
        if response.status == 404:
            return None
        response = self._judged(response)
        return wire.decode(wire.status, response.body, response.where).connector.state == "STOPPED"

    def _check_owned(self, found: Any, where: str) -> None:
        """Two Connect clusters on one Kafka differ by nothing that REST shows but their connectors."""
        named = {c.config[CLUSTER_KEY] for c in found if CLUSTER_KEY in c.config}
        if named and self.name not in named:
            self._workers.forget()
            raise WrongCluster(
                f"all connectors there were made for Connect cluster {', '.join(sorted(named))}.",
                where=where,
                field=f"urls of Connect cluster {self.name}",
                cure="Name the workers of this cluster; a renamed cluster must get its old name back.",
            )

    def _judged(self, response: Response, config: Mapping[str, str | None] | None = None) -> Response:
        if response.status < 300:
            return response
        message = wire.with_references(response.message, config or {}).rstrip(".") + "."
        where = self._workers.where(response)
        if response.status == 404 and wire.error_message(response.body) is not None:
            raise NotFound(message, where=where)
        cure = {401: "Check user and password.", 403: "Check user and rights."}.get(response.status)
        raise ConnectRejected(f"HTTP {response.status}: {message}", where=where, cure=cure)


def _path(name: str, rest: str | None = None) -> str:
    path = f"/connectors/{quote(name, safe='')}"
    return path if rest is None else f"{path}/{rest}"
