"""`cdc-platform init` and `grants`: the settings file, and the rights of the connector's user."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from cdc_platform.cli.grammar import OutputFile
from cdc_platform.cli.output import echo
from cdc_platform.clients.kafka.admin import KafkaAdmin
from cdc_platform.documents.grants import grants as grants_of
from cdc_platform.documents.settings_reference import toml
from cdc_platform.errors import BadInput, CdcError
from cdc_platform.model.topology import Engine
from cdc_platform.settings import CONFIG_ENV, CONFIG_FILE, Settings
from cdc_platform.wiring import connect_client, topology_store

_SECONDS = 8.0


@click.command()
@click.option("--platform", default="cdc", show_default=True, metavar="NAME", help="Name of the platform.")
@click.option("--zookeeper", default="127.0.0.1:2181", show_default=True, metavar="HOST:PORT,...")
@click.option("--kafka", default="127.0.0.1:9092", show_default=True, metavar="HOST:PORT,...")
@click.option(
    "--connect", "urls", multiple=True, metavar="URL", help="A Connect worker, only to be checked; repeat it."
)
@click.option(
    "--secrets-dir", "secrets_dirs", multiple=True, metavar="DIRECTORY", help="With datasets' secrets; repeat it."
)
@click.option("--out", type=OutputFile(), default=CONFIG_FILE, show_default=True)
@click.option("--force", is_flag=True, help="Write the file though a server does not answer, or over an older one.")
def init(
    platform: str,
    zookeeper: str,
    kafka: str,
    urls: tuple[str, ...],
    secrets_dirs: tuple[str, ...],
    out: Path,
    force: bool,
) -> None:
    """Write a settings file with all settings, their meaning and defaults, after asking each server.

    Exits 0 when it was written and every server answers, 2 when one does not, 1 on an error.
    """
    chosen: dict[str, Any] = {"platform": platform, "zookeeper": zookeeper, "kafka": {"bootstrap.servers": kafka}}
    if secrets_dirs:
        chosen["secrets_dirs"] = list(secrets_dirs)
    if out.exists() and not force:
        raise BadInput("is there already.", where=str(out), cure="Choose another --out, or write over it with --force.")
    text = toml(chosen)
    settings = Settings.load_text(text, str(out))
    good = True
    for what, ask in _servers(settings, urls):
        try:
            echo(f"{what}: {ask()}")
        except CdcError as error:
            good = False
            echo(f"{what}: {error.message}{f' Cure: {error.cure}' if error.cure else ''}")
    if not good and not force:
        echo(f"{out} was not written. See that the servers run, or write it all the same with --force.", err=True)
        sys.exit(2)
    out.write_text(text)
    echo(f"{out} was written. Next: `export {CONFIG_ENV}={out.absolute()}`, then `cdc-platform topology new --help`.")
    sys.exit(0 if good else 2)


def _servers(settings: Settings, urls: tuple[str, ...]) -> Iterator[tuple[str, Callable[[], str]]]:
    """What is asked of each server: its name, and the question."""
    kafka = KafkaAdmin(settings.kafka, timeout=_SECONDS)

    def zookeeper() -> str:
        with closing(topology_store(settings)) as store:
            return f"answers, {len(store.load().datasets)} datasets below {settings.zookeeper_root}"

    def brokers() -> str:
        count = kafka.brokers()
        hint = "" if count > 2 else f" (set `topics: {{replication: {count}}}` in datasets; 3 is the default)"
        return f"answers, {count} brokers{hint}"

    yield f"ZooKeeper {settings.zookeeper}", zookeeper
    yield f"Kafka {settings.kafka['bootstrap.servers']}", brokers
    for url in urls:

        def worker(url: str = url) -> str:
            with closing(connect_client(settings, url, [url], kafka.cluster_id())) as client:
                return f"answers, {len(client.connectors())} connectors"

        yield f"Connect {url}", worker


@click.command()
@click.argument("engine", type=click.Choice([str(engine) for engine in Engine]))
@click.option("--user", default="cdc", show_default=True, help="Name of the user.")
@click.option("--database", "databases", multiple=True, metavar="NAME", help="A shard's database; repeat it.")
@click.option("--table", "tables", multiple=True, metavar="TABLE", help="For Postgres: a table to publish; repeat it.")
def grants(engine: str, user: str, databases: tuple[str, ...], tables: tuple[str, ...]) -> None:
    """Print the SQL that gives the connector's user on ENGINE the least rights. Fill in the PASSWORD."""
    click.echo(grants_of(Engine(engine), user=user, databases=databases, tables=tables), nl=False)
