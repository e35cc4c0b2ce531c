"""Which MySQL server the stack runs: a path that is given, the one on PATH, or Debian's packages."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cdc_platform.errors import StackError
from cdc_platform.local import debian_packages, java
from cdc_platform.local.artifacts import Progress

# Debian's stable suites have MariaDB only.
PACKAGE, SUITE = "mysql-server-core", "sid"
# SHOW REPLICA STATUS, log_replica_updates (tests/clients/sources/test_mysql_versions.py).
OLDEST = (8, 0, 26)

_VERSION = re.compile(r"\bVer (\d+)\.(\d+)\.(\d+)(\S*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A server program. `options` (where its own files are) go behind its option file. `unpacked`: of packages."""

    command: tuple[str, ...]
    version: str
    origin: str
    options: tuple[str, ...] = ()
    unpacked: Path | None = None


def find(cache: Path, mysqld: Path | None, progress: Progress | None = None) -> Program:
    """The server to run.

    Raises:
        StackError: the path given runs no MySQL that will do, or there is none on PATH and none to be fetched.
    """
    if mysqld is not None:
        return Program(command=(str(mysqld),), version=version((str(mysqld),)), origin=str(mysqld))
    on_path = shutil.which("mysqld")
    # MariaDB's packages have a program of that name as well.
    if on_path is not None and (said := _said((on_path,))) and "MariaDB" not in said:
        return Program(command=(on_path,), version=version((on_path,)), origin=on_path)
    try:
        found = debian_packages.provide(cache / "programs", PACKAGE, suite=SUITE, progress=progress)
    except StackError as error:
        raise StackError(
            f"there is no MySQL server: none on PATH, and {error.message}",
            where=error.where,
            cure="Name one by --mysqld, or leave MySQL out.",
        ) from error
    command, usr = found.command("usr/sbin/mysqld"), found.root / "usr"
    return Program(
        command=command,
        version=version(command),
        origin=f"Debian {SUITE}, {PACKAGE} {found.version}",
        options=(
            f"--basedir={usr}",
            f"--lc-messages-dir={usr / 'share/mysql'}",
            f"--character-sets-dir={usr / 'share/mysql/charsets'}",
            f"--plugin-dir={usr / 'lib/mysql/plugin'}",
        ),
        unpacked=found.root,
    )


def note_ran(program: Program) -> None:
    """Keep in mind that this one started: `fall_back` finds it among Debian's packages."""
    if program.unpacked is not None:
        debian_packages.note_ran(program.unpacked)


def renew(cache: Path, progress: Progress | None = None) -> None:
    """Have Debian's newest package in the cache, for `find` to take it where none is named or on PATH.

    Raises:
        StackError: it is not to be had; what the cache has stays, and `find` takes that.
    """
    debian_packages.renew(cache / "programs", PACKAGE, suite=SUITE, progress=progress)


def fall_back(cache: Path) -> str | None:
    """From now on `find` takes the package that ran last: its version and hash, or None if none ever ran."""
    found = debian_packages.fall_back(cache / "programs", PACKAGE)
    if found is None:
        return None
    (digest,) = (value for file, value in found.packages.items() if file.startswith(f"{PACKAGE}_"))
    return f"{found.version} (SHA-256 {digest})"


def version(command: tuple[str, ...]) -> str:
    """The version that the program says it is. Raises StackError when it is no MySQL, or one too old."""
    said = _said(command)
    found = _VERSION.search(said)
    if found is None or "MariaDB" in said:
        raise StackError(
            f"it is no MySQL server: {said or 'it does not run'}.",
            where=command[-1],
            cure="Name a mysqld of MySQL by --mysqld.",
        )
    if tuple(int(part) for part in found.groups()[:3]) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise StackError(
            f"MySQL {found[1]}.{found[2]}.{found[3]} is too old.",
            where=command[-1],
            cure=f"Name one of {oldest} or later.",
        )
    return "".join((".".join(found.groups()[:3]), found[4]))


def _said(command: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(
            [*command, "--no-defaults", "--version"],
            capture_output=True,
            text=True,
            env=java.environment(),
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return (done.stdout or done.stderr).strip()
