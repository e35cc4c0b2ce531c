"""`cdc-platform completion`: what a shell needs to complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from cdc_platform.cli.output import echo
from cdc_platform.errors import BadInput


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a script that has SHELL complete commands and options: `eval "$(cdc-platform completion bash)"`."""
    found = get_completion_class(shell)
    assert found is not None  # click has all three
    try:
        echo(found(ctx.find_root().command, {}, "cdc-platform", "_CDC_PLATFORM_COMPLETE").source())
    except RuntimeError as error:  # bash is asked for its version, which may be too old or not to be had
        raise BadInput(str(error), field="SHELL", cure="Install bash 4.4 or newer, or use another shell.") from None
