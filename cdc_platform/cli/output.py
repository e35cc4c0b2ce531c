"""What commands print: text of strangers is text only."""

from __future__ import annotations

import click

from cdc_platform.model.plain_text import for_terminal


def echo(text: object, *, err: bool = False) -> None:
    """A line, or several, to stdout or stderr."""
    click.echo(for_terminal(text.decode() if isinstance(text, bytes) else str(text)), err=err)
