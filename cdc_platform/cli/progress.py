"""How commands show that they work, and how Ctrl-C ends them: the same for all.

On a terminal a bar or a spinner with rate and time left; elsewhere a line each ten seconds. All of it on stderr.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn, Self

from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from cdc_platform.cli.output import echo
from cdc_platform.cli.safe_console import SafeConsole
from cdc_platform.snapshots.progress_events import duration

LINE_SECONDS = 10.0
INTERRUPTED = 130


def count(amount: float) -> str:
    """`1,200`, or `0.4` of something slow."""
    return f"{amount:,.0f}" if amount >= 10 or amount == int(amount) else f"{amount:.1f}"


def mebibytes(amount: float) -> str:
    """`12.3 MiB`."""
    return f"{amount / 2**20:,.1f} MiB"


def pace(done: int, total: int, seconds: float, size: Callable[[float], str] = count) -> str:
    """`1,200 of 5,000, 30/s, 2 min left`; without rate and time left before they are known."""
    text = f"{size(done)} of {size(total)}"
    if done <= 0 or seconds <= 0:
        return text
    rate = done / seconds
    left = f", {duration((total - done) / rate)} left" if total > done else ""
    return f"{text}, {size(rate)}/s{left}"


def end_interrupted(text: str) -> NoReturn:
    """Say what was done, and end at once, whatever other threads wait for: like a kill, which all commands survive."""
    if sys.stderr.isatty():
        sys.stderr.write("\x1b[?25h\r\x1b[K")  # a bar hides the cursor
    echo(text, err=True)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(INTERRUPTED)


@contextmanager
def ends_at_once(text: Callable[[], str]) -> Iterator[None]:
    """Within it Ctrl-C ends the process at once. `text`: what was done, and the command that goes on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        end_interrupted(text())

    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Stages:
    """Stages that count: one bar for each, or a line for each every ten seconds. From several threads."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = SafeConsole(stderr=True)
        self._quiet = quiet
        self._bars = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"), TimeElapsedColumn(),
            console=self._console, transient=True, disable=quiet or not self._console.is_terminal,
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}
        self._began: dict[str, float] = {}
        self._said: dict[str, float] = {}
        self._ended: set[str] = set()
        self._lock = threading.Lock()
        self.last = ""

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bars.stop()

    def update(self, stage: str, done: int, total: int, size: Callable[[float], str] = count) -> None:
        """The stage has done so much; `size` writes an amount."""
        now = time.monotonic()
        with self._lock:
            began = self._began.setdefault(stage, now)
            text = pace(done, total, now - began, size)
            self.last = f"{stage}: {text}"
            if not self._bars.disable:
                if stage not in self._tasks:
                    self._tasks[stage] = self._bars.add_task(stage, total=total, text="")
                self._bars.update(self._tasks[stage], completed=done, total=total, text=text)
            elif not self._quiet and self._is_due(stage, done >= total, now):
                echo(self.last, err=True)

    def _is_due(self, stage: str, over: bool, now: float) -> bool:
        """A line is due after ten seconds, and once at the end."""
        due = now - self._said.setdefault(stage, now) >= LINE_SECONDS or (over and stage not in self._ended)
        if due:
            self._said[stage] = now
        if over:
            self._ended.add(stage)
        return due


class Steps:
    """Sentences of a command that cannot count: with a spinner on a terminal, repeated each ten seconds elsewhere."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = SafeConsole(stderr=True)
        self._quiet = quiet
        self._spinner = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(),
            console=self._console, transient=True, disable=quiet or not self._console.is_terminal,
        )  # fmt: skip
        self._task = self._spinner.add_task("", total=None)
        self._began = self._said = time.monotonic()
        self._over = threading.Event()
        self.last = ""

    def __enter__(self) -> Self:
        self._spinner.start()
        if self._spinner.disable and not self._quiet:
            threading.Thread(target=self._repeat, name="progress", daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._spinner.stop()

    def say(self, text: str) -> None:
        """It does this now, or has done it."""
        self.last, self._said = text, time.monotonic()
        self._spinner.update(self._task, description=text)
        if not self._quiet:
            self._console.print(text, highlight=False, soft_wrap=True)

    def _repeat(self) -> None:
        while not self._over.wait(1.0):
            now = time.monotonic()
            if now - self._said >= LINE_SECONDS:
                self._said = now
                echo(f"{self.last or 'At work'} ({duration(now - self._began)} so far)", err=True)


class Downloads(Stages):
    """All downloads as one: bytes, rate and time left."""

    def __init__(self, *, quiet: bool = False) -> None:
        super().__init__(quiet=quiet)
        self._files: dict[str, tuple[int, int]] = {}
        self._counting = threading.Lock()

    def file(self, name: str, done: int, total: int) -> None:
        """A file has `done` of `total` bytes; from several threads."""
        with self._counting:
            self._files[name] = (done, total)
            got, of = (sum(amounts) for amounts in zip(*self._files.values(), strict=True))
        if done or len(self._files) == 1:
            self.update("Downloading programs", got, of, mebibytes)
