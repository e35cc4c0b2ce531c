"""Where each document is in ZooKeeper. One definition for reader, writer and fake."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cdc_platform.errors import SettingsError, TopologyError

# Kafka Connect's worker id is HOST:PORT; ZooKeeper forbids the slash and control characters.
_WORKER = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9._:\[\]-]{0,252}")


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths below one root, by default **`/cdc`**.

    Raises SettingsError for a root that is no path. The methods raise
    TopologyError for a name that would leave its place.
    """

    root: str = "/cdc"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"(/[A-Za-z0-9][A-Za-z0-9._-]*)+", self.root):
            raise SettingsError(
                f"{self.root!r} is not a ZooKeeper path.",
                field="zookeeper_root",
                cure="Use an absolute path, as in /cdc.",
            )

    @property
    def clusters(self) -> str:
        """The parent of the clusters."""
        return f"{self.root}/clusters"

    @property
    def datasets(self) -> str:
        """The parent of the datasets. Its data is the generation floor, see `generation_floor`."""
        return f"{self.root}/datasets"

    @property
    def lock(self) -> str:
        """The parent of the lock's contenders."""
        return f"{self.root}/control/lock"

    @property
    def pause(self) -> str:
        """The pause of the whole platform; absent when nothing is paused."""
        return f"{self.root}/control/pause"

    @property
    def agents(self) -> str:
        """The parent of the agents' ephemeral znodes."""
        return f"{self.root}/agents"

    def cluster(self, name: str) -> str:
        """One cluster's document."""
        return f"{self.clusters}/{_one(name)}"

    def dataset(self, name: str) -> str:
        """One dataset's document."""
        return f"{self.datasets}/{_one(name)}"

    def shards(self, dataset: str) -> str:
        """The parent of a dataset's shards."""
        return f"{self.datasets}/{_one(dataset)}/shards"

    def shard(self, dataset: str, shard: str) -> str:
        """One shard's document."""
        return f"{self.datasets}/{_one(dataset)}/shards/{_one(shard)}"

    def agent(self, worker: str) -> str:
        """One agent's znode. Raises TopologyError for a worker id that ZooKeeper cannot name."""
        if not _WORKER.fullmatch(worker):
            raise TopologyError(
                f"{worker!r} is not a valid worker id.",
                field="worker",
                cure="Use letters, digits, '.', '_', ':' and '-'.",
            )
        return f"{self.agents}/{worker}"


def _one(name: str) -> str:
    """A name that is one step of a path, whatever an argument or a znode said."""
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        raise TopologyError(f"{name!r} is not a valid name.", field="name", cure="`topology show` lists the names.")
    return name
