"""What `bootstrap` and `backfill` share: working on a run and showing how far it is."""

from __future__ import annotations

import json
import secrets
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

import click
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from cdc_platform.cli.grammar import old_option
from cdc_platform.cli.output import echo
from cdc_platform.cli.progress import INTERRUPTED, ends_at_once
from cdc_platform.cli.safe_console import SafeConsole
from cdc_platform.settings import Settings
from cdc_platform.snapshots import run_lifecycle, summary
from cdc_platform.snapshots.lost_positions import for_lost_shards
from cdc_platform.snapshots.observed_connectors import observe_connectors
from cdc_platform.snapshots.ports import SnapshotPorts
from cdc_platform.snapshots.progress_events import Listener, RunProgress, ShardDone, duration
from cdc_platform.snapshots.request import RunKind
from cdc_platform.snapshots.request_options import Option, options_of, request_of
from cdc_platform.snapshots.run_lifecycle import RequestedState
from cdc_platform.snapshots.run_records import Run
from cdc_platform.snapshots.slice_runner import work_slice
from cdc_platform.snapshots.table_progress import TableLine, progress_of
from cdc_platform.wiring import open_platform, open_snapshots

F = TypeVar("F", bound=Callable[..., Any])


# Orders to a snapshot run on record, and questions about it, as they were spelled before `cli/snapshot.py`.
_ORDERS = (
    old_option("--pause", "pauses", "snapshot pause RUN"),
    old_option("--resume", "resumes", "snapshot resume RUN"),
    old_option("--stop", "stops", "snapshot stop RUN"),
    old_option("--progress", "details", "snapshot show RUN"),
    old_option("--runs", "lists", "snapshot list", is_flag=True),
    click.option("--json", "as_json", is_flag=True, help="Print JSON."),
)


def request_options(kind: RunKind) -> Callable[[F], F]:
    """The arguments and options of a command that asks for snapshot runs of this kind."""

    def decorate(command: F) -> F:
        for option in reversed((*map(_click_option, options_of(kind)), *_ORDERS)):
            command = option(command)
        return command

    return decorate


def _click_option(option: Option) -> Callable[[F], F]:
    if option.is_argument:
        return click.argument(option.name, nargs=-1 if option.several else 1, required=False)
    flag = option.flag or f"--{option.name.replace('_', '-')}"
    more: dict[str, Any] = {"metavar": option.metavar, "help": option.text}
    if option.several is not None:
        more |= {"multiple": True, "callback": _positions if option.several is dict else None}
    elif option.scalar is bool:
        more["is_flag"] = True
    elif option.scalar is int:
        more |= {"type": click.IntRange(min=1), "default": option.default, "show_default": True}
    elif issubclass(option.scalar, StrEnum):
        more["type"] = click.Choice([str(value) for value in option.scalar])
    return click.option(flag, option.name, **more)


def _positions(context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for text in texts:
        shard, _, found[shard] = text.partition("=")
        if not shard or not found[shard]:
            raise click.BadParameter(f"{text!r} is not SHARD=POSITION, as in 00000=0-1-50.", context, parameter)
    return found


def handle(kind: RunKind, given: dict[str, Any]) -> None:
    """Do what was asked for: a snapshot run to its end, or an order or question by the spellings before 0.2.

    Args:
        kind: of the command.
        given: the values of `request_options`.
    """
    orders = {name: given.pop(name) for name in ("pauses", "resumes", "stops", "details", "lists")}
    as_json = given.pop("as_json")
    with open_platform(Settings.load()) as platform, open_snapshots(platform) as ports:
        if any(orders.values()):
            _by_old_spelling(ports, orders, as_json=as_json)
            return
        if given["continues"]:
            run = run_lifecycle.unfinished(platform.state.read(), given["continues"])
            run_lifecycle.order(ports, run.id, RequestedState.RUNNING)
        elif not given["dataset"]:
            raise click.UsageError("Missing argument 'DATASET'.")
        else:
            request = request_of(kind, given)
            if given.get("lost"):
                request = for_lost_shards(observe_connectors(platform, platform.topology.load()), request)
            name = f"{kind}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
            run = run_lifecycle.open_run(ports, request, name)
        work(ports, run, as_json=as_json)


def _by_old_spelling(ports: SnapshotPorts, orders: dict[str, Any], *, as_json: bool) -> None:
    if orders["pauses"]:
        order(ports, orders["pauses"], RequestedState.PAUSED, as_json=as_json)
    elif orders["resumes"]:
        order(ports, orders["resumes"], RequestedState.RUNNING, as_json=as_json)
    elif orders["details"]:
        show(ports, orders["details"], as_json=as_json)
    elif orders["lists"]:
        list_runs(ports, as_json=as_json)
    else:
        stop(ports, orders["stops"], as_json=as_json)


def order(ports: SnapshotPorts, name: str, wanted: RequestedState, *, as_json: bool) -> None:
    """Record that an unfinished snapshot run is to be paused, or to go on."""
    run = run_lifecycle.order(ports, name, wanted)
    document = {"run": run.id, "kind": str(run.kind), "dataset": run.dataset, "requested": str(wanted)}
    said = f"Snapshot run {run.id} is to be {wanted}: it follows within seconds."
    echo(json.dumps(document, indent=2) if as_json else said)


def stop(ports: SnapshotPorts, name: str, *, as_json: bool) -> None:
    """End an unfinished snapshot run, and work on it until all its shards are over."""
    work(ports, run_lifecycle.order(ports, name, RequestedState.STOPPED), as_json=as_json)


def show(ports: SnapshotPorts, name: str, *, as_json: bool) -> None:
    """How far each shard and table of a snapshot run is."""
    found = progress_of(ports, run_lifecycle.on_record(ports.platform.state.read(), name))
    if as_json:
        echo(json.dumps({"tables": [asdict(line) for line in found]}, indent=2))
    else:
        echo("\n".join(map(TableLine.sentence, found)))


def list_runs(ports: SnapshotPorts, *, as_json: bool) -> None:
    """The snapshot runs on record."""
    found = summary.all_runs(ports.platform.state.read())
    echo(json.dumps({"runs": found}, indent=2) if as_json else _lines(found))


def work(ports: SnapshotPorts, run: Run, *, as_json: bool) -> None:
    """Work on a run to its end; exits 1 when a shard failed. Interrupted, the run stays on record."""
    screen = Screen(run, quiet=as_json)
    parts = run_lifecycle.slices(run)
    began = datetime.now(UTC)
    again = f"`cdc-platform {run.kind} --continue {run.id}` goes on."

    def interrupted() -> str:
        return f"Interrupted: {len(screen.over)} of {len(run.shards)} shards are over. {again}"

    try:
        with (
            screen,
            ends_at_once(interrupted),
            ThreadPoolExecutor(max_workers=len(parts), thread_name_prefix="slice") as pool,
        ):
            futures = [pool.submit(work_slice, ports, run, n, screen.listener(n)) for n in range(len(parts))]
            for future in futures:
                future.result()
    except KeyboardInterrupt:
        echo(interrupted(), err=True)
        sys.exit(INTERRUPTED)
    closed = run_lifecycle.finish(ports, run)
    seconds = (datetime.now(UTC) - began).total_seconds()
    done = [shard for shard in screen.over if shard.error is None]
    failed = [shard for shard in screen.over if shard.error is not None]
    if as_json:
        echo(json.dumps(_document(closed, screen.over, seconds), indent=2))
    else:
        for shard in failed:
            echo(shard.sentence(), err=True)
        for shard in done:
            if shard.hole is not None:
                echo(shard.sentence())
        rows = sum(sum(shard.rows.values()) for shard in screen.over)
        echo(
            f"{run.kind} {run.id}: {len(done)} shards done, {len(failed)} failed, {rows:,} rows in {duration(seconds)}."
        )
    sys.exit(1 if failed else 0)


class Screen:
    """A progress bar on a terminal, a line now and then elsewhere. From several threads."""

    def __init__(self, run: Run, *, quiet: bool) -> None:
        self.run = run
        self.over: list[ShardDone] = []
        self._quiet = quiet
        self._console = SafeConsole(stderr=True)
        self._lock = threading.Lock()
        self._parts: dict[int, RunProgress] = {}
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[text]}"),
            console=self._console,
            disable=quiet or not self._console.is_terminal,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Screen:
        self.say(f"{self.run.kind} {self.run.id}: {len(self.run.shards)} shards of {self.run.dataset}.")
        self._bar.start()
        self._task = self._bar.add_task(str(self.run.kind), total=1.0, text="")
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def listener(self, number: int) -> _Part:
        """The listener of one slice."""
        return _Part(self, number)

    def say(self, text: str) -> None:
        """One line."""
        if not self._quiet:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def progress(self, number: int, progress: RunProgress) -> None:
        """One slice is so far."""
        with self._lock:
            self._parts[number] = progress
            whole = together(list(self._parts.values()), len(self.run.shards))
        if self._bar.disable:
            self.say(whole.sentence())
        elif self._task is not None:
            left = f", {duration(whole.eta)} left" if whole.eta is not None else ""
            text = f"{whole.done} of {whole.shards} shards, {whole.rows:,} rows, {whole.rows_per_s:,.0f}/s{left}"
            text += whole.waiting()
            self._bar.update(self._task, completed=whole.fraction, text=text)

    def ended(self, shards: tuple[ShardDone, ...]) -> None:
        """These shards are over."""
        with self._lock:
            self.over += shards


class _Part(Listener):
    def __init__(self, screen: Screen, number: int) -> None:
        self._screen = screen
        self._number = number

    def message(self, text: str) -> None:
        self._screen.say(text)

    def progress(self, progress: RunProgress) -> None:
        self._screen.progress(self._number, progress)

    def over(self, shards: tuple[ShardDone, ...]) -> None:
        self._screen.ended(shards)


def together(parts: list[RunProgress], shards: int) -> RunProgress:
    """Slices as one run of `shards` shards. Pure."""
    active: dict[str, int] = {}
    throttled: dict[str, int] = {}
    for part in parts:
        for counts, into in ((part.active, active), (part.throttled, throttled)):
            for word, count in counts.items():
                into[word] = into.get(word, 0) + count
    etas = [part.eta for part in parts if part.eta is not None]
    return RunProgress(
        shards=shards,
        done=sum(part.done for part in parts),
        failed=sum(part.failed for part in parts),
        active=active,
        throttled=throttled,
        rows=sum(part.rows for part in parts),
        chunks=sum(part.chunks for part in parts),
        rows_per_s=sum(part.rows_per_s for part in parts),
        fraction=sum(part.fraction * part.shards for part in parts) / shards,
        eta=max(etas, default=None),
        waits={shard: reason for part in parts for shard, reason in part.waits.items()},
    )


def _document(run: Run, over: list[ShardDone], seconds: float) -> dict[str, Any]:
    return {
        "run": run.id,
        "kind": str(run.kind),
        "dataset": run.dataset,
        "mode": str(run.mode) if run.mode else None,
        "finished": run.finished.isoformat() if run.finished else None,
        "seconds": round(seconds, 1),
        "rows": sum(sum(shard.rows.values()) for shard in over),
        "shards": {
            shard.shard: {
                "error": shard.error,
                "rows": dict(shard.rows),
                "seconds": round(shard.seconds, 1),
                "start": shard.start,
                "end": shard.end,
                "hole": {"since": shard.hole.since, "until": shard.hole.until} if shard.hole else None,
            }
            for shard in over
        },
    }


def _lines(found: list[dict[str, Any]]) -> str:
    if not found:
        return "No runs are on record."
    return "\n".join(
        f"{run['run']}: {run['kind']} of {run['dataset']}, {run['created'][:19]}Z, "
        + ", ".join(f"{count} {phase}" for phase, count in sorted(run["phases"].items()))
        + ("" if run["finished"] else ", not finished")
        for run in found
    )
