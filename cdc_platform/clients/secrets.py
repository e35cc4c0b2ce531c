"""Secrets for the control plane itself: `${file:/PATH:KEY}` and `${env:NAME}`.

The same references, with the same grammar, as Connect's FileConfigProvider and
EnvVarConfigProvider resolve on the workers (ConfigTransformer: a reference may
stand anywhere in a value, other providers are left alone). A value read here
goes straight to a database driver or client and nowhere else.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from cdc_platform.connectors.java_properties import parse
from cdc_platform.errors import SecretUnresolved
from cdc_platform.model.secret_references import CANDIDATE, foreign_reference, is_reference
from cdc_platform.model.topology import Dataset

MAX_BYTES = 1024 * 1024


class Secret(str):
    """Text that does not show itself in `repr`, tracebacks with locals, or logs by `%r`.

    `str()` and formatting give the text: that is what drivers take.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret('***')"


# A user and password, or what reads them again: files of secrets are rotated while processes run.
Login = tuple[str, str] | Callable[[], tuple[str, str] | None] | None


def login(user: str, password: str) -> Login:
    """User and password of a setting, read at each use; None without a user. Raises SecretUnresolved, now and then."""
    if not user:
        return None

    def read() -> tuple[str, str]:
        return resolve(user), resolve(password)

    read()
    return read


def current(found: Login) -> tuple[str, str] | None:
    """User and password as they are now. Raises SecretUnresolved."""
    return found() if callable(found) else found


def resolve_credentials(dataset: Dataset, directories: Sequence[str]) -> tuple[Secret, Secret]:
    """User and password of a dataset, from files below `<directory>/<dataset>/` of one of the directories.

    Raises:
        SecretUnresolved: also for a reference to elsewhere, by its text or through a link.
    """
    credentials = dataset.credentials
    for text in (credentials.user, credentials.password):
        foreign = foreign_reference(text, dataset.name, directories)
        if foreign:
            raise SecretUnresolved(
                foreign[0], where=f"dataset {dataset.name}: {text}", field="credentials", cure=foreign[1]
            )
        for found in CANDIDATE.finditer(text):
            _refuse_links_elsewhere(found, [Path(each) / dataset.name for each in directories])
    return resolve(credentials.user, env={}), resolve(credentials.password, env={})


def _refuse_links_elsewhere(found: re.Match[str], own: Sequence[Path]) -> None:
    path = Path(found.group(2).rpartition(":")[0]).resolve()
    if not any(path.is_relative_to(each.resolve()) for each in own):
        _unresolved(found.group(), "is a link to elsewhere.", f"Put the file itself below {own[0]}.")


def resolve(text: str, *, env: Mapping[str, str] | None = None) -> Secret:
    """The text with all its references replaced; files are read each time.

    Raises:
        SecretUnresolved: names the reference and what is wrong, never a value.
    """
    return Secret(CANDIDATE.sub(lambda found: _value(found, os.environ if env is None else env), text))


def resolve_all(config: Mapping[str, str], *, env: Mapping[str, str] | None = None) -> dict[str, str]:
    """A client configuration with all references replaced. Raises SecretUnresolved."""
    return {key: resolve(value, env=env) if CANDIDATE.search(value) else value for key, value in config.items()}


def _value(found: re.Match[str], env: Mapping[str, str]) -> str:
    reference, (provider, rest) = found.group(), found.groups()
    if not is_reference(reference):
        _unresolved(reference, "is not a valid reference.", "Write ${file:/PATH:KEY} or ${env:NAME}.")
    if provider == "env":
        if rest not in env:
            _unresolved(reference, "this environment variable is not set.", "Set it for this process.")
        return env[rest]
    path, _, key = rest.rpartition(":")
    try:
        values = parse(_read(Path(path)))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "no properties file"
        _unresolved(reference, f"the file cannot be read: {why}.", "Check path and rights on this host.")
    if key not in values:
        _unresolved(reference, "the file has no such key.", f"Add a line {key}=... to it.")
    return values[key]


def _read(path: Path) -> str:
    """A small plain file: a reference may come from a znode, and name a device or a pipe."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("not a plain file")
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError("too large")
    return data.decode()


def _unresolved(reference: str, problem: str, cure: str) -> NoReturn:
    # Without a cause: the original error may carry the file's content.
    raise SecretUnresolved(problem, where=reference, cure=cure) from None
