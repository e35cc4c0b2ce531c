"""`cdc-platform demo`."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cdc_platform.cli.grammar import Duration, NamedPath, old_option
from cdc_platform.cli.output import echo
from cdc_platform.cli.progress import INTERRUPTED, Downloads
from cdc_platform.cli.safe_console import SafeConsole
from cdc_platform.local.artifacts import Progress
from cdc_platform.local.demo import DemoOptions, Summary, run_demo
from cdc_platform.local.demo.run import Figures
from cdc_platform.model.topology import Engine


@click.command()
@click.option("--exit", "until_done", is_flag=True, help="End by itself once every change written was seen.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.option("--dir", "directory", type=NamedPath(file_okay=False), help="Keep its files here.")
@click.option("--workers", default=3, show_default=True, type=click.IntRange(1, 16), help="Connect workers.")
@click.option("--changes", default=120, show_default=True, type=click.IntRange(1), help="Changes per shard.")
@click.option("--rate", default=200.0, show_default=True, help="Changes a second over all shards.")
@click.option(
    "--engine",
    default="mariadb",
    show_default=True,
    type=click.Choice(["mariadb", "mysql"]),
    help="The server of the dataset `pins`.",
)
@old_option("--patience", "old_patience", "--wait TIME", type=Duration())
@click.option("--secure", is_flag=True, help="TLS and passwords for Kafka, Connect and ZooKeeper.")
@click.option(
    "--wait",
    "patience",
    type=Duration(),
    default="4m",
    show_default=True,
    help="How long a phase may take.",
)
def demo(
    until_done: bool,
    as_json: bool,
    directory: Path | None,
    workers: int,
    changes: int,
    rate: float,
    engine: str,
    old_patience: float | None,
    secure: bool,
    patience: float,
) -> None:
    """Start everything, capture two sharded databases, and show events arriving.

    Ctrl-C ends it and leaves nothing behind, and it exits 130. With --exit it ends
    by itself, and exits 0 only if every row written was seen in its topic.
    In another terminal `cdc-platform --demo status` and all other commands reach it.
    """
    options = DemoOptions(
        directory=directory.resolve() if directory else None,
        workers=workers,
        changes=changes,
        rate=rate if until_done else min(rate, 50.0),
        until_done=until_done,
        patience=patience if old_patience is None else old_patience,
        secure=secure,
        engine=Engine(engine),
    )
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    console = SafeConsole(stderr=True)
    with _Screen(console) as screen:
        try:
            summary = run_demo(options, screen)
        except KeyboardInterrupt:
            gone = "" if directory else ", and its files are removed"
            console.print(f"Ended. Nothing was left running{gone}.")
            sys.exit(INTERRUPTED)
    if summary is None:
        sys.exit(1)
    if as_json:
        echo(json.dumps(summary.document(), indent=2))
    else:
        SafeConsole().print(_table(summary))
    sys.exit(0 if summary.ok else 1)


class _Screen:
    """A live table on a terminal, plain lines elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        self._downloads = Downloads()
        self._last: tuple[str, int] | None = None

    def __enter__(self) -> _Screen:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live:
            self._live.stop()

    def say(self, text: str) -> None:
        self._downloads.__exit__()  # a bar and the table cannot be on the screen at once
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def downloading(self) -> Progress:
        self._downloads.__enter__()
        return self._downloads.file

    def show(self, figures: Figures) -> None:
        up, shards = sum(figures.running.values()), sum(figures.shards.values())
        if self._live:
            self._live.start()
            self._live.update(_figures(figures))
        elif self._last != (figures.phase, up):
            # Quiet until something changes.
            self._last = (figures.phase, up)
            events = sum(figures.events.values())
            self._console.print(
                f"{figures.phase}: {up} of {shards} connectors, {figures.changes} changes, {events} events.",
                highlight=False,
            )


def _figures(figures: Figures) -> Group:
    connectors = Table("dataset", "connectors up", "shards")
    for name, shards in figures.shards.items():
        connectors.add_row(name, str(figures.running.get(name, 0)), str(shards))
    topics = Table("topic of", "events")
    for table, events in sorted(figures.events.items()):
        topics.add_row(table, str(events))
    line = (
        f"{figures.phase} · {figures.changes} changes written · {figures.rate:.0f} events/s · {figures.seconds:.0f} s"
    )
    address = f"Dagster: {figures.dagster or 'starting'}"
    return Group(connectors, topics, Text(line), Text(address))


def _table(summary: Summary) -> Table:
    rows = summary.datasets
    table = Table("", *rows, title="ok" if summary.ok else "NOT ok")
    names = ("engine", "shards", "connectors_running", "changes_written", "events_seen", "distinct", "missing")
    for name in (*names, "source_rows", "topic_rows"):
        table.add_row(name.replace("_", " "), *(str(getattr(row, name)) for row in rows.values()))
    dagster = summary.dagster
    table.caption = (
        f"Dagster: {dagster.ticks} ticks, {dagster.reconcile_runs} runs of reconcile, "
        f"{dagster.materialized_partitions} partitions materialized. "
        + ", ".join(f"{phase} {seconds:.1f} s" for phase, seconds in summary.seconds.items())
    )
    return table
