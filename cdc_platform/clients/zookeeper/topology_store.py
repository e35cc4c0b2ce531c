"""The topology in ZooKeeper: the ideal state, the pause switches, the lock, the agents."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Any, TypeVar

from kazoo.exceptions import (
    BadVersionError,
    KazooException,
    NodeExistsError,
    NoNodeError,
    NotEmptyError,
    RolledBackError,
    RuntimeInconsistency,
)

from cdc_platform.clients.protocols import ControlLock
from cdc_platform.clients.secrets import Login
from cdc_platform.clients.zookeeper import lock as zookeeper_lock
from cdc_platform.clients.zookeeper.agents import ZooKeeperAgentRegistration
from cdc_platform.clients.zookeeper.reader import TopologyReader, Znode
from cdc_platform.clients.zookeeper.session import ZooKeeperSession
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
from cdc_platform.documents.znodes import generation_floor
from cdc_platform.errors import NotFound, TopologyError, ZooKeeperUnavailable
from cdc_platform.model.topology import Address, Cluster, Dataset, Pause, Shard, Topology

T = TypeVar("T")

# One transaction is one packet, and ZooKeeper's limit for that is 1 MiB.
_BATCH_EDITS = 500
_BATCH_BYTES = 512 * 1024
# How often a compare-and-set is tried again when another writer was faster.
_TRIES = 5


class ZooKeeperTopologyStore:
    """`TopologyStore` on a real ZooKeeper. Connects when first used.

    Args:
        hosts: `HOST:PORT,HOST:PORT`.
        root: the path that everything is below.
        timeout: of the session and of one call, seconds. The lock of a killed
            process is free after it. The servers' `maxSessionTimeout` must not be less.
        load_deadline: of one load of the topology, seconds.
        auth: user and password for digest authentication; what is made then is that user's alone. What reads
            them is asked at each load, so that a rotated password needs no new process.
        readers, ca: as of `ZooKeeperSession`; readers have a znode of their own below `agents`.

    All calls raise ZooKeeperUnavailable.
    """

    def __init__(
        self,
        hosts: str,
        root: str = "/cdc",
        timeout: float = 10.0,
        *,
        load_deadline: float = 30.0,
        auth: Login = None,
        readers: Sequence[str] = (),
        ca: str = "",
    ) -> None:
        self._open = partial(ZooKeeperSession, hosts, timeout=timeout, auth=auth, readers=readers, ca=ca)
        self._layout = Layout(root)
        self._session = self._open()
        self._reader = TopologyReader(self._session, self._layout, deadline=load_deadline)

    def close(self) -> None:
        """End the session."""
        self._session.close()

    def load(self) -> Topology:
        """The whole topology; malformed znodes become `problems`. A warm load re-reads only what changed."""
        self._session.renew_login()
        return self._reader.load()

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed` (from another thread) after any change; returns the call that ends it.

        Several changes may give one call; the callback loads. Also after
        the connection was lost and is back.
        """
        end = self._reader.subscribe(changed)
        try:
            if not self._reader.loaded:
                self.load()  # sets the watches
        except ZooKeeperUnavailable:
            end()
            raise
        return end

    def put_cluster(self, cluster: Cluster) -> None:
        """Write one cluster, unknown fields of the stored document kept."""
        path = self._layout.cluster(cluster.name)
        self._replace(path, lambda stored: (None, edit_cluster(self._layout, stored, cluster)))

    def put_dataset(self, dataset: Dataset) -> None:
        """Write one dataset, unknown fields of the stored document kept."""
        path = self._layout.dataset(dataset.name)
        self._replace(path, lambda stored: (None, edit_dataset(self._layout, stored, dataset)))
        with self._session.errors(path):
            self._client().ensure_path(self._layout.shards(dataset.name))

    def put_shard(self, shard: Shard) -> None:
        """Write one shard, unknown fields of the stored document kept. A changed leader raises the generation.

        Raises NotFound for a dataset that is not there, TopologyError when the
        stored leader has changed since the shard was read.
        """
        path = self._layout.shard(shard.dataset, shard.id)
        floor = self._data(self._layout.datasets)
        if self._data(self._layout.dataset(shard.dataset)) is None:
            raise NotFound(
                f"there is no dataset {shard.dataset!r}.",
                where=self._layout.dataset(shard.dataset),
                cure="Write the dataset first.",
            )
        self._replace(path, lambda stored: (None, edit_shard(self._layout, stored, shard, floor[0] if floor else None)))

    def set_leader(self, dataset: str, shard: str, leader: Address) -> Shard:
        """Compare-and-set the leader and add 1 to the generation; unchanged when it leads already.

        Raises NotFound, and TopologyError for a malformed znode.
        """
        path = self._layout.shard(dataset, shard)
        return self._replace(path, lambda stored: edit_leader(self._layout, stored, dataset, shard, leader))

    def set_pause(self, dataset: str | None, shard: str | None, pause: Pause | None) -> None:
        """Pause or resume the platform (both None), a dataset or a shard. Raises NotFound, TopologyError."""
        if dataset is not None:
            name = dataset
            path = self._layout.dataset(name) if shard is None else self._layout.shard(name, shard)
            self._replace(path, lambda stored: (None, edit_pause(self._layout, stored, name, shard, pause)))
        elif pause is not None:
            data = edit_platform_pause(self._layout, pause)
            self._replace(self._layout.pause, lambda stored: (None, None if stored == data else data))
        else:
            with self._session.errors(self._layout.pause), suppress(NoNodeError):  # nothing is paused
                self._session.wait(self._client().delete_async(self._layout.pause))

    def delete_shard(self, dataset: str, shard: str) -> None:
        """Delete one shard's znode; one that is gone already is no error."""
        self._reader.load()
        path = self._layout.shard(dataset, shard)
        if path in self._nodes:
            self._apply([delete_shard(self._layout, dataset, shard, self._nodes[path].data)])

    def delete_dataset(self, name: str) -> None:
        """Delete a dataset and its shards; one that is gone already is no error."""
        self._reader.load()
        stored = self._stored()
        if name in stored.datasets:
            self._apply(list(delete_dataset(self._layout, stored, name)))

    def import_topology(
        self, topology: Topology, *, dry_run: bool = False, prune: bool = False, max_deletes: int | None = None
    ) -> tuple[Change, ...]:
        """Make ZooKeeper hold this topology; returns what differs, `documents.edits.plan_import` says how.

        Writes only differences, in transactions of some hundred: when it fails
        in between, what is done is done, and the next import does the rest.

        Raises:
            PlanRefused: more than `max_deletes` documents would be deleted; nothing is written.
            TopologyError: another writer changed a document meanwhile.
        """
        self._reader.load()
        stored = self._stored()
        edits = plan_import(self._layout, stored, topology, prune=prune)
        changes = tuple(edit.change for edit in edits)
        if max_deletes is not None:
            check_deletes(changes, max_deletes)
        if not dry_run:
            self._apply([edit for edit in edits if edit.change.action != "keep"])
        return changes

    def lock(self, *, owner: str, timeout: float = 0.0) -> AbstractContextManager[ControlLock]:
        """Take **`/cdc/control/lock`**. `owner` is shown to others (a run id). Raises LockHeld."""
        self._session.let_readers_register(self._layout.agents)
        session = self._open()
        return zookeeper_lock.hold(session, self._layout.lock, owner=owner, timeout=timeout)

    def lock_owner(self) -> str | None:
        """Who holds the lock now; None when it is free."""
        return zookeeper_lock.holder(self._session, self._layout.lock)

    def register_agent(self, worker: str, info: Mapping[str, Any]) -> ZooKeeperAgentRegistration:
        """Announce the agent of a worker, as an ephemeral znode. Raises TopologyError for a bad worker id."""
        registration = ZooKeeperAgentRegistration(self._session, self._layout.agent(worker))
        registration.take(info)
        return registration

    def agents(self) -> Mapping[str, Mapping[str, Any]]:
        """The live agents by worker id, with what each says of itself."""
        with self._session.errors(self._layout.agents):
            client = self._client()
            try:
                workers = self._session.wait(client.get_children_async(self._layout.agents))
            except NoNodeError:
                return {}
            calls = (partial(client.get_async, f"{self._layout.agents}/{worker}") for worker in workers)
            found = zip(workers, self._session.pipelined(calls), strict=True)
            return {worker: _info(answer[0]) for worker, answer in found if not isinstance(answer, KazooException)}

    def _client(self) -> Any:
        return self._session.client()

    def _data(self, path: str) -> tuple[bytes, int] | None:
        """The data and version of a znode; None when there is none."""
        with self._session.errors(path):
            try:
                data, stat = self._session.wait(self._client().get_async(path))
            except NoNodeError:
                return None
            return data, stat.version

    def _replace(self, path: str, edit: Callable[[bytes | None], tuple[T, bytes | None]]) -> T:
        """Compare and set: `edit` gets the stored data and gives its result and the new data (None: as it is)."""
        for _ in range(_TRIES):
            found = self._data(path)
            result, data = edit(found[0] if found else None)
            if data is None:
                return result
            with self._session.errors(path):
                try:
                    if found:
                        self._session.wait(self._client().set_async(path, data, version=found[1]))
                    else:
                        self._session.wait(self._client().create_async(path, data, makepath=True))
                    return result
                except (BadVersionError, NodeExistsError, NoNodeError):
                    continue
        raise _changed_meanwhile(path)

    @property
    def _nodes(self) -> Mapping[str, Znode]:
        return self._reader.nodes

    def _stored(self) -> Stored:
        layout, nodes = self._layout, self._nodes
        children = self._reader.children
        datasets = children.get(layout.datasets, ())

        def data(names: Sequence[str], path: Callable[[str], str]) -> dict[str, bytes]:
            return {name: nodes[path(name)].data for name in names if path(name) in nodes}

        floor = self._data(layout.datasets)
        pause = nodes.get(layout.pause)
        return Stored(
            clusters=data(children.get(layout.clusters, ()), layout.cluster),
            datasets=data(datasets, layout.dataset),
            shards={
                name: data(children.get(layout.shards(name), ()), partial(layout.shard, name)) for name in datasets
            },
            pause=pause.data if pause else None,
            floor=floor[0] if floor else None,
        )

    def _apply(self, edits: Sequence[Edit]) -> None:
        """Write, in batches; each batch wholly or not at all."""
        layout = self._layout
        if not edits:
            return
        with self._session.errors(layout.root):
            created = {edit.change.name for edit in edits if edit.change.kind == "dataset"} - set(
                self._reader.children.get(layout.datasets, ())
            )
            written = {
                edit.change.name.partition(".")[0] for edit in edits if edit.change.kind == "shard" and edit.data
            }
            parents = (layout.shards(name) for name in written - created)
            for parent in (layout.clusters, layout.datasets, layout.pause.rpartition("/")[0], *parents):
                self._client().ensure_path(parent)
            for batch in _batches(edits):
                self._commit(batch)

    def _commit(self, batch: Sequence[Edit]) -> None:
        layout, client = self._layout, self._client()
        transaction = client.transaction()
        paths: list[str] = []
        gone = [edit.gone for edit in batch if edit.gone]
        floor = self._data(layout.datasets) if gone else None
        raised = generation_floor(floor[0], gone) if floor else None
        if floor and raised is not None:
            transaction.set_data(layout.datasets, raised, version=floor[1])
            paths.append(layout.datasets)
        for edit in batch:
            node = self._nodes.get(edit.path)
            shards = layout.shards(edit.change.name) if edit.change.kind == "dataset" else None
            if edit.data is None:
                if shards and self._session.wait(client.exists_async(shards)) is not None:
                    transaction.delete(shards)
                    paths.append(shards)
                transaction.delete(edit.path, version=node.version if node else -1)
            elif node is not None:
                transaction.set_data(edit.path, edit.data, version=node.version)
            else:
                transaction.create(edit.path, edit.data)
                if shards:
                    paths.append(edit.path)
                    transaction.create(shards)
            paths.append(edit.path)
        for path, answer in zip(paths, self._session.wait(transaction.commit_async()), strict=True):
            if isinstance(answer, BadVersionError | NodeExistsError | NoNodeError):
                raise _changed_meanwhile(path)
            if isinstance(answer, NotEmptyError):
                raise TopologyError("has children of its own.", where=path, cure="Delete them first.")
            if isinstance(answer, KazooException) and not isinstance(answer, RolledBackError | RuntimeInconsistency):
                raise answer


def _batches(edits: Sequence[Edit]) -> Iterator[list[Edit]]:
    batch: list[Edit] = []
    size = 0
    for edit in edits:
        weight = len(edit.path) + len(edit.data or b"") + 100
        if batch and (len(batch) >= _BATCH_EDITS or size + weight > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(edit)
        size += weight
    if batch:
        yield batch


def _changed_meanwhile(path: str) -> TopologyError:
    return TopologyError("another writer changed it meanwhile.", where=path, cure="Run it again.")


def _info(data: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
