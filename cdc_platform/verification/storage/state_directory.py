"""A directory of the cache that one process at a time extends, and that others read meanwhile: its lock and its state.

`state.json` names the files beside it. It is replaced as a whole, so that a kill costs what was done since the last
one. Locks go with their process.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec

from cdc_platform.errors import CacheHeld

log = logging.getLogger(__name__)

_LOCK = "lock"
_WAIT_SECONDS = 0.05

State = TypeVar("State")
Key = TypeVar("Key")


class _Versioned(msgspec.Struct):
    version: int | None = None


class StateDirectory:
    """One such directory; it is made when it is not there.

    Args:
        version: of what is kept. State of another version is not read, so that it is begun again; where it is of a
            newer one, the log says so.
        older: versions whose state and files mean the same, so that they are gone on with.
        unversioned: the version that state without one is of; None: it is not read.
    """

    def __init__(
        self,
        path: Path,
        *,
        version: int,
        older: Collection[int] = (),
        file: str = "state.json",
        unversioned: int | None = None,
    ) -> None:
        self.path = path
        self._version, self._older, self._unversioned = version, older, unversioned
        self._file = file
        self._reported = False
        path.mkdir(parents=True, exist_ok=True)

    def load(self, kind: type[State]) -> State | None:
        """The state; None when there is none of this version, or it cannot be read."""
        try:
            raw = (self.path / self._file).read_bytes()
            version = msgspec.json.decode(raw, type=_Versioned).version
            version = self._unversioned if version is None else version
            if version == self._version or version in self._older:
                return msgspec.json.decode(raw, type=kind)
        except (FileNotFoundError, msgspec.DecodeError):
            return None
        if version is not None and version > self._version and not self._reported:
            self._reported = True
            log.warning(
                "%s was written by a newer release (version %d, this one reads %d): it is read from its source again",
                self.path / self._file,
                version,
                self._version,
            )
        return None

    def save(self, state: object, *, keep: Collection[str] | None = None) -> None:
        """Replace the state; it is on disk when this returns. Of other files, only those in `keep` stay (None: all)."""
        new = self.path / f"{self._file}.new"
        with new.open("wb") as stream:
            stream.write(msgspec.json.encode(state))
            sync(stream)
        new.replace(self.path / self._file)
        if keep is not None:
            # A reader that has a file mapped keeps it after it was unlinked (POSIX).
            self._remove({*keep, self._file, _LOCK})

    def clear(self) -> None:
        """Remove everything, under the lock."""
        self._remove({_LOCK})

    @contextmanager
    def lock(self) -> Iterator[bool]:
        """True while this process alone extends the directory; False when another does."""
        # Not filelock: where a file system has no flock, it would leave lock files behind that outlive a kill.
        with (self.path / _LOCK).open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def _remove(self, kept: Collection[str]) -> None:
        for path in self.path.iterdir():
            if path.name not in kept:
                path.unlink(missing_ok=True)


def each_locked(
    directories: Mapping[Key, StateDirectory],
    what: str,
    *,
    seconds: float,
    is_done: Callable[[Key], bool] = lambda key: False,
) -> Iterator[Key]:
    """Each key while its directory is locked; those that another process holds are waited for.

    Args:
        what: it is that is kept there, for the message.
        is_done: true of a key that the other process has done with, as far as the caller is concerned.

    Raises:
        CacheHeld: another process has held all that is left for `seconds`.
    """
    waiting, quiet_since = list(directories), time.monotonic()
    while waiting:
        held = []
        for key in waiting:
            if is_done(key):
                continue
            with directories[key].lock() as locked:
                if locked:
                    yield key
                    quiet_since = time.monotonic()
                else:
                    held.append(key)
        waiting = held
        if waiting and time.monotonic() - quiet_since > seconds:
            raise CacheHeld(
                f"another process has held {what} for {seconds:.0f} s.",
                where=str(directories[waiting[0]].path),
                cure="See whether it hangs; its lock goes with it.",
            )
        if waiting:
            time.sleep(_WAIT_SECONDS)


def sync(stream: IO[Any]) -> None:
    """What was written is on disk when this returns, so that no state names what a crash has taken."""
    stream.flush()
    os.fsync(stream.fileno())
