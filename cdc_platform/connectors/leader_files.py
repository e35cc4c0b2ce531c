"""The leader file: one small properties file per shard in a directory on each Connect worker.

The agent beside the worker writes it; the connector's configuration refers to
it by `${file:PATH:KEY}`, which Connect's FileConfigProvider resolves anew at
each start of a task. Both sides take name, keys and grammar from here.
"""

from __future__ import annotations

from dataclasses import dataclass

from cdc_platform.errors import BadInput
from cdc_platform.model.topology import Address, Cluster, Shard

HOST = "host"
PORT = "port"
GENERATION = "generation"
SUFFIX = ".properties"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderFile:
    """What one leader file says. Of two, the one with the greater generation is the newer."""

    leader: Address
    generation: int

    def __str__(self) -> str:
        return f"{self.leader}, generation {self.generation}"


def file_name(shard_name: str) -> str:
    """The file's name in the leader directory; `shard_name` is `<dataset>.<shard>`."""
    return shard_name + SUFFIX


def leader_file(cluster: Cluster, shard: Shard) -> str:
    """The absolute path of the shard's leader file, the same on each worker of the cluster."""
    return f"{cluster.leader_dir.rstrip('/')}/{file_name(shard.name)}"


def leader_reference(cluster: Cluster, shard: Shard, key: str) -> str:
    """The `${file:PATH:KEY}` reference to one key (HOST, PORT) of the shard's leader file."""
    return f"${{file:{leader_file(cluster, shard)}:{key}}}"


def render(content: LeaderFile) -> str:
    """The file's text: Java properties, one key a line.

    An Address holds no character that properties would need escaped.
    """
    return f"{HOST}={content.leader.host}\n{PORT}={content.leader.port}\n{GENERATION}={content.generation}\n"


def parse(text: str, *, where: str) -> LeaderFile:
    """Read what `render` wrote. Raises BadInput, also for a file that was cut short."""
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    missing = [key for key in (HOST, PORT, GENERATION) if key not in values]
    if missing or not text.endswith("\n"):
        raise BadInput(
            "this leader file is incomplete.",
            where=where,
            field=missing[0] if missing else None,
            cure="Remove it: the agent writes it anew.",
        )
    try:
        generation = int(values[GENERATION])
    except ValueError:
        raise BadInput(
            f"{values[GENERATION]!r} is no number.",
            where=where,
            field=GENERATION,
            cure="Remove the file: the agent writes it anew.",
        ) from None
    return LeaderFile(leader=Address.parse(f"{values[HOST]}:{values[PORT]}"), generation=generation)
