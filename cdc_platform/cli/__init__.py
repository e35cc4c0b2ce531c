"""The command line."""

from cdc_platform.cli.main import main

__all__ = ["main"]
