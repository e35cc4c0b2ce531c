"""The programs of the local stack: pinned in `artifacts.lock.json`, kept in the user's cache.

The lock names every file with its SHA-256. A file is downloaded into a
directory of its own process, checked, and moved into place in one step, so
that a half download is never taken for a whole one. With all files there no
network is used. They come from Maven's central repository, or from its
mirror in the user's Maven settings.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import shutil
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import msgspec
from filelock import FileLock

from cdc_platform.errors import ChecksumMismatch, StackError
from cdc_platform.local import unpacking

LOCK_RESOURCE = "artifacts.lock.json"
_DOWNLOADS = 6
_RETRIES = 2
_CENTRAL = "https://repo.maven.apache.org/maven2"

# Called with a file's name, the bytes that are there and those of the whole file; from several threads.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One file of a Maven repository. `size` is in bytes, `sha256` in hex."""

    group: str
    artifact: str
    version: str
    classifier: str = ""
    extension: str = "jar"
    sha256: str
    size: int

    @property
    def filename(self) -> str:
        """The file's name in a Maven repository."""
        suffix = f"-{self.classifier}" if self.classifier else ""
        return f"{self.artifact}-{self.version}{suffix}.{self.extension}"

    @property
    def path(self) -> str:
        """The file's path in a Maven repository."""
        return f"{self.group.replace('.', '/')}/{self.artifact}/{self.version}/{self.filename}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """What the stack is made of: for each part its files, the part's own first."""

    parts: Mapping[str, tuple[Artifact, ...]]

    @classmethod
    def load(cls) -> Lock:
        """The lock that ships in the package."""
        return msgspec.json.decode(files("cdc_platform.local").joinpath(LOCK_RESOURCE).read_bytes(), type=cls)

    def only(self, parts: Iterable[str]) -> Lock:
        """The lock of some parts."""
        return Lock(parts={part: self.parts[part] for part in parts})


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """Verified programs on this machine: jars for a class path, and unpacked directories."""

    jars: Mapping[str, tuple[Path, ...]]
    directories: Mapping[str, Path]

    def classpath(self, part: str) -> str:
        """The part's jars as the JVM wants them."""
        return os.pathsep.join(str(path) for path in self.jars[part])


def provide(cache: Path, lock: Lock | None = None, progress: Progress | None = None) -> Programs:
    """Make sure that all that the lock names is in `cache`, verified and unpacked.

    Two processes that call this at once wait for each other.

    Raises:
        ChecksumMismatch: a download is not the file that the lock names.
        StackError: no network, no disk space, the cache not writable.
    """
    root = cache / "programs"
    with _explained(root):
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / ".lock"):
            return _provide(root, lock or Lock.load(), progress)


def _provide(root: Path, lock: Lock, progress: Progress | None) -> Programs:
    plain = {p: found for p, found in lock.parts.items() if p not in unpacking.LAYOUTS}
    packed = {p: found[0] for p, found in lock.parts.items() if p in unpacking.LAYOUTS}
    missing = _unusable(root, {a.filename: a for found in plain.values() for a in found})
    stale = [p for p, a in packed.items() if not unpacking.intact(_directory(root, p, a), a.sha256)]
    missing += _unusable(root, {packed[p].filename: packed[p] for p in stale})
    if missing:
        _check_space(root, missing, growth={packed[p].filename: unpacking.GROWTH[p] for p in stale})
        _download(root, missing, progress)
    for part in stale:
        archive = packed[part]
        unpacking.unpack(part, root / archive.filename, _directory(root, part, archive), digest=archive.sha256)
        (root / archive.filename).unlink()
    return Programs(
        jars={part: tuple(root / a.filename for a in found) for part, found in plain.items()},
        directories={part: _directory(root, part, archive) for part, archive in packed.items()},
    )


def sha256(path: Path) -> str:
    """The file's SHA-256 in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def maven_mirror(settings: Path | None = None) -> str | None:
    """The user's mirror of the central repository, from Maven's settings.xml; None without one.

    Rules: https://maven.apache.org/guides/mini/guide-mirror-settings.html.

    Raises:
        StackError: the settings file is no XML.
    """
    path = settings or Path.home() / ".m2" / "settings.xml"
    if not path.is_file():
        return None
    try:
        tree = ET.parse(path)
    except ET.ParseError as error:
        raise StackError(f"not valid XML: {error}.", where=str(path), cure="Mend the file.") from None
    for mirror in tree.iterfind("./{*}mirrors/{*}mirror"):
        of = {name.strip() for name in (mirror.findtext("{*}mirrorOf") or "").split(",")}
        url = (mirror.findtext("{*}url") or "").strip()
        meant = bool(of & {"*", "external:*", "central"}) and "!central" not in of
        if url and meant and mirror.findtext("{*}blocked") != "true":
            return url.rstrip("/")
    return None


def _directory(root: Path, part: str, archive: Artifact) -> Path:
    return root / f"{part}-{archive.version}"


def _unusable(root: Path, artifacts: Mapping[str, Artifact]) -> list[Artifact]:
    def usable(artifact: Artifact) -> bool:
        path = root / artifact.filename
        return path.is_file() and path.stat().st_size == artifact.size and sha256(path) == artifact.sha256

    with ThreadPoolExecutor(_DOWNLOADS, thread_name_prefix="verify") as pool:
        verdicts = list(pool.map(usable, artifacts.values()))
    return [artifact for artifact, good in zip(artifacts.values(), verdicts, strict=True) if not good]


def _check_space(root: Path, missing: list[Artifact], growth: Mapping[str, float]) -> None:
    need = sum(int(a.size * growth.get(a.filename, 1.0)) for a in missing)
    free = shutil.disk_usage(root).free
    if free < need:
        raise _no_space(root, f"{need // 2**20} MiB are needed and {free // 2**20} MiB are free")


def _no_space(root: Path, detail: str) -> StackError:
    return StackError(
        f"no space for the programs of the local stack: {detail}.",
        where=str(root),
        cure="Free some space there, or set XDG_CACHE_HOME to a directory on a larger disk.",
    )


def _download(root: Path, missing: list[Artifact], progress: Progress | None) -> None:
    # What a killed process left behind: no other process is here (the lock).
    for left in root.glob(".download-*"):
        shutil.rmtree(left)
    with (
        tempfile.TemporaryDirectory(prefix=".download-", dir=root) as scratch,
        ThreadPoolExecutor(_DOWNLOADS, thread_name_prefix="download") as pool,
    ):
        # The largest first: they take longest.
        queue = sorted(missing, key=lambda a: a.size, reverse=True)
        if progress:
            for artifact in queue:  # how much there is to download is known before the first byte
                progress(artifact.filename, 0, artifact.size)
        mirror = maven_mirror() or _CENTRAL
        jobs = [pool.submit(_download_one, Path(scratch), root, mirror, a, progress) for a in queue]
        try:
            for job in jobs:
                job.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _download_one(scratch: Path, root: Path, mirror: str, artifact: Artifact, progress: Progress | None) -> None:
    # Imported here: with everything in the cache neither is needed.
    import pooch
    import requests

    pooch.get_logger().setLevel(logging.WARNING)  # else it prints each URL
    name = artifact.filename
    cache = pooch.create(
        scratch,
        base_url="",
        registry={name: f"sha256:{artifact.sha256}"},
        urls={name: f"{mirror}/{artifact.path}"},
        retry_if_failed=_RETRIES,
    )
    counted = _Counted(name, progress) if progress else False
    try:
        found = cache.fetch(name, downloader=pooch.HTTPDownloader(counted, chunk_size=2**16, timeout=60))
    except requests.HTTPError as error:
        raise StackError(
            f"no repository has it: {error}.", where=name, cure="Check the mirror in ~/.m2/settings.xml."
        ) from error
    except requests.RequestException as error:
        raise StackError(
            f"not downloaded: {error}.",
            where=name,
            cure="Check the network, the proxy settings and the mirror in ~/.m2/settings.xml.",
        ) from error
    except ValueError as error:  # what pooch raises for another hash
        raise ChecksumMismatch(
            f"the download is not the file that the lock names (SHA-256 {artifact.sha256}); it was thrown away.",
            where=name,
            cure="Check the Maven mirror or proxy in use; with a right one, try again.",
        ) from error
    Path(found).replace(root / name)


class _Counted:
    """A progress bar as pooch wants it, which counts for a `Progress`."""

    total = 0

    def __init__(self, name: str, progress: Progress) -> None:
        self._name = name
        self._progress = progress
        self.reset()

    def reset(self) -> None:
        self._done = 0

    def update(self, count: int) -> None:
        self._done = min(self._done + count, self.total)
        self._progress(self._name, self._done, self.total)

    def close(self) -> None:
        """Nothing to close."""


@contextlib.contextmanager
def _explained(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_space(root, os.strerror(error.errno).lower()) from error
        raise StackError(
            f"the programs could not be stored: {error}.",
            where=str(root),
            cure="Make the directory writable, or set XDG_CACHE_HOME.",
        ) from error
