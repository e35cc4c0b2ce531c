"""Credentials of datasets where the platform demands them: below a directory of the dataset's own."""

from __future__ import annotations

from pathlib import Path

from cdc_platform.model.topology import Credentials

SECRETS_DIRS = ("/run/secrets",)


def own_secrets(dataset: str) -> Credentials:
    """References that the dataset may hold, with `secrets_dirs=SECRETS_DIRS`; no file is there."""
    file = f"{SECRETS_DIRS[0]}/{dataset}/source.properties"
    return Credentials(user=f"${{file:{file}:user}}", password=f"${{file:{file}:password}}")


def write_login(directory: Path, dataset: str, name: str, user: str, password: str) -> Credentials:
    """A login of the dataset in a file of that name, below a `secrets_dirs` directory; the references to it."""
    file = directory / dataset / f"{name}.properties"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"user={user}\npassword={password}\n")
    return Credentials(user=f"${{file:{file}:user}}", password=f"${{file:{file}:password}}")
