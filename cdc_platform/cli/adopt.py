"""`cdc-platform adopt`: connectors that others made are watched, and what a proof of them lacks is said."""

from __future__ import annotations

import fnmatch
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click

from cdc_platform.cli.grammar import OutputFile
from cdc_platform.cli.output import echo
from cdc_platform.clients.platform import Platform
from cdc_platform.clients.protocols import Connect
from cdc_platform.connectors.adoption import Adoptable, adoptable, continues_at
from cdc_platform.connectors.proven_datasets import proven_datasets
from cdc_platform.documents import dump_yaml
from cdc_platform.errors import BadInput, NotFound, TopologyError
from cdc_platform.model.naming import one_of, some_of
from cdc_platform.model.observed import ObservedConnector
from cdc_platform.model.topology import Cluster
from cdc_platform.model.watched import WatchedConnector
from cdc_platform.planning.watched import state_of
from cdc_platform.settings import Settings
from cdc_platform.wiring import open_platform


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A connector that may be watched: as its config says, as Connect shows it, and where a new one may go on."""

    config: Adoptable
    state: str
    watched: bool
    position: str | None


@click.command()
@click.argument("cluster")
@click.argument("connectors", metavar="[CONNECTOR]...", nargs=-1)
@click.option(
    "--connect", "urls", multiple=True, metavar="URL", help="A worker of CLUSTER, where it is new; repeat it."
)
@click.option(
    "--owner", "owners", multiple=True, metavar="OWNER", help="Who hears of them, as in team:shop; repeat it."
)
@click.option("--release", is_flag=True, help="The other way: watch them no longer.")
@click.option("--out", type=OutputFile(), help="Also write datasets that prove them, for "
              "`topology import`.")  # fmt: skip
@click.option("--apply", "apply", is_flag=True, help="Do it; without, it is only shown what would be done.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def adopt(
    cluster: str,
    connectors: tuple[str, ...],
    urls: tuple[str, ...],
    owners: tuple[str, ...],
    release: bool,
    out: Path | None,
    apply: bool,
    as_json: bool,
) -> None:
    """Watch Debezium connectors of a Connect CLUSTER that others made: all, or some CONNECTORs (* is any text).

    Passes then restart what fails of them, and status, metrics, alerts and a Dagster asset tell how they are. Their
    config is never touched, nor are they paused, deleted or made again. For each it is said what a proof lacks.

    Without --apply nothing is changed. Exits 0 when nothing is (left) to do, 2 when a dry run found something.
    """
    if out is not None and out.exists():
        raise BadInput("is there already.", where=str(out), cure="Choose another --out.")
    settings = Settings.load()
    with open_platform(settings) as platform:
        topology = platform.topology.load()
        known = topology.clusters.get(cluster)
        if known is None and not urls:
            problem = next((p.message for p in topology.problems if (p.kind, p.name) == ("cluster", cluster)), None)
            cure = f"Name its workers: --connect URL. {one_of(cluster, topology.clusters) if topology.clusters else ''}"
            raise BadInput(problem or f"there is no Connect cluster {cluster!r}.", field="CLUSTER", cure=cure.strip())
        if known is not None and urls:
            raise BadInput(f"{cluster} has its workers in the topology.", field="--connect", cure="Leave it out.")
        base = known or Cluster(name=cluster, urls=urls)
        client = platform.connect(base)
        seen = client.connectors()
        wanted = _chosen(base, seen, connectors, release=release)
        found, others = ([], {}) if release else _look(platform, client, base, seen, wanted)
        after = _after(base, [one.config.name for one in found], wanted, owners, release=release)
        changed = sorted(
            name for name in {*base.watched, *after.watched} if base.watched.get(name) != after.watched.get(name)
        )
        if out is not None:
            proven, left = proven_datasets(base, [one.config for one in found], topology.datasets)
        if apply and (changed or known is None):
            platform.topology.put_cluster(after)
    if out is not None:
        out.write_text(dump_yaml(proven))
        for name, why in sorted(left.items()):
            echo(f"{name} is in no dataset of {out}: {why}.", err=True)
    if as_json:
        echo(json.dumps(_document(cluster, found, others, changed, apply), indent=2))
    else:
        _print(cluster, found, others, changed, release=release, apply=apply, out=out)
    sys.exit(2 if changed and not apply else 0)


def _chosen(base: Cluster, seen: Mapping[str, ObservedConnector], texts: Sequence[str], *, release: bool) -> list[str]:
    """The connectors that are meant. Raises BadInput for a text that fits none."""
    known = sorted(base.watched) if release else sorted(seen)
    chosen: dict[str, None] = {}
    for text in texts or ["*"]:
        fitting = [text] if text in known else fnmatch.filter(known, text)
        if not fitting and texts:
            what = "watched connector" if release else "connector"
            cure = one_of(text, known) if known else "There is none."
            raise BadInput(f"cluster {base.name} has no {what} {text!r}.", field="CONNECTOR", cure=cure)
        chosen |= dict.fromkeys(fitting)
    return list(chosen)


def _look(
    platform: Platform, client: Connect, base: Cluster, seen: Mapping[str, ObservedConnector], wanted: Sequence[str]
) -> tuple[list[_Found], dict[str, str]]:
    """The connectors that may be watched, and why the others may not."""
    found, others = [], {}
    for name in wanted:
        connector = seen.get(name)
        if connector is None:
            continue
        if connector.owner == platform.settings.platform:
            others[name] = "the platform's own"
        elif connector.owner is not None:
            others[name] = f"of another platform, {connector.owner}"
        elif (config := adoptable(name, connector.config)) is None:
            kind = connector.config.get("connector.class", "unknown").rpartition(".")[2]
            others[name] = f"a {kind}, not Debezium's for MariaDB, MySQL or Postgres"
        else:
            try:
                position = continues_at(config.engine, client.offsets(name))
            except NotFound:
                position = None
            found.append(
                _Found(config=config, state=state_of(connector), watched=name in base.watched, position=position)
            )
    return found, others


def _after(
    base: Cluster, found: Sequence[str], wanted: Sequence[str], owners: Sequence[str], *, release: bool
) -> Cluster:
    watched = dict(base.watched)
    if release:
        watched = {name: one for name, one in watched.items() if name not in wanted}
    else:
        for name in found:
            before = watched.get(name, WatchedConnector())
            watched[name] = replace(before, owners=tuple(owners)) if owners else before
    try:
        return replace(base, watched=watched)
    except TopologyError as error:
        raise BadInput(error.message, where=base.name, field="CONNECTOR", cure=error.cure or "") from None


def _migration(one: _Found, cluster: str) -> list[str]:
    """How what it captures comes to be proven."""
    name = one.config.name
    begin = "`cdc-platform bootstrap DATASET` reads its rows once, beside the stream: the old topics' lack the shard"
    if one.position:
        begin += (
            f". Where no row is to be read, `--mode position --position SHARD={one.position}` streams on from where it "
            "is, and what is not read again is not proven"
        )
    return [
        f"`cdc-platform adopt {cluster} {name} --out FILE` writes a dataset; complete it, then `topology import`, "
        "`plan`, `apply`: a connector of the platform's own runs beside it, with its own server id or slot and topics",
        begin,
        "`cdc-platform verify DATASET` until all is proven; then readers go over to the new topics",
        f"delete it where it is managed, and `cdc-platform adopt {cluster} {name} --release --apply`",
    ]


def _document(
    cluster: str, found: Sequence[_Found], others: Mapping[str, str], changed: Sequence[str], apply: bool
) -> dict[str, Any]:
    return {
        "cluster": cluster,
        "applied": apply,
        "changed": list(changed),
        "connectors": [
            {
                "name": one.config.name,
                "engine": str(one.config.engine),
                "tables": None if one.config.tables is None else [".".join(table) for table in one.config.tables],
                "source": one.config.host,
                "state": one.state,
                "watched": one.watched,
                "lacks": [asdict(point) for point in one.config.lacks],
                "migration": _migration(one, cluster),
            }
            for one in found
        ],
        "others": [{"name": name, "reason": why} for name, why in sorted(others.items())],
    }


def _print(
    cluster: str,
    found: Sequence[_Found],
    others: Mapping[str, str],
    changed: Sequence[str],
    *,
    release: bool,
    apply: bool,
    out: Path | None,
) -> None:
    done = "" if apply else "Dry run: nothing was changed. "
    now, then = ("is no longer", "would no longer be") if release else ("is", "would be")
    verb = f"{now if apply else then} watched"
    for one in found if not release else ():
        tables = (
            "tables by pattern" if one.config.tables is None else some_of([".".join(t) for t in one.config.tables], 3)
        )
        echo(f"{cluster}/{one.config.name}: {one.config.engine}, {tables}, at {one.config.host or 'a reference'}: "
             f"{one.state}{', watched' if one.watched else ''}")  # fmt: skip
        for point in one.config.lacks:
            echo(f"  lacks for a proof, {point.what}: {point.text}")
    for name, why in sorted(others.items()):
        echo(f"{cluster}/{name} is left out: {why}")
    if found and not release:
        echo("What comes to be proven:")
        for number, step in enumerate(_migration(found[0], cluster), 1):
            echo(f"  {number}. {step}")
    if out is not None:
        echo(f"{out} was written: datasets for a proof.")
    if not changed:
        echo(f"{done}There is nothing to change.")
        return
    if apply and len(changed) > 1:
        verb = verb.replace("is", "are", 1)
    noun = "connector" if len(changed) == 1 else "connectors"
    echo(f"{done}{len(changed)} {noun} {verb}: {some_of(changed, 5)}.")
    if apply:
        echo("Next: `cdc-platform plan` (its plan is empty), and `cdc-platform topology export` for your file.")
    else:
        echo("Add --apply to do it.")
