"""Paths of the cache: made and removed here alone, and never outside of it.

Names come from elsewhere (a topic's id is base64, and may begin with a slash), so
none is put into a path as it stands, and nothing is removed before it is certain
that it lies in the cache.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path

# What has not been changed for so long belongs to a topic, table or run that is gone. Not at once: it may be read.
KEPT_SECONDS = 7 * 86_400.0

_LONGEST = 200  # of 255 bytes that file systems allow, with room for endings


def cache_path(cache: Path, *names: str) -> Path:
    """The path of a file or directory in the cache; each name is one part of it, whatever stands in it.

    Different names give different parts. Raises ValueError without a name.
    """
    if not names:
        raise ValueError("a path in the cache needs a name")
    return cache.joinpath(*map(_part, names))


def remove(cache: Path, path: Path) -> None:
    """Remove a directory of the cache with all that is in it; one that is not there is no error.

    Raises:
        ValueError: it is not below the cache; nothing was removed.
    """
    root, found = cache.resolve(), path.resolve()
    if root == found or root not in found.parents:
        raise ValueError(f"{path} is not in the cache {cache}")
    shutil.rmtree(found, ignore_errors=True)


def remove_others(cache: Path, kept: Path, *, idle_s: float = 0.0) -> None:
    """Remove what stands beside `kept` and has not been changed for `idle_s` seconds. Raises ValueError as `remove`."""
    for other in kept.parent.iterdir():
        with suppress(FileNotFoundError):  # another process was faster
            if other != kept and time.time() - other.stat().st_mtime >= idle_s:
                remove(cache, other)


def _part(name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9._+=-]", _escaped, name)
    if plain.strip(".") == "":
        plain = plain.replace(".", "%2e") or "%"
    if len(plain) <= _LONGEST:
        return plain
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"{plain[: _LONGEST - 34]}%-{digest}"


def _escaped(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02x}" for byte in found[0].encode("utf-8", "surrogatepass"))
