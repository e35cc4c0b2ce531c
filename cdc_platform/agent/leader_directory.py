"""The leader directory of one worker host.

Files appear whole or not at all, and an older generation never replaces a
newer one, also when the agents of several workers share the directory.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import logging
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cdc_platform.agent.atomic_file import replace_file
from cdc_platform.connectors.leader_files import SUFFIX, LeaderFile, file_name, parse, render
from cdc_platform.errors import BadInput, CdcError

log = logging.getLogger(__name__)

_MODE = 0o640
_MAX_BYTES = 4096
# Files are flushed to disk by several threads at once: the disk takes one flush for many.
_WRITERS = 8
_LOCK_SECONDS = 5.0


class LeaderDirectory:
    """The files of one directory; what was read once is read again only when it changed.

    Args:
        path: made when it is not there.
        owner: of temporary files: the worker's name.
        group: may read the files: the group that the Connect worker runs in.

    Raises:
        BadInput: the directory cannot be used, or there is no such group.
    """

    def __init__(self, path: Path, *, owner: str, group: str | None = None) -> None:
        self.path = path.absolute()
        self._owner = re.sub(r"[^A-Za-z0-9_-]", "_", owner)
        self._gid = _gid(group) if group else -1
        self._known: dict[str, tuple[tuple[int, int, int], LeaderFile | None]] = {}
        self._threads = threading.Lock()
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, _MODE)
            if group:
                os.chown(path, -1, self._gid)
                path.chmod(0o750)
            for left in path.glob(f".{self._owner}.*.tmp"):
                left.unlink(missing_ok=True)
        except OSError as error:
            raise BadInput(
                f"cannot be used: {error.strerror}.",
                where=str(path),
                field="--leader-dir",
                cure="Give a directory that the agent's user may write.",
            ) from None

    def read(self) -> dict[str, LeaderFile | None]:
        """Each leader file by shard name; None for one that is broken."""
        found: dict[str, tuple[tuple[int, int, int], LeaderFile | None]] = {}
        self.path.mkdir(parents=True, exist_ok=True)
        with os.scandir(self.path) as entries:
            for entry in entries:
                if entry.name.startswith(".") or not entry.name.endswith(SUFFIX):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    stat = entry.stat()
                    stamp = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
                    name = entry.name.removesuffix(SUFFIX)
                    known = self._known.get(name)
                    found[name] = known if known and known[0] == stamp else (stamp, self._parse(name))
        self._known = found
        return {name: content for name, (_, content) in found.items()}

    def write(self, contents: Mapping[str, LeaderFile]) -> dict[str, str]:
        """Write these files; returns the reason for each that could not be.

        A file with a greater generation is left as it is, and counts as written: its writer knew more.
        """
        if not contents:
            return {}
        failed: dict[str, str] = {}
        with ThreadPoolExecutor(max_workers=min(_WRITERS, len(contents)), thread_name_prefix="leader-file") as pool:
            for name, problem in zip(contents, pool.map(self._write, contents.items()), strict=True):
                if problem:
                    failed[name] = problem
        self._sync_directory()
        return failed

    def remove(self, names: tuple[str, ...]) -> None:
        """Remove the files of these shards."""
        for name in names:
            (self.path / file_name(name)).unlink(missing_ok=True)
        if names:
            self._sync_directory()

    def _write(self, item: tuple[str, LeaderFile]) -> str | None:
        name, content = item
        target = self.path / file_name(name)
        temporary = self.path / f".{self._owner}.{name}.{os.getpid()}.tmp"

        def is_newer() -> bool:
            there = self._parse(name)
            return there is None or there.generation <= content.generation

        try:
            replace_file(
                target,
                render(content),
                temporary=temporary,
                mode=_MODE,
                gid=self._gid,
                lock=self._exclusive(),
                allowed=is_newer,
            )
        except (OSError, CdcError) as error:
            return str(error)
        return None

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        """One comparison and rename at a time, among threads and among agents."""
        with self._threads:
            deadline = time.monotonic() + _LOCK_SECONDS
            while True:
                try:
                    fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise BadInput(
                            "another process has locked the directory.",
                            where=str(self.path / ".lock"),
                            cure="End or continue that process.",
                        ) from None
                    time.sleep(0.01)
            try:
                yield
            finally:
                fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _parse(self, name: str) -> LeaderFile | None:
        path = self.path / file_name(name)
        try:
            with path.open("rb") as file:
                return parse(file.read(_MAX_BYTES).decode(), where=str(path))
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError, CdcError) as error:
            log.warning("%s will be written again: %s", path, error)
            return None

    def _sync_directory(self) -> None:
        """Make renames and removals outlive a power cut."""
        handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _gid(group: str) -> int:
    try:
        return int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    except KeyError:
        raise BadInput(
            f"there is no group {group!r}.", field="--group", cure="Name the Connect worker's group."
        ) from None
