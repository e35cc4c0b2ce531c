"""Records what the control plane, its agents, Dagster and the local stack keep outside the state topic."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from kazoo.exceptions import NoNodeError

from cdc_platform.agent.journal import Journal
from cdc_platform.agent.leader_directory import LeaderDirectory
from cdc_platform.clients.zookeeper.agents import ZooKeeperAgentRegistration
from cdc_platform.defs.table_inventory import Inventory
from cdc_platform.documents.topology_file import dump_yaml
from cdc_platform.model.topology import Address
from cdc_platform.testing import InMemoryTopologyStore
from tests.formats import values

ZNODES = "znodes.tsv"
YAML = "topology.yaml"
REPORT = "agent-report.json"
TABLES = "tables.json"


def topology_documents(root: Path) -> None:
    """`znodes.tsv`: path and data of each znode that has any. `topology.yaml`: the same as a file."""
    store = InMemoryTopologyStore()
    store.import_topology(values.TOPOLOGY)
    store.set_leader("pins", "00000", Address("db-0b.internal", 3307))
    store.delete_shard("users", "us")  # leaves the least generation of shards to come
    nodes = sorted((path, node.data) for path, node in store.zookeeper.nodes.items() if node.data)
    (root / ZNODES).write_bytes(b"".join(path.encode() + b"\t" + data + b"\n" for path, data in nodes))
    (root / YAML).write_text(dump_yaml(store.load()))


class _Session:
    """A ZooKeeper session as far as an agent's registration needs one: calls are done when they are made."""

    session_id = 1

    def __init__(self) -> None:
        self.nodes: dict[str, bytes] = {}

    @contextmanager
    def errors(self, where: str) -> Iterator[None]:
        yield

    def client(self) -> _Session:
        return self

    def wait(self, answer: Any) -> Any:
        return answer

    def exists_async(self, path: str) -> Any:
        return SimpleNamespace(ephemeralOwner=1, version=0) if path in self.nodes else None

    def set_async(self, path: str, data: bytes, version: int) -> None:
        if path not in self.nodes:
            raise NoNodeError
        self.nodes[path] = data

    def create_async(self, path: str, data: bytes, ephemeral: bool, makepath: bool) -> None:
        self.nodes[path] = data


def agent_files(root: Path) -> None:
    """The leader directory of a worker with the agent's journal; `agent-report.json` is the data of its znode."""
    directory = LeaderDirectory(root / "leaders", owner="w0:8083")
    assert directory.write(values.LEADER_FILES) == {}
    Journal(root / "leaders", "w0:8083").write(values.REMEMBERED)
    (root / "leaders" / ".lock").unlink()
    session: Any = _Session()
    ZooKeeperAgentRegistration(session, "/cdc/agents/w0:8083").take(values.REPORT.to_document())
    (root / REPORT).write_bytes(session.nodes["/cdc/agents/w0:8083"])


def dagster_files(root: Path) -> None:
    """The cursor of `reconcile_sensor`, and the list of tables: of the cache directory, and the component's state."""
    (root / "reconcile_sensor.cursor").write_text(values.CURSOR.dump())
    found = Inventory(platform="cdc", tables=values.TABLES, read_at=values.NOW)
    (root / TABLES).write_bytes(found.encode())


def stack_files(root: Path) -> None:
    """`stack.json` of a local stack."""
    with chdir(root):
        values.STACK.save()


FORMATS: Mapping[str, Callable[[Path], None]] = {
    "topology": topology_documents,
    "agent": agent_files,
    "dagster": dagster_files,
    "stack": stack_files,
}
