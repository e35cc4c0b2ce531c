"""`cdc-platform stack`: the real services as local processes."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import click
import msgspec
from rich.table import Table

from cdc_platform.cli.grammar import NamedPath, SuggestingGroup
from cdc_platform.cli.output import echo
from cdc_platform.cli.progress import Downloads
from cdc_platform.cli.safe_console import SafeConsole
from cdc_platform.local.control import tail
from cdc_platform.local.lifecycle import down as bring_down
from cdc_platform.local.lifecycle import up as bring_up
from cdc_platform.local.services import ServiceStatus
from cdc_platform.local.stack import DEFAULT_DIR, Stack, StackSpec
from cdc_platform.settings import Settings

_directory = click.option(
    "--dir",
    "directory",
    type=NamedPath(file_okay=False),
    default=DEFAULT_DIR,
    show_default=True,
    help="Where the stack keeps its state.",
)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(cls=SuggestingGroup)
def stack() -> None:
    """Run Kafka, Connect, Debezium, ZooKeeper, MariaDB and Postgres as local processes."""


@stack.command()
@_directory
@click.option("--workers", type=click.IntRange(1, 16), default=3, show_default=True)
@click.option("--without", type=click.Choice(["mariadb", "postgres"]), multiple=True)
@click.option("--with", "added", type=click.Choice(["mysql"]), multiple=True)
@click.option("--mysqld", type=NamedPath(exists=True, dir_okay=False), help="The MySQL server program to run.")
@click.option("--port", "ports", multiple=True, metavar="NAME=PORT", help="Fix a port, as in kafka.kafka=9092.")
@click.option("--secure", is_flag=True, help="TLS and passwords for Kafka, Connect and ZooKeeper.")
@click.option("--foreground", is_flag=True, help="Stay; the stack ends with this command.")
@_as_json
def up(
    directory: Path,
    workers: int,
    without: tuple[str, ...],
    added: tuple[str, ...],
    mysqld: Path | None,
    ports: tuple[str, ...],
    secure: bool,
    foreground: bool,
    as_json: bool,
) -> None:
    """Start the stack, or what is down of it."""
    spec = StackSpec(
        directory=directory,
        workers=workers,
        mariadb="mariadb" not in without,
        postgres="postgres" not in without,
        mysql="mysql" in added or mysqld is not None,
        mysqld=mysqld.resolve() if mysqld else None,
        ports=dict(_port(text) for text in ports),
        owned=foreground,
        secure=secure,
        cache_dir=Path(Settings.load().cache_dir),
    )
    began = time.monotonic()
    with Downloads(quiet=as_json) as progress:
        running = bring_up(spec, progress.file)
    told_to_end = _on_signals() if foreground else None
    _show(running, as_json, f"Up after {time.monotonic() - began:.1f} s.")
    if told_to_end:
        while not told_to_end.wait(0.5) and running.control.alive():
            pass
        if running.control.alive():
            bring_down(running.directory)


@stack.command()
@_directory
@click.option("--purge", is_flag=True, help="Remove its data as well.")
def down(directory: Path, purge: bool) -> None:
    """End all processes of the stack; its data stay for the next start."""
    bring_down(directory, purge=purge)


@stack.command()
@_directory
@_as_json
def status(directory: Path, as_json: bool) -> None:
    """Show what runs. Exits 2 when something does not."""
    found = Stack.load(directory)
    _show(found, as_json, None)
    if any(one.state != "running" for one in found.status()):
        sys.exit(2)


@stack.command()
@_directory
@click.argument("name")
@click.option("-f", "--follow", is_flag=True, help="Go on printing what is added.")
@click.option("-n", "--lines", default=50, show_default=True, type=click.IntRange(min=0))
def logs(directory: Path, name: str, follow: bool, lines: int) -> None:
    """Print the log of a service (`supervisor` has one too)."""
    path = Stack.load(directory).log(name)
    with path.open("rb") as stream:
        found = tail(path, lines)
        stream.seek(0, os.SEEK_END)
        if found:
            echo(found)
        while follow:
            added = stream.read()
            if added:
                click.echo(added, nl=False)
            else:
                time.sleep(0.2)


def _on_signals() -> threading.Event:
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    return ended


def _port(text: str) -> tuple[str, int]:
    name, equals, port = text.partition("=")
    if not equals or not port.isdecimal() or not 0 < int(port) < 65536:
        raise click.BadParameter(f"{text!r} is not NAME=PORT.", param_hint="--port")
    return name, int(port)


def _show(found: Stack, as_json: bool, last: str | None) -> None:
    services = found.status()
    if as_json:
        shown = {
            "directory": str(found.directory),
            "settings": str(found.settings_file),
            "connect_urls": found.connect_urls,
            "services": services,
            "mysql_version": found.mysql_version,
        }
        echo(msgspec.json.format(msgspec.json.encode(shown), indent=2).decode())
        return
    SafeConsole().print(_table(services))
    echo(f"Settings: {found.settings_file}")
    if found.mysql:
        echo(f"MySQL: {found.mysql_version}")
    if last:
        echo(last)


def _table(services: tuple[ServiceStatus, ...]) -> Table:
    table = Table("service", "role", "state", "pid", "ports", "RSS", box=None)
    for one in services:
        state = one.state if one.code is None else f"{one.state} ({one.code})"
        table.add_row(
            one.name,
            one.role or "",
            state,
            str(one.pid or ""),
            " ".join(f"{name}={port}" for name, port in one.ports.items()),
            f"{one.rss / 2**20:.0f} MiB" if one.rss else "",
        )
    return table
