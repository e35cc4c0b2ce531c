"""The command line: arguments and printing; what it does lives below.

Each command sits in the module of its subject and is imported when it is
called, so that `cdc-platform agent` loads neither Dagster nor numpy.
"""

from __future__ import annotations

import errno
import importlib
import logging
import os
import sys
from dataclasses import fields
from typing import Any

import click

from cdc_platform.cli.grammar import SuggestingGroup, usage_errors
from cdc_platform.cli.output import echo
from cdc_platform.clients.log_lines import log_handler, log_to
from cdc_platform.errors import CdcError, Unavailable, missing_extra
from cdc_platform.settings import CONFIG_ENV, ENV_PREFIX, Settings

# Command name to "module:attribute".
COMMANDS = {
    "adopt": "cdc_platform.cli.adopt:adopt",
    "agent": "cdc_platform.agent.command:agent",
    "apply": "cdc_platform.cli.plan_and_apply:apply",
    "backfill": "cdc_platform.cli.backfill:backfill",
    "bootstrap": "cdc_platform.cli.bootstrap:bootstrap",
    "completion": "cdc_platform.cli.completion:completion",
    "demo": "cdc_platform.cli.demo:demo",
    "doctor": "cdc_platform.cli.doctor:doctor",
    "exporter": "cdc_platform.cli.exporter:exporter",
    "grants": "cdc_platform.cli.init:grants",
    "init": "cdc_platform.cli.init:init",
    "lake": "cdc_platform.cli.lake:lake",
    "pause": "cdc_platform.cli.topology:pause",
    "plan": "cdc_platform.cli.plan_and_apply:plan",
    "repair": "cdc_platform.cli.repair:repair",
    "report": "cdc_platform.cli.report:report",
    "resume": "cdc_platform.cli.topology:resume",
    "snapshot": "cdc_platform.cli.snapshot:snapshot",
    "stack": "cdc_platform.cli.stack:stack",
    "status": "cdc_platform.cli.status:status",
    "topology": "cdc_platform.cli.topology:topology",
    "verify": "cdc_platform.cli.verify:verify",
    "worker-properties": "cdc_platform.cli.worker_properties:worker_properties",
}

# Commands that a plain installation does not have, and the extra that brings them.
NEEDS = {"demo": "local", "stack": "local"}

# Commands whose addresses do not come from the settings.
WITHOUT_SETTINGS = frozenset({"agent", "demo", "stack"})

# Commands that have to do something of their own when they are interrupted: to end processes, to give a lock back.
CLEAN_UP = frozenset({"agent", "apply", "demo", "exporter", "stack"})

# Options that most commands have and the program itself has not.
OF_COMMANDS = frozenset({"--json", "--apply", "--dry-run", "--wait", "--table", "--out", "--continue", "--force"})

# Long-lived commands set up their own logging.
SERVICES = frozenset({"agent", "exporter"})


class _Lazy(SuggestingGroup):
    def make_context(self, *args: Any, **more: Any) -> click.Context:
        with usage_errors():
            try:
                return super().make_context(*args, **more)
            except click.NoSuchOption as error:
                raise _misplaced(error) from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        problem = missing_extra(NEEDS[cmd_name]) if cmd_name in NEEDS else None
        if problem:
            return _not_installed(cmd_name, problem)
        module, attribute = COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with usage_errors():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            echo("Interrupted.", err=True)
            ctx.exit(130)
        except CdcError as error:
            own = isinstance(error, Unavailable) and ctx.invoked_subcommand not in WITHOUT_SETTINGS
            echo(f"Error: {error}{' ' + Settings.origin() if own else ''}", err=True)
            ctx.exit(1)
        except OSError as error:
            # A path that the caller named: one sentence instead of a traceback.
            if error.errno in (errno.ENOSPC, errno.EIO) and error.filename is None:
                echo(f"Error: the output could not be written: {error.strerror}. Cure: Write it elsewhere.", err=True)
                ctx.exit(1)
            if not isinstance(error.filename, str | bytes):
                raise
            name = os.fsdecode(error.filename)
            echo(f"Error: {name}: {error.strerror}. Cure: Name a path that this user may use.", err=True)
            ctx.exit(1)


def _misplaced(error: click.NoSuchOption) -> click.UsageError:
    """An option before the command, which is one of the command, or a setting as other programs have it."""
    if error.option_name in ("--config", "--settings", "--config-file"):
        return click.UsageError(f"Settings are not options: name their file by {CONFIG_ENV}=FILE.", error.ctx)
    if error.option_name in OF_COMMANDS:
        return click.UsageError(f"Write {error.option_name} after the command: it is an option of commands.", error.ctx)
    return error


def _not_installed(name: str, problem: CdcError) -> click.Command:
    """A command in the place of one whose module cannot be imported: listed, and says what to install."""

    def say() -> None:
        raise problem

    anything = {"ignore_unknown_options": True, "allow_extra_args": True}
    return click.Command(name, callback=say, help=problem.cure, context_settings=anything)


def _use_demo() -> None:
    """The demo's settings, and nothing of this environment's, for the rest of this process.

    Raises:
        CdcError: no demo runs, several do, or this installation has none.
    """
    problem = missing_extra(NEEDS["demo"])
    if problem:
        raise problem
    demo_settings = importlib.import_module("cdc_platform.local.demo.running").demo_settings
    for setting in fields(Settings):
        os.environ.pop(ENV_PREFIX + setting.name.upper(), None)
    os.environ[CONFIG_ENV] = str(demo_settings())


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="cdc-platform")
@click.option("-v", "--verbose", is_flag=True, help="Also show what the clients log.")
@click.option("--demo", "of_demo", is_flag=True, help="On the demo that runs on this machine, with its settings.")
@click.pass_context
def main(ctx: click.Context, verbose: bool, of_demo: bool) -> None:
    """Change data capture for sharded databases: Debezium kept alive, topics proven complete."""
    if of_demo:
        if ctx.invoked_subcommand in WITHOUT_SETTINGS:
            raise click.UsageError(f"`{ctx.invoked_subcommand}` reads no settings: leave --demo out.")
        _use_demo()
    if ctx.invoked_subcommand not in CLEAN_UP:
        from cdc_platform.cli.progress import ends_at_once  # the agent does without

        # Whatever its connections still wait for. Commands that know what they have done say that instead.
        ctx.with_resource(ends_at_once(lambda: "Interrupted."))
    if verbose:
        log_to(None, logging.INFO)
    elif ctx.invoked_subcommand not in SERVICES:
        # An error is one sentence: what the clients log on the way to it would bury it.
        logging.getLogger().addHandler(logging.NullHandler())
        # But whose settings these are is said.
        logging.getLogger("cdc_platform.settings").handlers = [log_handler(sys.stderr, "Warning: %(message)s")]
