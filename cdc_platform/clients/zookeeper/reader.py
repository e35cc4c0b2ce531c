"""Reads the whole topology: pipelined when cold, only what changed when warm.

Every znode that is read is watched. A change marks its path; the next load
reads the marked paths. After the connection was lost no mark is trusted and
everything is read again. kazoo 2.11 knows no persistent recursive watch
(ZooKeeper's AddWatch), hence one watch a znode: 10,000 cost nothing measurable.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from kazoo.exceptions import ConnectionLoss, NoAuthError, NoNodeError, SessionExpiredError

from cdc_platform.clients.zookeeper.session import ZooKeeperSession
from cdc_platform.documents.znodes import assemble, read_cluster, read_dataset, read_pause, read_shard
from cdc_platform.documents.zookeeper_paths import Layout
from cdc_platform.model.topology import Pause, Problem, ProblemKind, Topology

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Znode:
    """A document as it was read: bytes, version, zxid of its last change, and what it says."""

    data: bytes
    version: int
    zxid: int
    value: Any


class TopologyReader:
    """A watched copy of the topology.

    Args:
        session: used for all reads.
        layout: where the documents are.
        deadline: of one load, seconds.
    """

    def __init__(self, session: ZooKeeperSession, layout: Layout, *, deadline: float) -> None:
        self.session = session
        self.layout = layout
        self.deadline = deadline
        self.nodes: Mapping[str, Znode] = {}
        self.children: Mapping[str, tuple[str, ...]] = {}
        self._topology: Topology | None = None
        self._epoch = -1
        self._loading = threading.Lock()
        self._marks = threading.Lock()
        self._changed_data: set[str] = set()
        self._changed_children: set[str] = set()
        self._subscribers: list[Callable[[], None]] = []
        session.on_reconnect(self._tell)

    def load(self) -> Topology:
        """The topology now. Raises ZooKeeperUnavailable; never a part of it."""
        with self._loading, self.session.errors(self.layout.root):
            deadline = time.monotonic() + self.deadline
            try:
                return self._load(deadline)
            except (ConnectionLoss, SessionExpiredError):
                # The connection broke in mid-load. Reads are harmless: once more on the new one.
                return self._load(deadline)

    def subscribe(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed` after any change to what was loaded; returns the call that ends it."""
        self._subscribers.append(changed)

        def end() -> None:
            if changed in self._subscribers:
                self._subscribers.remove(changed)

        return end

    @property
    def loaded(self) -> bool:
        """True once a load has succeeded."""
        return self._topology is not None

    def _load(self, deadline: float) -> Topology:
        client = self.session.client()
        epoch = self.session.epoch
        self.session.settle(self.layout.root, deadline)
        with self._marks:
            changed_data, self._changed_data = self._changed_data, set()
            changed_children, self._changed_children = self._changed_children, set()
        trusted = epoch == self._epoch
        if trusted and not changed_data and not changed_children and self._topology is not None:
            return self._topology
        self._epoch = -1  # nothing is trusted until this load has succeeded
        load = _Load(self, client, deadline, trusted, changed_data, changed_children)
        topology = load.run()
        self.nodes, self.children, self._topology = load.nodes, load.children, topology
        self._epoch = epoch
        return topology

    def mark(self, path: str) -> None:
        """The znode at `path` has to be read again."""
        with self._marks:
            self._changed_data.add(path)

    def on_data(self, event: Any) -> None:
        """kazoo's callback for a data watch."""
        if event.path is not None:  # a lost connection has none; `epoch` tells of that
            self.mark(event.path)
            self._tell()

    def on_children(self, event: Any) -> None:
        """kazoo's callback for a child watch, and for the appearance of a parent."""
        if event.path is not None:
            with self._marks:
                self._changed_children.add(event.path)
            self._tell()

    def _tell(self) -> None:
        for changed in list(self._subscribers):
            changed()


class _Load:
    """One load. What the reader holds is good, when `trusted`, but for the changed paths."""

    def __init__(
        self,
        reader: TopologyReader,
        client: Any,
        deadline: float,
        trusted: bool,
        changed_data: set[str],
        changed_children: set[str],
    ) -> None:
        self.reader = reader
        self.layout = reader.layout
        self.client = client
        self.deadline = deadline
        self.trusted = trusted
        self.changed_data = changed_data
        self.changed_children = changed_children
        self.children: dict[str, tuple[str, ...]] = {}
        self.nodes: dict[str, Znode] = {}

    def run(self) -> Topology:
        layout = self.layout
        self._list([layout.clusters, layout.datasets])
        datasets = self.children[layout.datasets]
        self._list([layout.shards(name) for name in datasets])
        clusters = [_Target(layout.cluster(name), "cluster", name) for name in self.children[layout.clusters]]
        sets = [_Target(layout.dataset(name), "dataset", name) for name in datasets]
        shards = {
            name: [
                _Target(layout.shard(name, shard), "shard", name, shard) for shard in self.children[layout.shards(name)]
            ]
            for name in datasets
        }
        pause = _Target(layout.pause, "pause", "pause")
        self._read([*clusters, *sets, *(target for targets in shards.values() for target in targets), pause])
        nodes = self.nodes
        return assemble(
            clusters={t.name: nodes[t.path].value for t in clusters if t.path in nodes},
            datasets={t.name: nodes[t.path].value for t in sets if t.path in nodes},
            shards={
                name: [nodes[t.path].value for t in targets if t.path in nodes]
                for name, targets in shards.items()
                if layout.dataset(name) in nodes
            },
            pause=nodes[pause.path].value if pause.path in nodes else (None, None),
            zxid=max((nodes[t.path].zxid for ts in shards.values() for t in ts if t.path in nodes), default=0),
        )

    def _list(self, paths: list[str]) -> None:
        """Fills `children`. A parent that is not there has none, and its appearance is watched."""
        known = self.reader.children if self.trusted else {}
        self.children |= {p: known[p] for p in paths if p in known and p not in self.changed_children}
        missing = [path for path in paths if path not in self.children]
        watch = self.reader.on_children
        while missing:
            found = self._each(missing, lambda path: self.client.get_children_async(path, watch=watch))
            absent = []
            for path, outcome in zip(missing, found, strict=True):
                if isinstance(outcome, NoNodeError):
                    absent.append(path)
                elif isinstance(outcome, NoAuthError):
                    raise outcome
                else:
                    self.children[path] = tuple(outcome)
            missing = self._absent(absent, watch)
            self.children |= {path: () for path in absent if path not in missing}

    def _read(self, targets: list[_Target]) -> None:
        """Fills `nodes`; a znode that is gone by now is left out."""
        known = self.reader.nodes
        if self.trusted:
            good = ((t.path, known.get(t.path)) for t in targets if t.path not in self.changed_data)
            self.nodes = {path: node for path, node in good if node is not None}
        missing = [t for t in targets if t.path not in self.nodes]
        watch = self.reader.on_data
        while missing:
            found = self._each(missing, lambda target: self.client.get_async(target.path, watch=watch))
            again = []
            for target, outcome in zip(missing, found, strict=True):
                if isinstance(outcome, NoNodeError):
                    again += [target] if target.kind == "pause" else []
                else:
                    self.nodes[target.path] = self._node(target, outcome, known.get(target.path))
            appeared = self._absent([target.path for target in again], watch)
            missing = [target for target in again if target.path in appeared]

    def _node(self, target: _Target, outcome: Any, known: Znode | None) -> Znode:
        if isinstance(outcome, NoAuthError):
            self.reader.mark(target.path)  # no watch was set
            problem = Problem(target.kind, target.label, f"{target.path}: ZooKeeper does not let this client read it.")
            unreadable = Pause(reason=problem.message, author="unknown"), problem
            return Znode(b"", -1, 0, unreadable if target.kind == "pause" else problem)
        data, stat = outcome
        if known is not None and known.data == data and known.version >= 0:
            return Znode(known.data, stat.version, stat.mzxid, known.value)
        return Znode(data, stat.version, stat.mzxid, target.decode(self.layout, data))

    def _absent(self, paths: list[str], watch: Callable[[Any], None]) -> list[str]:
        """Watches for paths to appear; returns those that have by now."""
        found = self._each(paths, lambda path: self.client.exists_async(path, watch=watch))
        return [path for path, stat in zip(paths, found, strict=True) if stat is not None]

    def _each(self, items: list[T], call: Callable[[T], Any]) -> list[Any]:
        # All answers first, decoding later: a thread that computes keeps kazoo's thread from the
        # interpreter for milliseconds at each of its thousands of reads.
        return list(self.reader.session.pipelined((partial(call, item) for item in items), deadline=self.deadline))


@dataclass(frozen=True, slots=True)
class _Target:
    """A document to read."""

    path: str
    kind: ProblemKind
    name: str
    shard: str = ""

    @property
    def label(self) -> str:
        return f"{self.name}.{self.shard}" if self.kind == "shard" else self.name

    def decode(self, layout: Layout, data: bytes) -> Any:
        if self.kind == "shard":
            return read_shard(layout, self.name, self.shard, data)
        if self.kind == "dataset":
            return read_dataset(layout, self.name, data)
        return read_cluster(layout, self.name, data) if self.kind == "cluster" else read_pause(layout, data)
