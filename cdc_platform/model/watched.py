"""Watched connectors: made and managed by another tool, kept alive here with their config untouched.

They stand in the document of their Connect cluster, beside the shards of datasets, from which the platform derives
connectors of its own. Everything that passes remember of one is under `<cluster>/<connector>`: a shard's name has
no slash, and two clusters may have connectors of one name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from cdc_platform.errors import TopologyError

MAX_NAME = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedConnector:
    """What the topology says of a watched connector: who hears of it."""

    owners: tuple[str, ...] = ()


class WatchedName(NamedTuple):
    """`<cluster>/<connector>`."""

    cluster: str
    connector: str

    @classmethod
    def parse(cls, text: str) -> WatchedName | None:
        """From its text; None for the name of a shard, or any other without a slash."""
        cluster, slash, connector = text.partition("/")
        return cls(cluster, connector) if slash else None

    def __str__(self) -> str:
        return f"{self.cluster}/{self.connector}"


def check_names(names: Iterable[str]) -> None:
    """Raises TopologyError for a name that cannot be one of a connector here."""
    for name in names:
        if not name or len(name) > MAX_NAME or "/" in name or not name.isprintable():
            raise TopologyError(
                f"{name!r} is not a connector's name.",
                field="watched",
                cure=f"Use up to {MAX_NAME} printable characters without a slash.",
            )
