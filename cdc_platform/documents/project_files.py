"""Files of the project that commands use: from a checkout, or from inside the installed package."""

from __future__ import annotations

from pathlib import Path

import cdc_platform
from cdc_platform.errors import StackError

_PACKAGE = Path(cdc_platform.__file__).parent


def repository_file(name: str) -> Path:
    """`examples/...` or `dagster_home/...`. Raises StackError."""
    for path in (_PACKAGE / "project" / name, _PACKAGE.parent / name):
        if path.is_file():
            return path
    raise StackError(
        "a file of the project is missing.",
        where=str(_PACKAGE.parent / name),
        cure="Install cdc-platform again, or use a whole checkout.",
    )
