"""ZooKeeper in memory: `TopologyStore` without a server.

Documents are the same bytes as in ZooKeeper, read and written by the same
code; what is faked is the server: sessions, ephemeral znodes, watches, the lock.
"""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from cdc_platform.clients.protocols import AgentRegistration, ControlLock
from cdc_platform.documents import Layout
from cdc_platform.documents.edits import (
    Change,
    Edit,
    Stored,
    check_deletes,
    delete_dataset,
    delete_shard,
    edit_cluster,
    edit_dataset,
    edit_leader,
    edit_pause,
    edit_platform_pause,
    edit_shard,
    plan_import,
)
from cdc_platform.documents.znodes import (
    assemble,
    generation_floor,
    read_cluster,
    read_dataset,
    read_pause,
    read_shard,
)
from cdc_platform.errors import LockHeld, LockLost, NotFound, ZooKeeperUnavailable
from cdc_platform.model.topology import Address, Cluster, Dataset, Pause, Shard, Topology

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Znode:
    data: bytes
    zxid: int


class InMemoryZooKeeper:
    """The server that several stores share. `down` makes every call of theirs fail."""

    def __init__(self) -> None:
        self.down = False
        self.nodes: dict[str, _Znode] = {}
        self.zxid = 0
        self._children: dict[str, set[str]] = defaultdict(set)
        self.watchers: list[Callable[[], None]] = []
        self.changed = threading.Condition(threading.RLock())
        self.holder: _HeldLock | None = None

    def write(self, path: str, data: bytes) -> None:
        """Set a znode's data, as some other client would. Parents are made."""
        with self.changed:
            self.zxid += 1
            self.nodes[path] = _Znode(data, self.zxid)
            while (parent := path.rpartition("/")[0]) and path.rpartition("/")[2] not in self._children[parent]:
                self._children[parent].add(path.rpartition("/")[2])
                self.nodes.setdefault(parent, _Znode(b"", self.zxid))
                path = parent
        self._tell()

    def delete(self, path: str) -> None:
        """Delete a znode and all below it, as some other client would."""
        with self.changed:
            self.zxid += 1
            parent, _, name = path.rpartition("/")
            self._children[parent].discard(name)
            doomed = [path]
            while doomed:
                gone = doomed.pop()
                doomed += [f"{gone}/{child}" for child in self._children.pop(gone, ())]
                self.nodes.pop(gone, None)
        self._tell()

    def read(self, path: str) -> bytes | None:
        """A znode's data; None when there is none."""
        node = self.nodes.get(path)
        return node.data if node else None

    def children(self, path: str) -> list[str]:
        """The names of a znode's children."""
        return sorted(self._children.get(path, ()))

    def _tell(self) -> None:
        with self.changed:
            self.changed.notify_all()
            watchers = list(self.watchers)
        for changed in watchers:
            threading.Thread(target=changed, daemon=True).start()


class InMemoryTopologyStore:
    """A session on an `InMemoryZooKeeper`, by default one of its own."""

    def __init__(self, zookeeper: InMemoryZooKeeper | None = None, root: str = "/cdc") -> None:
        self.zookeeper = zookeeper or InMemoryZooKeeper()
        self._layout = Layout(root)
        self._agents: set[str] = set()
        self._lock: _HeldLock | None = None
        self._decoded: dict[str, tuple[bytes, Any]] = {}

    def close(self) -> None:
        """End the session: its lock and its agents go."""
        self.expire()

    def expire(self) -> None:
        """What a loss of the session does: its lock is lost, its agents' znodes go."""
        if self._lock is not None:
            self._lock.lose("the connection to ZooKeeper was lost")
        for path in self._agents:
            self.zookeeper.delete(path)
        self._agents.clear()

    def load(self) -> Topology:
        """See `TopologyStore`."""
        self._answers()
        with self.zookeeper.changed:
            return self._load()

    def put_cluster(self, cluster: Cluster) -> None:
        """See `TopologyStore`."""
        path = self._layout.cluster(cluster.name)
        self._replace(path, lambda stored: (None, edit_cluster(self._layout, stored, cluster)))

    def put_dataset(self, dataset: Dataset) -> None:
        """See `TopologyStore`."""
        path = self._layout.dataset(dataset.name)
        self._replace(path, lambda stored: (None, edit_dataset(self._layout, stored, dataset)))

    def put_shard(self, shard: Shard) -> None:
        """See `TopologyStore`."""
        self._answers()
        path = self._layout.shard(shard.dataset, shard.id)
        if self.zookeeper.read(self._layout.dataset(shard.dataset)) is None:
            raise NotFound(
                f"there is no dataset {shard.dataset!r}.",
                where=self._layout.dataset(shard.dataset),
                cure="Write the dataset first.",
            )
        floor = self.zookeeper.read(self._layout.datasets)
        self._replace(path, lambda stored: (None, edit_shard(self._layout, stored, shard, floor)))

    def set_leader(self, dataset: str, shard: str, leader: Address) -> Shard:
        """See `TopologyStore`."""
        path = self._layout.shard(dataset, shard)
        return self._replace(path, lambda stored: edit_leader(self._layout, stored, dataset, shard, leader))

    def set_pause(self, dataset: str | None, shard: str | None, pause: Pause | None) -> None:
        """See `TopologyStore`."""
        self._answers()
        if dataset is not None:
            name = dataset
            path = self._layout.dataset(name) if shard is None else self._layout.shard(name, shard)
            self._replace(path, lambda stored: (None, edit_pause(self._layout, stored, name, shard, pause)))
        elif pause is not None:
            self.zookeeper.write(self._layout.pause, edit_platform_pause(self._layout, pause))
        else:
            self.zookeeper.delete(self._layout.pause)

    def delete_shard(self, dataset: str, shard: str) -> None:
        """See `TopologyStore`."""
        self._answers()
        raw = self.zookeeper.read(self._layout.shard(dataset, shard))
        if raw is not None:
            self._apply(delete_shard(self._layout, dataset, shard, raw))

    def delete_dataset(self, name: str) -> None:
        """See `TopologyStore`."""
        self._answers()
        stored = self._stored()
        if name in stored.datasets:
            for edit in delete_dataset(self._layout, stored, name):
                self._apply(edit)

    def import_topology(
        self, topology: Topology, *, dry_run: bool = False, prune: bool = False, max_deletes: int | None = None
    ) -> tuple[Change, ...]:
        """See `TopologyStore`."""
        self._answers()
        edits = plan_import(self._layout, self._stored(), topology, prune=prune)
        changes = tuple(edit.change for edit in edits)
        if max_deletes is not None:
            check_deletes(changes, max_deletes)
        for edit in () if dry_run else edits:
            self._apply(edit)
        return changes

    def lock(self, *, owner: str, timeout: float = 0.0) -> AbstractContextManager[ControlLock]:
        """See `TopologyStore`."""
        return self._hold(owner, timeout)

    def lock_owner(self) -> str | None:
        """See `TopologyStore`."""
        self._answers()
        holder = self.zookeeper.holder
        return holder.owner if holder else None

    def register_agent(self, worker: str, info: Mapping[str, Any]) -> AgentRegistration:
        """See `TopologyStore`."""
        self._answers()
        registration = _Registration(self, self._layout.agent(worker))
        registration.write(info)
        return registration

    def agents(self) -> Mapping[str, Mapping[str, Any]]:
        """See `TopologyStore`."""
        self._answers()
        layout = self._layout
        return {
            worker: json.loads(self.zookeeper.read(layout.agent(worker)) or b"{}")
            for worker in self.zookeeper.children(layout.agents)
        }

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """See `TopologyStore`."""
        self._answers()
        self.zookeeper.watchers.append(changed)

        def end() -> None:
            if changed in self.zookeeper.watchers:
                self.zookeeper.watchers.remove(changed)

        return end

    def _answers(self) -> None:
        if self.zookeeper.down:
            raise ZooKeeperUnavailable("ZooKeeper does not answer.", where="memory", cure="Set `down` to False.")

    def _load(self) -> Topology:
        layout, stored = self._layout, self._stored()
        shard_nodes = [self.zookeeper.nodes[layout.shard(n, s)] for n, ids in stored.shards.items() for s in ids]
        return assemble(
            clusters={
                name: self._decode(layout.cluster(name), data, partial(read_cluster, layout, name))
                for name, data in stored.clusters.items()
            },
            datasets={
                name: self._decode(layout.dataset(name), data, partial(read_dataset, layout, name))
                for name, data in stored.datasets.items()
            },
            shards={
                name: [
                    self._decode(layout.shard(name, shard), data, partial(read_shard, layout, name, shard))
                    for shard, data in shards.items()
                ]
                for name, shards in stored.shards.items()
            },
            pause=read_pause(layout, stored.pause),
            zxid=max((node.zxid for node in shard_nodes), default=0),
        )

    def _decode(self, path: str, data: bytes, decode: Callable[[bytes], Any]) -> Any:
        known = self._decoded.get(path)
        if known is None or known[0] != data:
            known = self._decoded[path] = (data, decode(data))
        return known[1]

    def _stored(self) -> Stored:
        layout, zookeeper = self._layout, self.zookeeper
        with zookeeper.changed:
            shards = {
                name: {s: zookeeper.nodes[layout.shard(name, s)].data for s in zookeeper.children(layout.shards(name))}
                for name in zookeeper.children(layout.datasets)
            }
            return Stored(
                clusters={n: zookeeper.nodes[layout.cluster(n)].data for n in zookeeper.children(layout.clusters)},
                datasets={n: zookeeper.nodes[layout.dataset(n)].data for n in shards},
                shards=shards,
                pause=zookeeper.read(layout.pause),
                floor=zookeeper.read(layout.datasets),
            )

    def _replace(self, path: str, edit: Callable[[bytes | None], tuple[T, bytes | None]]) -> T:
        self._answers()
        with self.zookeeper.changed:
            result, data = edit(self.zookeeper.read(path))
            if data is not None:
                self.zookeeper.write(path, data)
            return result

    def _apply(self, edit: Edit) -> None:
        if edit.change.action == "delete":
            if edit.gone:
                floor = generation_floor(self.zookeeper.read(self._layout.datasets), [edit.gone])
                if floor is not None:
                    self.zookeeper.write(self._layout.datasets, floor)
            self.zookeeper.delete(edit.path)
        elif edit.data is not None:
            self.zookeeper.write(edit.path, edit.data)

    @contextmanager
    def _hold(self, owner: str, timeout: float) -> Iterator[ControlLock]:
        self._answers()
        zookeeper = self.zookeeper
        deadline = time.monotonic() + timeout
        with zookeeper.changed:
            while zookeeper.holder is not None:
                left = deadline - time.monotonic()
                if left <= 0 or not zookeeper.changed.wait(left):
                    raise LockHeld(
                        f"{zookeeper.holder.owner if zookeeper.holder else 'another'} holds the lock.",
                        where=self._layout.lock,
                        cure="Wait for its end.",
                    )
            zookeeper.zxid += 1
            lock = zookeeper.holder = self._lock = _HeldLock(self, owner, zookeeper.zxid)
        try:
            yield lock
        finally:
            lock.lose("it was given back")


class _HeldLock:
    def __init__(self, store: InMemoryTopologyStore, owner: str, generation: int) -> None:
        self.owner = owner
        self._store = store
        self._generation = generation
        self._lost: str | None = None

    @property
    def generation(self) -> int:
        return self._generation

    def check(self) -> None:
        if self._store.zookeeper.down:
            self.lose("the connection to ZooKeeper was lost")
        if self._lost is not None:
            raise LockLost(f"{self._lost}.", where="memory", cure="The next pass goes on from here.")

    def lose(self, reason: str) -> None:
        zookeeper = self._store.zookeeper
        with zookeeper.changed:
            self._lost = self._lost or reason
            if zookeeper.holder is self:
                zookeeper.holder = None
                zookeeper.changed.notify_all()


class _Registration:
    def __init__(self, store: InMemoryTopologyStore, path: str) -> None:
        self._store = store
        self._path = path
        self._data = b""

    def write(self, info: Mapping[str, Any]) -> None:
        self._data = json.dumps(info).encode()
        self._store._agents.add(self._path)
        self._store.zookeeper.write(self._path, self._data)

    def update(self, info: Mapping[str, Any]) -> None:
        self._store._answers()
        stored = self._store.zookeeper.read(self._path)
        if stored is not None and stored != self._data:
            raise LockHeld(
                "another agent has registered for this worker.", where=self._path, cure="Run one agent a worker."
            )
        self.write(info)

    def close(self) -> None:
        self._store._agents.discard(self._path)
        if self._store.zookeeper.read(self._path) == self._data:
            self._store.zookeeper.delete(self._path)
