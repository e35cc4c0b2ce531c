"""The help of every command, and its parameters."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import click

from cdc_platform.cli.main import main

WIDTH = 100


def help_texts() -> str:
    """The help of all commands, one after another, without the option for help itself.

    click keeps that option with the command from its first use on, and other tests call commands
    on their own, which gives it other names than below `cdc-platform`.
    """
    texts = []
    for context, command in _all():
        shown = copy.copy(command)
        shown.add_help_option = False
        texts.append(f"$ {context.command_path} --help\n{shown.get_help(context)}\n")
    return "\n".join(texts)


def parameters() -> dict[str, Any]:
    """Command to its arguments and options: names, types, defaults."""
    return {
        context.command_path: {
            "help": sorted(command.get_help_option_names(context)),
            "arguments, in order": [
                {"name": one.human_readable_name, **_parameter(one)}
                for one in command.params
                if isinstance(one, click.Argument)
            ],
            "options": {
                ", ".join([*one.opts, *one.secondary_opts]): _parameter(one)
                for one in command.params
                if not isinstance(one, click.Argument)
            },
        }
        for context, command in _all()
    }


def _all() -> Iterator[tuple[click.Context, click.Command]]:
    yield from _below(_context(main, "cdc-platform", None), main)


def _below(context: click.Context, command: click.Command) -> Iterator[tuple[click.Context, click.Command]]:
    yield context, command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from _below(_context(inner, name, context), inner)


def _context(command: click.Command, name: str, parent: click.Context | None) -> click.Context:
    settings = {**command.context_settings, "terminal_width": WIDTH, "max_content_width": WIDTH}
    return click.Context(command, info_name=name, parent=parent, **settings)


def _parameter(one: click.Parameter) -> dict[str, Any]:
    kind = one.type
    described: Any = kind.name
    if isinstance(kind, click.Choice):
        described = list(map(str, kind.choices))
    elif isinstance(kind, click.IntRange | click.FloatRange):
        described = f"{kind.name} {kind.min}..{kind.max}"
    found = {
        "type": described,
        "required": one.required,
        "repeats": one.multiple or one.nargs != 1,
        "flag": getattr(one, "is_flag", False),
        "default": _default(one),
        "environment": one.envvar,
    }
    # What is usual is left out.
    return {name: value for name, value in found.items() if value is not None and (value is not False)}


def _default(one: click.Parameter) -> Any:
    value = one.default
    return value if isinstance(value, bool | int | float | str) else None
