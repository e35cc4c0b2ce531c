"""`cdc-platform topology new`: the first topology file from a pattern and a list of hosts."""

from __future__ import annotations

from pathlib import Path

import click

from cdc_platform.cli.grammar import OutputFile
from cdc_platform.cli.output import echo
from cdc_platform.documents import dump_yaml
from cdc_platform.documents.shard_ranges import expand
from cdc_platform.errors import BadInput, TopologyError
from cdc_platform.model.topology import (
    LEADER_DIR,
    Address,
    BootstrapMode,
    Cluster,
    Credentials,
    Dataset,
    Engine,
    Shard,
    Table,
    TopicSpec,
    Topology,
)


@click.command("new")
@click.argument("dataset")
@click.option("--engine", required=True, type=click.Choice([str(engine) for engine in Engine]))
@click.option(
    "--table", "tables", required=True, multiple=True, metavar="TABLE", help="A table of every shard; repeat it."
)
@click.option("--shards", "ids", required=True, metavar="FIRST-LAST", help='Ids of the shards, as in "00000-00015".')
@click.option("--database", required=True, metavar="PATTERN", help='Database of a shard, as in "pins_{shard}".')
@click.option(
    "--leader",
    "leaders",
    required=True,
    multiple=True,
    metavar="HOST:PORT",
    help="A leader, also with {shard} in it. Of several, each leads as many neighbouring shards; repeat it.",
)
@click.option("--connect", "urls", required=True, multiple=True, metavar="URL", help="A Connect worker; repeat it.")
@click.option("--cluster", default="main", show_default=True, help="Name of the Connect cluster.")
@click.option("--replication", default=3, show_default=True, type=click.IntRange(1, 32767), help="Of its topics.")
@click.option("--secrets-dir", default="/etc/cdc-platform/secrets", show_default=True, metavar="DIRECTORY")
@click.option("--leader-dir", default=LEADER_DIR, show_default=True, metavar="DIRECTORY")
@click.option("--out", type=OutputFile(), help="Write to a file.")
def new_topology(
    dataset: str, engine: str, tables: tuple[str, ...], ids: str, database: str, leaders: tuple[str, ...],
    urls: tuple[str, ...], cluster: str, replication: int, secrets_dir: str, leader_dir: str, out: Path | None,
) -> None:  # fmt: skip
    """Print a topology file of one sharded DATASET for `topology import`.

    Credentials are references to <secrets-dir>/<dataset>/login.properties with the lines user=... and password=...
    """
    if "{shard}" not in database and engine != Engine.POSTGRES and len(leaders) == 1 and "{shard}" not in leaders[0]:
        raise BadInput(
            "all shards would be one database.", field="--database", cure='Put {shard} in, as in "pins_{shard}".'
        )
    template = {"range": ids, "leader": leaders[0], "database": database}
    names = [
        (shard, str(document["database"])) for shard, _, document in expand(template, where="--shards", path="shards")
    ]
    shards = tuple(
        Shard(
            dataset=dataset,
            id=shard,
            database=name,
            leader=_leader(leaders[at * len(leaders) // len(names)].replace("{shard}", shard)),
        )
        for at, (shard, name) in enumerate(names)
    )
    if not secrets_dir.startswith("/"):
        raise BadInput(f"{secrets_dir!r} must be absolute.", field="--secrets-dir", cure="Write /PATH.")
    login = f"{secrets_dir}/{dataset}/login.properties"
    made = Dataset(
        name=dataset,
        engine=Engine(engine),
        tables=tuple(Table(name=table) for table in tables),
        clusters=(cluster,),
        credentials=Credentials(user=f"${{file:{login}:user}}", password=f"${{file:{login}:password}}"),
        topics=TopicSpec(replication=replication),
        bootstrap=BootstrapMode.INCREMENTAL,
    )
    text = dump_yaml(
        Topology(
            clusters={cluster: Cluster(name=cluster, urls=urls, leader_dir=leader_dir)},
            datasets={dataset: made},
            shards={dataset: shards},
        )
    )
    if out is None:
        click.echo(text, nl=False)
        return
    if out.exists():
        raise BadInput("is there already.", where=str(out), cure="Choose another --out.")
    out.write_text(text)
    echo(f"{out} was written. Next: `cdc-platform topology import {out}`, then `cdc-platform plan`.")


def _leader(text: str) -> Address:
    try:
        return Address.parse(text)
    except TopologyError as error:
        raise BadInput(error.message, field="--leader", cure="Write HOST:PORT, as in db-7.internal:3306.") from None
