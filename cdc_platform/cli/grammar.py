"""What all commands have in common: docs/command-line.md in code."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import click

from cdc_platform.cli.output import echo
from cdc_platform.model.naming import nearest
from cdc_platform.model.topology import Dataset, Table

# EX_USAGE of sysexits.h: 2 says that something is not as it should be, which a misspelt option does not.
USAGE_ERROR = 64

F = TypeVar("F", bound=Callable[..., Any])


@contextmanager
def usage_errors() -> Iterator[None]:
    """A usage error exits with `USAGE_ERROR`."""
    try:
        yield
    except click.UsageError as error:
        vars(error)["exit_code"] = USAGE_ERROR  # click has it as a class variable
        raise


def note_old(old: str, instead: str) -> None:
    """Say on stderr that a spelling of an earlier release still works, and for how long."""
    echo(f"Note: write `{instead}`; `{old}` ends with the next release.", err=True)


def old_option(flag: str, name: str, instead: str, **more: Any) -> Callable[[F], F]:
    """An option as it was spelled in an earlier release: hidden, and named on stderr when it is used."""

    def callback(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        if value:
            note_old(flag, instead)
        return value

    return click.option(flag, name, hidden=True, callback=callback, **more)


class SuggestingGroup(click.Group):
    """A group that names the nearest command of an unknown one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, with the nearest name in the error."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            if args and args[0] == "help":
                of = " ".join(args[1:2])
                raise click.UsageError(f"Write `cdc-platform {of + ' ' if of else ''}--help`.", ctx) from None
            like = nearest(args[0], self.list_commands(ctx)) if args else None
            if like and not getattr(error, "possibilities", None):  # click 8.4 names it itself
                raise click.UsageError(f"{error.message} Did you mean {like!r}?", ctx) from None
            raise


class Duration(click.ParamType):  # type: ignore[type-arg] # generic since click 8.4
    """Seconds, written as `90s`, `30m`, `2h`, `1d` or a bare number of seconds; `least` is the smallest taken."""

    name = "time"
    _UNITS: ClassVar[dict[str, int]] = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}

    def __init__(self, least: float = 0.0) -> None:
        self._least = least

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The seconds of a text; a number is one already."""
        if isinstance(value, int | float):
            return float(value)
        found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]+)?)\s?([smhd]?)", value.strip())
        if not found:
            self.fail(f"{value!r} is not a duration: write 90s, 30m, 2h, 1d or a number of seconds.", param, ctx)
        seconds = float(found[1]) * self._UNITS[found[2]]
        if seconds < self._least:
            self.fail(f"{value!r} is too short: {self._least:g} s at least.", param, ctx)
        return seconds


class NamedPath(click.Path):
    """A path that the caller names: an empty one, which would be the working directory, is refused."""

    def __init__(self, *, exists: bool = False, file_okay: bool = True, dir_okay: bool = True) -> None:
        super().__init__(exists=exists, file_okay=file_okay, dir_okay=dir_okay, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path."""
        if not str(value).strip():
            self.fail("the name is empty.", param, ctx)
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if not self.file_okay and path.exists() and not path.is_dir():
            self.fail(f"{str(path)!r} is not a directory.", param, ctx)
        return path


class OutputFile(NamedPath):
    """A file that is going to be written: asked before anything runs whether it can be."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path of a file in a directory that exists."""
        path = super().convert(value, param, ctx)
        if not path.parent.is_dir():
            self.fail(f"{str(path.parent)!r} is not a directory: name a file in one that exists.", param, ctx)
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            self.fail(f"{str(path)!r} cannot be written by this user.", param, ctx)
        return path


def tables_and_shards(
    dataset: Dataset, names: Sequence[str], tables: Sequence[str]
) -> tuple[tuple[Table, ...], tuple[str, ...]]:
    """The tables of `--table` (all without it), and the shards that are meant by the arguments after DATASET.

    The first argument may still be a table's name, as it was before 0.2; that is said on stderr.

    Raises:
        TopologyError: there is no such table.
    """
    known = {table.name for table in dataset.tables}
    if not tables and names and names[0] in known:
        note_old(f"{dataset.name} {names[0]}", f"{dataset.name} --table {names[0]}")
        tables, names = (names[0],), names[1:]
    chosen = {dataset.table(name).name for name in tables} or known
    return tuple(table for table in dataset.tables if table.name in chosen), tuple(names)
