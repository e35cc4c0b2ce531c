"""The stack's passwords: random for each stack, in files that only its user can read."""

from __future__ import annotations

import os
import secrets as random_source
from dataclasses import dataclass, field
from pathlib import Path

from cdc_platform.connectors.java_properties import parse, render
from cdc_platform.errors import StackError

# Below the stack's secrets: what datasets name, in a directory for each.
DATASETS = "datasets"
USER = "user"
PASSWORD = "password"


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A database account."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Logins:
    """The accounts of one engine: `source` is what connectors use, `replication` the second server."""

    admin: Login
    source: Login
    replication: Login


def logins(directory: Path, engine: str) -> Logins:
    """The accounts of "mariadb", "mysql" or "postgres"; made the first time.

    The source's file is `<engine>.properties`: datasets refer to it.
    """
    return Logins(
        admin=ensure_login(directory, f"{engine}-admin", "stack_admin"),
        source=ensure_login(directory, engine, "cdc"),
        replication=ensure_login(directory, f"{engine}-replication", "stack_replication"),
    )


def ensure_login(directory: Path, name: str, user: str) -> Login:
    """The login in `<directory>/<name>.properties`; made with a random password the first time."""
    path = directory / f"{name}.properties"
    if not path.exists():
        write_private(path, render({USER: user, PASSWORD: random_source.token_urlsafe(18)}).encode())
    return read_login(directory, name)


def read_login(directory: Path, name: str) -> Login:
    """Read a login. Raises StackError when the file is missing or incomplete."""
    path = directory / f"{name}.properties"
    try:
        values = parse(path.read_text())
        return Login(user=values[USER], password=values[PASSWORD])
    except (OSError, KeyError, ValueError) as error:
        raise StackError(
            f"the login cannot be read: {error}.",
            where=str(path),
            cure="`cdc-platform stack down --purge`, then `stack up`, makes new ones.",
        ) from error


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only this user can read, in one step; its directory is made like that, too."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as stream:
        stream.write(content)
    temporary.replace(path)
