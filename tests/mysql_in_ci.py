"""MySQL in CI: Debian's newest package; when that does not start, once more with the package that ran last.

Elsewhere the package that was unpacked is used as it is, and tests that lack a server are skipped.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

from cdc_platform.errors import StackError
from cdc_platform.local import lifecycle, mysql, mysql_program
from cdc_platform.local.stack import Stack, StackSpec

# The first is what CI services set, the second .ci/run: the first changes how libraries of tests behave.
_CI = ("CI", "CDC_TEST_CI")


def in_ci() -> bool:
    """True where a MySQL server that is missing is a failure."""
    return any(os.environ.get(name) for name in _CI)


@cache
def renewed(cache_dir: Path) -> str:
    """Why Debian's newest package is not to be had; empty when it is in the cache. Asked once a process."""
    try:
        mysql_program.renew(cache_dir)
    except StackError as error:
        return str(error)
    return ""


def up(spec: StackSpec, start: Callable[[StackSpec], Stack] = lifecycle.up) -> Stack:
    """The stack of `spec`. Raises StackError, in CI after one more try where MySQL did not start."""
    if not (spec.mysql and in_ci()):
        return start(spec)
    if problem := renewed(spec.cache_dir):
        warnings.warn(f"Debian's newest MySQL is not to be had: {problem}", stacklevel=2)
    try:
        return start(spec)
    except StackError as error:
        if "mysql" not in str(error).lower():
            raise
        ran = mysql_program.fall_back(spec.cache_dir)
        if ran is None:
            raise
        warnings.warn(f"MySQL did not start; once more with the package that ran last, {ran}: {error}", stacklevel=2)
        # An older server does not read a newer one's data.
        for name in mysql.SERVERS:
            shutil.rmtree(spec.directory / name, ignore_errors=True)
        return start(spec)
