"""docs/command-line.md speaks of commands and options that exist."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from cdc_platform.cli.main import COMMANDS, main

PAGE = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text()
ROWS = re.findall(r"^\| `([a-z -]+)` \| (.+) \| .+ \|$", PAGE.partition("## Spellings before 0.2")[2], re.MULTILINE)


def command(name: str) -> click.Command:
    found: click.Command | None = main
    for part in name.split():
        assert isinstance(found, click.Group)
        found = found.get_command(click.Context(found), part)
        assert found is not None, f"there is no command {name!r}"
    assert found is not None
    return found


@pytest.mark.parametrize(("name", "today"), ROWS)
def test_old_spellings_are_still_options_and_hidden(name: str, today: str) -> None:
    hidden = {
        option
        for each in command(name).params
        if isinstance(each, click.Option) and each.hidden
        for option in each.opts
    }
    assert set(re.findall(r"`(--[a-z-]+)`", today)) <= hidden


def test_no_hidden_option_is_missing_in_the_table() -> None:
    named = {(name, option) for name, today in ROWS for option in re.findall(r"`(--[a-z-]+)`", today)}
    for name in COMMANDS:
        for each in command(name).params:
            if isinstance(each, click.Option) and each.hidden:
                assert (name, each.opts[0]) in named


def test_the_table_is_read() -> None:
    assert len(ROWS) >= 4


def test_the_options_of_the_grammar_are_in_use() -> None:
    used = set()
    for name in COMMANDS:
        found = command(name)
        of_group = list(found.commands.values()) if isinstance(found, click.Group) else [found]
        used |= {option for each in of_group for parameter in each.params for option in parameter.opts}
    table = PAGE.partition("## Options")[2].partition("Settings are not options")[0]
    assert set(re.findall(r"^\| `(--[a-z-]+)", table, re.MULTILINE)) <= used
