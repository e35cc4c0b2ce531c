"""Moving leaders by hand and by probing: the checks before a move.

A move itself is one compare-and-set in ZooKeeper; the agents do the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cdc_platform.clients.protocols import Connect
from cdc_platform.clients.sources.leader_probes import Found, LeaderProbe
from cdc_platform.clients.sources.leader_servers import LeaderServers
from cdc_platform.connectors.identity import slot_name
from cdc_platform.errors import CdcError, NotFound, PromotionRefused
from cdc_platform.failover.preflight import PreflightItem, PromotionCase, preflight
from cdc_platform.failover.promotion import mariadb_version, saved_position
from cdc_platform.model.servers import ServerView
from cdc_platform.model.topology import Address, Cluster, Dataset, Engine, Shard, Topology
from cdc_platform.settings import Settings

_AT_ONCE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderPorts:
    """What moving leaders needs. `connect` gives the client of a Connect cluster."""

    settings: Settings
    servers: LeaderServers
    connect: Callable[[Cluster], Connect]


def check_leader(ports: LeaderPorts, topology: Topology, shard: Shard, leader: Address) -> tuple[PreflightItem, ...]:
    """The preflight of a move of `shard` to `leader`: read-only, bounded by the clients' deadlines."""
    dataset = topology.dataset(shard.dataset)
    slot = slot_name(ports.settings, shard) if dataset.engine is Engine.POSTGRES else None
    saved, problem, connector = _saved(ports, topology, dataset, shard)
    new = _view(ports, dataset, shard, leader, saved)
    rights: Sequence[str] | None = None
    if isinstance(new, ServerView):
        try:
            rights = ports.servers.missing_rights(dataset, shard, leader)
        except CdcError:
            rights = None
    old = None if leader == shard.leader else _view(ports, dataset, shard, shard.leader, None)
    return preflight(
        PromotionCase(
            new=new,
            old=old,
            saved=saved,
            saved_problem=problem,
            connector=connector,
            slot=slot,
            rights=rights,
        )
    )


def refuse_unfit(items: Sequence[PreflightItem], shard: Shard, leader: Address) -> None:
    """Raises PromotionRefused when an item fails, or is not known."""
    bad = [item for item in items if not item.ok]
    if bad:
        raise PromotionRefused(
            f"{leader} is not fit to lead: " + ", ".join(item.name for item in bad) + ".",
            where=f"shard {shard.name}",
            cure="Repair what is listed; --force moves the leader all the same.",
        )


def _saved(
    ports: LeaderPorts, topology: Topology, dataset: Dataset, shard: Shard
) -> tuple[str | None, str | None, str | None]:
    """The saved position, why it could not be read, and the MariaDB plugin's version."""
    position: str | None = None
    version: str | None = None
    for name in dataset.clusters:
        cluster = topology.clusters.get(name)
        if cluster is None:
            continue
        client = ports.connect(cluster)
        try:
            if dataset.engine is Engine.MARIADB:
                version = mariadb_version(client.plugins()) or version
            position = saved_position(dataset.engine, client.offsets(shard.name)) or position
        except NotFound:
            continue
        except CdcError as error:
            return None, error.message, version
    return position, None, version


def _view(ports: LeaderPorts, dataset: Dataset, shard: Shard, server: Address, saved: str | None) -> ServerView | str:
    try:
        return ports.servers.view(dataset, shard, server, saved=saved)
    except CdcError as error:
        return error.message


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """What one round of probing found. `moves` maps shards to the leader that ZooKeeper does not know."""

    moves: Mapping[str, Address]
    problems: Mapping[str, str]
    probed: int


def discover(
    probe: LeaderProbe,
    topology: Topology,
    *,
    datasets: Sequence[str] = (),
    again_after: float = 2.0,
    wait: Callable[[float], None] = time.sleep,
) -> Discovery:
    """Ask the probe of each shard; another leader counts only when a second answer agrees.

    Args:
        datasets: only these; empty takes all.
        again_after: seconds between the two.
    """
    shards = [(dataset, shard) for dataset, shard in topology.all_shards() if not datasets or dataset.name in datasets]
    first = _probe_all(probe, shards)
    suspects = [(d, s) for d, s in shards if (found := first[s.name].leader) is not None and found != s.leader]
    moves: dict[str, Address] = {}
    if suspects:
        wait(again_after)
        second = _probe_all(probe, suspects)
        for _, shard in suspects:
            leader = second[shard.name].leader
            if leader is not None and leader == first[shard.name].leader:
                moves[shard.name] = leader
            first[shard.name] = second[shard.name]
    problems = {name: found.problem for name, found in first.items() if found.problem}
    return Discovery(moves=moves, problems=problems, probed=len(shards))


def _probe_all(probe: LeaderProbe, shards: Sequence[tuple[Dataset, Shard]]) -> dict[str, Found]:
    if not shards:
        return {}

    def one(item: tuple[Dataset, Shard]) -> Found:
        try:
            return probe.leader(*item)
        except CdcError as error:
            return Found(problem=str(error))

    with ThreadPoolExecutor(min(_AT_ONCE, len(shards)), thread_name_prefix="probe") as pool:
        return {shard.name: found for (_, shard), found in zip(shards, pool.map(one, shards), strict=True)}
