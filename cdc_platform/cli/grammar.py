"""What all commands have in common: docs/command-line.md in code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from cdc_platform.model.naming import nearest

# EX_USAGE of sysexits.h: 2 says that something is not as it should be, which a misspelt option does not.
USAGE_ERROR = 64


@contextmanager
def usage_errors() -> Iterator[None]:
    """A usage error exits with `USAGE_ERROR`."""
    try:
        yield
    except click.UsageError as error:
        vars(error)["exit_code"] = USAGE_ERROR  # click has it as a class variable
        raise


class SuggestingGroup(click.Group):
    """A group that names the nearest command of an unknown one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, with the nearest name in the error."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            like = nearest(args[0], self.list_commands(ctx)) if args else None
            if like and not getattr(error, "possibilities", None):  # click 8.4 names it itself
                raise click.UsageError(f"{error.message} Did you mean {like!r}?", ctx) from None
            raise
