"""Programs of the stack that do one thing and end, such as formatting or making a data directory."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cdc_platform.errors import StackError
from cdc_platform.local import java

# Seconds on a quiet machine, minutes on one that runs many other things.
_SECONDS = 300


def run_program(argv: Sequence[str], **more: Any) -> subprocess.CompletedProcess[str]:
    """Run it to its end, with its output as text; `more` as for `subprocess.run`.

    Raises:
        StackError: it did not end in time. Its arguments, which may hold hashes of passwords, are not named.
    """
    try:
        return subprocess.run(
            argv, capture_output=True, text=True, env=java.environment(), timeout=_SECONDS, check=False, **more
        )
    except subprocess.TimeoutExpired:
        raise StackError(
            f"{Path(argv[0]).name} did not end in {_SECONDS} s.",
            cure="See with `uptime` what else this machine does, and run the command again.",
        ) from None
