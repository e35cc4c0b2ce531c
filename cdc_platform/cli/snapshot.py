"""`cdc-platform snapshot`: bootstraps and backfills on record, each a snapshot run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from cdc_platform.cli import run_progress
from cdc_platform.cli.grammar import SuggestingGroup
from cdc_platform.settings import Settings
from cdc_platform.snapshots.ports import SnapshotPorts
from cdc_platform.snapshots.run_lifecycle import RequestedState
from cdc_platform.wiring import open_platform, open_snapshots

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(cls=SuggestingGroup)
def snapshot() -> None:
    """See, pause and end the snapshot runs that `bootstrap`, `backfill` and `repair` made."""


@contextmanager
def _ports() -> Iterator[SnapshotPorts]:
    with open_platform(Settings.load()) as platform, open_snapshots(platform) as ports:
        yield ports


@snapshot.command("list")
@_json
def list_runs(as_json: bool) -> None:
    """Show the snapshot runs on record."""
    with _ports() as ports:
        run_progress.list_runs(ports, as_json=as_json)


@snapshot.command("show")
@click.argument("run")
@_json
def show(run: str, as_json: bool) -> None:
    """Show how far each shard and table of RUN is."""
    with _ports() as ports:
        run_progress.show(ports, run, as_json=as_json)


@snapshot.command("pause")
@click.argument("run")
@_json
def pause(run: str, as_json: bool) -> None:
    """Pause RUN; streams go on."""
    with _ports() as ports:
        run_progress.order(ports, run, RequestedState.PAUSED, as_json=as_json)


@snapshot.command("resume")
@click.argument("run")
@_json
def resume(run: str, as_json: bool) -> None:
    """Let a paused RUN go on, where a process works on it; `--continue` of its command starts one."""
    with _ports() as ports:
        run_progress.order(ports, run, RequestedState.RUNNING, as_json=as_json)


@snapshot.command("stop")
@click.argument("run")
@_json
def stop(run: str, as_json: bool) -> None:
    """End RUN; what was read stays. Exits 0 when all its shards are over, 1 when one failed."""
    with _ports() as ports:
        run_progress.stop(ports, run, as_json=as_json)
