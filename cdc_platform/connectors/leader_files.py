"""The leader file: one small properties file per shard in a directory on each Connect worker.

The agent beside the worker writes it; the connector's configuration refers to
it by `${file:PATH:KEY}`, which Connect's FileConfigProvider resolves again at
each start of a task. Both sides take name, keys and grammar from here.
"""

from __future__ import annotations

from dataclasses import dataclass

from cdc_platform.connectors import java_properties
from cdc_platform.errors import BadInput, TopologyError
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
    """The file's text: Java properties, one key a line."""
    return java_properties.render(
        {HOST: content.leader.host, PORT: str(content.leader.port), GENERATION: str(content.generation)}
    )


def parse(text: str, *, where: str) -> LeaderFile:
    """Read what `render` wrote. Raises BadInput, also for a file that was cut short."""
    try:
        values = java_properties.parse(text)
        generation = int(values[GENERATION])
        leader = Address.parse(f"{values[HOST]}:{values[PORT]}")
    except KeyError as error:
        raise _incomplete(where, str(error.args[0])) from None
    except (ValueError, TopologyError) as error:
        raise BadInput(
            f"this leader file cannot be read: {error}.", where=where, cure="Remove it: the agent writes it again."
        ) from None
    if not text.endswith("\n"):
        raise _incomplete(where, None)
    return LeaderFile(leader=leader, generation=generation)


def _incomplete(where: str, field: str | None) -> BadInput:
    return BadInput(
        "this leader file is incomplete.", where=where, field=field, cure="Remove it: the agent writes it again."
    )
