"""Where Postgres lives and who runs it: it refuses to run as root.

Then it runs as another user, with its programs and data where that user can
reach them.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cdc_platform.errors import StackError
from cdc_platform.local.artifacts import Programs
from cdc_platform.local.services import Launch
from cdc_platform.local.short_program import run_program

_OTHER_USER = "nobody"
# What directories made outside the stack begin with.
_OUTSIDE = "cdc-platform-postgres-"


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresDirectories:
    """Where Postgres lives and who runs it (None: the user of the stack)."""

    root: Path
    bindir: Path
    user: str | None


def find_directories(root: Path, programs: Programs) -> PostgresDirectories:
    """Where Postgres can run: `root`, its programs in the cache, unless we are root.

    As root, all of it moves to where the other user can reach it: `root` if
    all directories above let others through, else a directory of its own.

    Raises:
        StackError: as root, when there is no other user.
    """
    cached = programs.directories["postgres"]
    if os.geteuid() != 0:
        root.mkdir(parents=True, exist_ok=True)
        return PostgresDirectories(root=root, bindir=cached / "bin", user=None)
    try:
        account = pwd.getpwnam(_OTHER_USER)
    except KeyError as error:
        raise StackError(
            f"Postgres refuses to run as root, and there is no user {_OTHER_USER!r} to run it.",
            cure="Run the stack as an ordinary user, or use --without postgres.",
        ) from error
    pointer = _pointer(root)
    if not _others_pass(root.parent):
        if pointer.exists():
            root = _pointed(pointer)
        else:
            # It outlives a reboot, as the stack's directory does; not every container has it.
            parent = "/var/tmp" if Path("/var/tmp").is_dir() else None
            root = Path(tempfile.mkdtemp(prefix=_OUTSIDE, dir=parent))
            pointer.write_text(f"{root}\n")
    root.mkdir(parents=True, exist_ok=True)
    os.chown(root, account.pw_uid, account.pw_gid)
    bindir = cached / "bin"
    if not _others_pass(cached):
        copied = root / cached.name
        if not copied.exists():
            scratch = root / f".{cached.name}.new"
            shutil.rmtree(scratch, ignore_errors=True)
            shutil.copytree(cached, scratch, symlinks=True)
            scratch.replace(copied)
        bindir = copied / "bin"
    return PostgresDirectories(root=root, bindir=bindir, user=_OTHER_USER)


def remove(root: Path) -> None:
    """Remove what `find_directories` made outside the stack's directory.

    Raises:
        StackError: the stack's note of where that is names something else; nothing was removed.
    """
    pointer = _pointer(root)
    if pointer.exists():
        shutil.rmtree(_pointed(pointer), ignore_errors=True)
        pointer.unlink()


def _pointer(root: Path) -> Path:
    return root.with_name(f"{root.name}.path")


def _pointed(pointer: Path) -> Path:
    """The directory that the note names: one of ours, or it is not followed."""
    found = Path(pointer.read_text().strip())
    if not found.is_absolute() or not found.name.startswith(_OUTSIDE) or ".." in found.parts:
        raise StackError(
            f"{str(found)!r} is no directory that the stack made for Postgres.",
            where=str(pointer),
            cure="Remove this file, and by hand the directory that it should name.",
        )
    return found


def own(directories: PostgresDirectories, path: Path) -> None:
    """Give a file to the user that runs Postgres."""
    if directories.user:
        account = pwd.getpwnam(directories.user)
        os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)


def write_private(directories: PostgresDirectories, path: Path, text: str) -> None:
    """Write a file that only the user that runs Postgres can read."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as stream:
        stream.write(text)
    own(directories, path)


def _others_pass(directory: Path) -> bool:
    return all(folder.stat().st_mode & 0o001 for folder in (directory, *directory.parents))


def run(directories: PostgresDirectories, argv: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a program as the user that runs Postgres."""
    account = pwd.getpwnam(directories.user) if directories.user else None
    return run_program(
        argv,
        cwd=directories.root,
        user=account.pw_uid if account else None,
        group=account.pw_gid if account else None,
        extra_groups=[] if account else None,
        **more,
    )


def directories_of(launched: Launch) -> PostgresDirectories:
    """The directories that a launch was made for."""
    return PostgresDirectories(root=Path(launched.cwd), bindir=Path(launched.argv[0]).parent, user=launched.user)
