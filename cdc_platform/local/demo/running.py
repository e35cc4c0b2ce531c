"""Demos that run on this machine, found by their processes: there is no file that could outlive one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import psutil

from cdc_platform.errors import StackError
from cdc_platform.settings import CONFIG_FILE

_SUPERVISOR = "cdc_platform.local.supervisor"


def demo_settings() -> Path:
    """The settings file of the one demo of this user that runs.

    Raises:
        StackError: none runs, or several do.
    """
    found = sorted(directory / CONFIG_FILE for directory in demo_directories())
    ready = [file for file in found if file.exists()]
    if not ready:
        what = "the demo is still starting its servers." if found else "no demo of this user runs on this machine."
        cure = "Wait until it says where its settings are." if found else "Start one with `cdc-platform demo`."
        raise StackError(what, field="--demo", cure=cure)
    if len(ready) > 1:
        cure = f"Choose one: `export CDC_PLATFORM_CONFIG=FILE` with {' or '.join(map(str, ready))}."
        raise StackError(f"{len(ready)} demos run.", field="--demo", cure=cure)
    return ready[0]


def _of_this_user() -> Iterable[psutil.Process]:
    own = psutil.Process().uids().real
    for process in psutil.process_iter():
        try:
            if process.uids().real == own:
                yield process
        except psutil.Error:
            continue  # it has ended meanwhile


def demo_directories() -> set[Path]:
    """Where the stacks of demos are: the directories of supervisors whose parent is a demo."""
    found = set()
    for process in _of_this_user():
        try:
            arguments = process.cmdline()
            parent = process.parent() if _SUPERVISOR in arguments else None
            if parent is not None and "demo" in parent.cmdline():
                found.add(Path(arguments[arguments.index("--dir") + 1]))
        except psutil.Error:
            continue  # it has ended meanwhile
    return found
