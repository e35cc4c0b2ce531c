"""Small disks below services of a stack, and filling them up."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil

SMALL = ("kafka", "mariadb-1")
_SIZE = "600m"


@contextmanager
def small_disks(directory: Path) -> Iterator[None]:
    """A tmpfs of its own for each of SMALL below the directory; nothing where mounting is not permitted."""
    with ExitStack() as ending:
        for name in SMALL:
            place = directory / name
            place.mkdir()
            done = subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={_SIZE},mode=755", "tmpfs", str(place)],
                capture_output=True,
                check=False,
            )
            if done.returncode == 0:
                ending.callback(subprocess.run, ["umount", "-l", str(place)], check=True)
        yield


def is_small(place: Path) -> bool:
    """True when this place is a disk of its own."""
    return place.is_mount()


@contextmanager
def full(place: Path) -> Iterator[None]:
    """Not a byte is left on that disk in this block."""
    ballast = place / "ballast"
    try:
        with ballast.open("wb", buffering=0) as stream:
            chunk = b"\0" * (1 << 20)
            while chunk:
                try:
                    stream.write(chunk)
                except OSError:
                    chunk = chunk[: len(chunk) // 2]
            os.fsync(stream.fileno())
        yield
    finally:
        ballast.unlink()


@contextmanager
def no_longer_files(pid: int) -> Iterator[None]:
    """The process may write to no file beyond its first byte in this block (EFBIG); nothing when it ends."""
    process = psutil.Process(pid)
    before = process.rlimit(psutil.RLIMIT_FSIZE)
    process.rlimit(psutil.RLIMIT_FSIZE, (1, before[1]))
    try:
        yield
    finally:
        with suppress(psutil.NoSuchProcess):
            process.rlimit(psutil.RLIMIT_FSIZE, before)
