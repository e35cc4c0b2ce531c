"""`cdc-platform topology set-leader` and `topology discover`."""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack, closing
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import click

from cdc_platform.cli.grammar import Duration
from cdc_platform.cli.output import echo
from cdc_platform.cli.progress import Steps, ends_at_once
from cdc_platform.clients.sources.leader_probes import load_probe
from cdc_platform.clients.zookeeper.topology_store import ZooKeeperTopologyStore
from cdc_platform.errors import CdcError, PromotionRefused
from cdc_platform.failover.change_leader import Discovery, LeaderPorts, check_leader, discover, refuse_unfit
from cdc_platform.failover.preflight import PreflightItem
from cdc_platform.model.topology import Address, Shard, Topology
from cdc_platform.settings import Settings
from cdc_platform.wiring import open_leaders, topology_store


@click.command("set-leader")
@click.argument("dataset")
@click.argument("shard")
@click.argument("leader", metavar="HOST:PORT")
@click.option("--force", is_flag=True, help="Move it though the preflight fails; what is skipped is named.")
@click.option("--dry-run", is_flag=True, help="Only the preflight.")
@click.option(
    "--wait",
    type=Duration(),
    default="0s",
    help="Go on asking for so long while the new leader is behind or not promoted yet.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def set_leader(dataset: str, shard: str, leader: str, force: bool, dry_run: bool, wait: float, as_json: bool) -> None:
    """Make HOST:PORT the leader of a shard; the workers' agents follow at once.

    First a preflight, read-only: the new leader takes writes and has all up to the
    position that the connector saved, log format, row image and retention are right, the
    user has its rights, GTID or slot are such that the connector goes on, the old leader
    takes no writes. What fails is one line with its cure, and nothing is changed.
    Exits 0 when the leader is (now) HOST:PORT, 2 when it is not fit, 1 on an error.
    """
    address = Address.parse(leader)
    settings = Settings.load()
    with closing(topology_store(settings)) as store:
        topology = store.load()
        (before, *more) = topology.choose(dataset, [shard])
        if more:
            raise click.UsageError("Name one SHARD: leaders move one by one.")
        if before.leader == address:
            _say(
                as_json, before, before, (), f"{before.name}: {address} leads already (generation {before.generation})"
            )
            return
        with open_leaders(settings) as ports:
            items = _checked(ports, topology, before, address, wait, quiet=as_json)
        bad = [item for item in items if not item.ok]
        if not as_json:
            for item in items:
                echo(str(item))
        if dry_run:
            if as_json:
                echo(json.dumps({"items": [asdict(item) for item in items]}, indent=2))
            sys.exit(2 if bad else 0)
        if not force:
            try:
                refuse_unfit(items, before, address)
            except PromotionRefused as refused:
                shown = {"items": [asdict(item) for item in items], "refused": str(refused)}
                echo(json.dumps(shown, indent=2) if as_json else refused)
                sys.exit(2)
        after = store.set_leader(dataset, before.id, address)
        agents = len(store.agents())
    skipped = f"; skipped by --force: {', '.join(item.name for item in bad)}" if bad else ""
    text = (
        f"{after.name}: leader {before.leader} -> {after.leader}, "
        f"generation {after.generation}; {agents} agents follow{skipped}"
    )
    _say(as_json, before, after, items, text)


def _checked(
    ports: LeaderPorts, topology: Topology, shard: Shard, leader: Address, wait: float, *, quiet: bool
) -> tuple[PreflightItem, ...]:
    """The preflight; asked again while what only time cures is left."""
    deadline = time.monotonic() + wait
    reported = False
    while True:
        items = check_leader(ports, topology, shard, leader)
        late = [item for item in items if item.ok is False and item.name in ("reachable", "promoted", "caught up")]
        left = deadline - time.monotonic()
        if not late or left <= 0:
            return items
        if not reported and not quiet:
            echo(f"waiting: {'; '.join(item.text for item in late)}", err=True)
            reported = True
        time.sleep(min(0.5, left))


def _say(as_json: bool, before: Shard, after: Shard, items: tuple[PreflightItem, ...], text: str) -> None:
    if as_json:
        document = {
            "shard": after.name,
            "before": str(before.leader),
            "leader": str(after.leader),
            "generation": after.generation,
            "items": [asdict(item) for item in items],
        }
        echo(json.dumps(document, indent=2))
    else:
        echo(text)


@click.command("discover")
@click.argument("dataset", required=False)
@click.option("--apply", "apply_", is_flag=True, help="Move the leaders in ZooKeeper, each after its preflight.")
@click.option("--every", type=Duration(least=1.0), help="Go on until interrupted.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one document a round.")
def discover_leaders(dataset: str | None, apply_: bool, every: float | None, as_json: bool) -> None:
    """Ask the shards' servers who leads, for those without tooling that writes it to ZooKeeper.

    The probe is named by the setting `leader_probe`. A leader counts when two looks agree.
    Exits 0 when ZooKeeper is right, 2 when it is not (or was not).
    """
    settings = Settings.load()
    probe = load_probe(settings)
    with closing(topology_store(settings)) as store, open_leaders(settings) as ports, ExitStack() as stack:
        if dataset is not None:
            store.load().dataset(dataset)
        rounds = 0
        stack.enter_context(ends_at_once(lambda: f"Interrupted after {rounds} rounds; moves that were made stay."))
        stack.enter_context(steps := Steps(quiet=as_json or every is not None))
        while True:
            try:
                topology = store.load()
                steps.last = "Asking the shards' servers"
                found = discover(probe, topology, datasets=[dataset] if dataset else [])
                done = _apply(store, ports, topology, found) if apply_ else {}
                rounds += 1
                _tell(found, done, as_json)
            except CdcError as error:
                if every is None:
                    raise
                echo(f"Error: {error}", err=True)
            if every is None:
                sys.exit(2 if found.moves or found.problems else 0)
            time.sleep(every)


def _apply(store: ZooKeeperTopologyStore, ports: LeaderPorts, topology: Topology, found: Discovery) -> dict[str, str]:
    """Shard name to what became of its move."""
    done = {}
    for name, leader in sorted(found.moves.items()):
        dataset, _, shard_id = name.partition(".")
        shard = topology.shard(dataset, shard_id)
        items = check_leader(ports, topology, shard, leader)
        try:
            refuse_unfit(items, shard, leader)
        except PromotionRefused as error:
            reasons = "; ".join(str(item) for item in items if not item.ok)
            done[name] = f"not moved: {error.message} {reasons}"
            continue
        after = store.set_leader(dataset, shard_id, leader)
        done[name] = f"moved, generation {after.generation}"
    return done


def _tell(found: Discovery, done: dict[str, str], as_json: bool) -> None:
    if as_json:
        document: dict[str, Any] = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "probed": found.probed,
            "moves": {name: str(leader) for name, leader in found.moves.items()},
            "problems": dict(found.problems),
            "done": done,
        }
        echo(json.dumps(document))
        return
    for name, leader in sorted(found.moves.items()):
        echo(f"{name}: {leader} leads{f': {done[name]}' if name in done else ''}")
    for name, problem in sorted(found.problems.items()):
        echo(f"{name}: {problem}")
    echo(f"{found.probed} shards probed, {len(found.moves)} with another leader than in ZooKeeper")
