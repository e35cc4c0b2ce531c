"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path


def replace_file(
    target: Path,
    text: str,
    *,
    temporary: Path,
    mode: int,
    gid: int = -1,
    lock: AbstractContextManager[object] | None = None,
    allowed: Callable[[], bool] = lambda: True,
) -> None:
    """Write a file aside, flush it to disk and rename it. Raises OSError.

    Args:
        target: where it is to be.
        text: its content.
        temporary: where it is written, in the same file system; removed whatever happens.
        mode: of the file, whatever the umask.
        gid: its group; -1: the process's.
        lock: taken for `allowed` and the rename.
        allowed: False leaves the old file as it is.
    """
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
        with os.fdopen(handle, "w") as file:
            os.fchmod(file.fileno(), mode)
            if gid != -1:
                os.fchown(file.fileno(), -1, gid)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        with lock or nullcontext():
            if allowed():
                temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
