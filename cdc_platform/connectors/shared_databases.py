"""Shards of one dataset that read one database: each row would stand in the topic twice, under two shards.

What the topology itself shows is refused here; what only the servers know (two names of one server) is a hazard of
the rounds that ask them (`planning/health/source_hazards.py`) and of the doctor. Two datasets may read one database:
their topics are apart, and if a stranger's dataset could switch another off by naming its server, it would.
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache

from cdc_platform.model.naming import some_of
from cdc_platform.model.topology import Address, Dataset, Problem, Shard, Topology

# The name under which a dataset accepts it (`accepted_hazards`).
SHARED_DATABASE = "shared-database"
_SHOWN = 4


def shared_database_problems(topology: Topology) -> Iterator[Problem]:
    """Shards whose leader or a replica, and database, are those of another shard of their dataset."""
    for name, shards in topology.shards.items():
        if name not in topology.datasets or accepts_shared(topology.datasets[name]):
            continue
        places: dict[tuple[Address, str], list[Shard]] = defaultdict(list)
        for shard in shards:
            for place in {(canonical(server), shard.database) for server in (shard.leader, *shard.replicas)}:
                places[place].append(shard)
        yield from _problems(places)


def _problems(places: dict[tuple[Address, str], list[Shard]]) -> Iterator[Problem]:
    """One a shard, by the first place that it shares."""
    named: set[str] = set()
    for (server, database), shards in places.items():
        for shard in shards if len(shards) > 1 else ():
            if shard.name not in named:
                named.add(shard.name)
                others = some_of([other.name for other in shards if other is not shard], _SHOWN)
                yield Problem(
                    "shard",
                    shard.name,
                    f"database {database} of {server} is also that of {others}: each row would be in the topic under "
                    "both shards. Cure: Correct leader, replicas or database of one of them; if it is meant to be, put "
                    f"{SHARED_DATABASE} among the dataset's accepted_hazards.",
                )


def accepts_shared(dataset: Dataset) -> bool:
    """Does the dataset say that its shards may read one database?"""
    return SHARED_DATABASE in dataset.accepted_hazards


def canonical(server: Address) -> Address:
    """The address in one spelling: names in lower case, IPv6 in brackets and short, IPv4 within IPv6 as IPv4."""
    host = _canonical_host(server.host)
    return server if host == server.host else Address(host, server.port)


@lru_cache(maxsize=1 << 14)
def _canonical_host(host: str) -> str:
    try:
        found = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return host.lower()
    if isinstance(found, ipaddress.IPv6Address):
        return f"[{found}]" if found.ipv4_mapped is None else str(found.ipv4_mapped)
    return str(found)
